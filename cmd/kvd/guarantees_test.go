package main_test

import (
	"errors"
	"go/ast"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuaranteesNameRealTests holds docs/guarantees.md to the source: every test it names is a link
// to the file that has it, in the package it says, and every file it links to is there.
func TestGuaranteesNameRealTests(t *testing.T) {
	const page = "docs/guarantees.md"
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	functions := map[string]map[string]bool{} // of each test file
	for _, s := range sources(t) {
		if !s.isTest {
			continue
		}
		names := map[string]bool{}
		for _, decl := range s.file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[fn.Name.Name] = true
			}
		}
		functions[s.path] = names
	}
	links := regexp.MustCompile(`\[([^\]]*)\]\(([^)#]+)(#[^)]*)?\)`)
	test := regexp.MustCompile("^`(\\w+)\\.((?:Test|Fuzz|Benchmark)\\w+)`$")
	named := 0
	for _, m := range links.FindAllStringSubmatch(string(text), -1) {
		file := path.Join(path.Dir(page), m[2])
		if _, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(file))); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			t.Errorf("there is no %s", file)
			continue
		}
		name := test.FindStringSubmatch(m[1])
		if name == nil {
			continue
		}
		named++
		if dir := path.Dir(file); name[1] != path.Base(dir) {
			t.Errorf("%s is not in package %s", file, name[1])
		}
		if !functions[file][name[2]] {
			t.Errorf("%s has no %s", file, name[2])
		}
	}
	if named < 30 {
		t.Errorf("only %d tests are named", named)
	}
	// Whatever looks like the name of a test outside of a link is one of those in a link.
	rest := links.ReplaceAllString(string(text), "")
	for _, name := range regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z]\w*`).FindAllString(rest, -1) {
		if !strings.Contains(string(text), "."+name+"`](") {
			t.Errorf("%s is named without a link", name)
		}
	}
}
