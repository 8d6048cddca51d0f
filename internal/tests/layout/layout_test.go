// Package layout_test holds the packages of the root module to what docs/architecture.md says of them.
package layout_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../../.."
	module = "github.com/wsroom/wsroom"
)

// imports are what each package below internal may import of this module and of the libraries that it stands on. A
// package stands below those that import it.
var imports = map[string][]string{
	"bucket":    {},
	"goroutine": {},
	"serial":    {module + "/internal/lookup"},
	"site":      {},
	"lookup":    {},
	"netpoll":   {},
	"frame":     {module + "/internal/netpoll", "github.com/coder/websocket"},
	"history":   {module + "/internal/frame", module + "/internal/lookup"},
	"resume":    {module + "/internal/frame", module + "/internal/history"},
	"outbound": {
		module + "/internal/frame", module + "/internal/goroutine",
		module + "/internal/history", module + "/internal/resume",
	},
	"line": {
		module + "/internal/outbound", module + "/internal/frame", module + "/internal/bucket", module + "/internal/resume",
		module + "/internal/netpoll",
		"github.com/coder/websocket",
	},
	"request":   {"github.com/go-chi/chi/v5"},
	"route":     {"github.com/go-chi/chi/v5"},
	"cluster":   {module + "/internal/frame", module + "/internal/lookup", module + "/internal/serial"},
	"lifecycle": {module + "/internal/frame", module + "/internal/lookup"},
	"presence":  {module + "/internal/lookup", module + "/internal/serial"},

	// for tests only
	"loopback":     {},
	"postgrestest": {module + "/internal/loopback"},
	"redistest":    {module + "/internal/loopback"},
	"underrace":    {},
}

// sources parses the package's files, without tests.
func sources(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = file
	}
	return files
}

// packages are the names of the root module's packages below internal. Other modules have a go.mod, and so have
// internal/tests, which may import anything.
func packages(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "internal"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		_, err := os.Stat(filepath.Join(root, "internal", entry.Name(), "go.mod"))
		if err != nil && entry.Name() != "tests" {
			names = append(names, entry.Name())
		}
	}
	return names
}

// Imports run only downwards: a package below internal imports what the table lets it, and never the root.
func TestImportsRunDownwards(t *testing.T) {
	for _, name := range packages(t) {
		allowed, known := imports[name]
		if !known {
			t.Errorf("internal/%s isn't in the table: say what it may import", name)
		}
		for path, file := range sources(t, filepath.Join(root, "internal", name)) {
			for _, spec := range file.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				standard := !strings.Contains(strings.Split(imported, "/")[0], ".")
				if !standard && !slices.Contains(allowed, imported) {
					t.Errorf("%s imports %s", path, imported)
				}
			}
		}
	}
	for name := range imports {
		if !slices.Contains(packages(t), name) {
			t.Errorf("there is no internal/%s", name)
		}
	}
}

// No package below internal names a Hub or a Conn of wsroom. Those of other packages, such as net.Conn, have a
// qualifier; frame has a Conn of its own.
func TestMechanismsKnowNoHubAndNoConn(t *testing.T) {
	for _, name := range packages(t) {
		if name == "frame" {
			continue
		}
		for path, file := range sources(t, filepath.Join(root, "internal", name)) {
			qualified := map[*ast.Ident]bool{}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					qualified[n.Sel] = true
				case *ast.Ident:
					if (n.Name == "Hub" || n.Name == "Conn") && !qualified[n] {
						t.Errorf("%s names %s", path, n.Name)
					}
				}
				return true
			})
		}
	}
}

// Every package below internal says what it does and what it knows.
func TestPackagesHaveADocComment(t *testing.T) {
	for _, name := range packages(t) {
		doc := ""
		for _, file := range sources(t, filepath.Join(root, "internal", name)) {
			doc += file.Doc.Text()
		}
		if !strings.HasPrefix(doc, "Package "+name+" ") {
			t.Errorf("internal/%s: its comment is %q", name, doc)
		}
	}
}

// The root holds the files that show the architecture: at most ten with code, and two with tests.
func TestRootIsSmall(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var code, tests []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			tests = append(tests, filepath.Base(path))
		} else {
			code = append(code, filepath.Base(path))
		}
	}
	if len(code) > 10 {
		t.Errorf("%d files: %q", len(code), code)
	}
	if want := []string{"example_test.go", "wsroom_test.go"}; !slices.Equal(tests, want) {
		t.Errorf("tests in the root: %q, want %q", tests, want)
	}
}
