package web

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// README.md shows the pictures that there are, light and dark, of a desk and of a phone. They are small.
func TestGallery(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, name := range regexp.MustCompile(`pictures/[\w.-]+`).FindAllString(string(text), -1) {
		shown[filepath.Base(name)] = true
	}
	files, err := filepath.Glob("../../pictures/*")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no pictures", err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if !shown[info.Name()] {
			t.Errorf("README.md doesn't show %s", info.Name())
		}
		delete(shown, info.Name())
		if info.Size() > 60_000 {
			t.Errorf("%s has %d bytes", info.Name(), info.Size())
		}
		for _, pair := range [][2]string{{"-light", "-dark"}, {"-desk", "-phone"}} {
			other := strings.Replace(file, pair[0], pair[1], 1)
			if _, err := os.Stat(other); err != nil {
				t.Error(err)
			}
		}
	}
	front, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`examples/pictures/[\w.-]+`).FindAllString(string(front), -1) {
		if _, err := os.Stat(filepath.Join("../../..", name)); err != nil {
			t.Error(err)
		}
	}
	for name := range shown {
		t.Errorf("README.md shows %s, which isn't there", name)
	}
}

// The inspector, which is a module of its own, has the colours of the examples.
func TestInspectorHasTheSameColours(t *testing.T) {
	colours := func(file string) map[string]string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for i, scheme := range strings.SplitN(string(text), "prefers-color-scheme: dark", 2) {
			for _, m := range regexp.MustCompile(`(?m)^ +(--[\w-]+): (#\w+);`).FindAllStringSubmatch(scheme, -1) {
				found[[]string{"light ", "dark "}[i]+m[1]] = m[2]
			}
		}
		return found
	}
	own, inspectors := colours("page.css"), colours("../../../adapters/inspector/assets/style.css")
	both := 0
	for name, colour := range inspectors {
		if own[name] == "" {
			continue
		}
		both++
		if own[name] != colour {
			t.Errorf("%s is %s in the examples, %s in the inspector", name, own[name], colour)
		}
	}
	if both < 20 {
		t.Errorf("they share %d colours", both)
	}
}
