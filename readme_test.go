package wsroom_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README's Go code is that of examples, which are compiled and run.
func TestReadmeShowsTestedCode(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var tested string
	for _, name := range []string{"example_test.go", "wsroomtest/example_test.go"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tested += withoutIndent(string(source))
	}
	blocks := strings.Split(string(readme), "```go\n")[1:]
	if len(blocks) < 3 {
		t.Fatalf("%d blocks of Go in the README", len(blocks))
	}
	for _, block := range blocks {
		code, _, ok := strings.Cut(block, "```")
		if !ok || !strings.Contains(tested, withoutIndent(code)) {
			t.Errorf("in no example:\n%s", code)
		}
	}
}

func withoutIndent(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "\n")
}

// Every threat in SECURITY.md names the tests that play it; each of them exists.
func TestThreatsNameTheirTests(t *testing.T) {
	security, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(security), "## Threats")
	rows := strings.Split(strings.TrimSpace(table), "\n")[2:]
	tests := testNames(t)
	for _, row := range rows {
		named := testName.FindAllString(row, -1)
		if len(named) == 0 {
			t.Errorf("no test: %s", row)
		}
		for _, name := range named {
			if !tests[name] {
				t.Errorf("there is no %s", name)
			}
		}
	}
	if len(rows) < 30 {
		t.Errorf("%d threats", len(rows))
	}
}

var testName = regexp.MustCompile(`\b(Test|Fuzz)\w+`)

// testNames are the functions of that kind in the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, pattern := range []string{"*_test.go", "*/*_test.go", "*/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(source)) {
				if strings.HasPrefix(line, "func ") {
					names[testName.FindString(line)] = true
				}
			}
		}
	}
	return names
}
