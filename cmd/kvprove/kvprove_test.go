package main

import (
	"bytes"
	"errors"
	"go/format"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// inRoot runs the test in the root of the source tree, as kvprove is run.
func inRoot(t *testing.T) {
	t.Helper()
	t.Chdir("../..")
}

// TestExhibitsApply sees that every seeded bug still fits the source it was made for, and leaves Go.
// Whether that compiles the museum tells, which builds each of them.
func TestExhibitsApply(t *testing.T) {
	inRoot(t)
	names := map[string]bool{}
	for _, x := range exhibits() {
		if names[x.name] || x.story == "" || len(x.edits) == 0 {
			t.Errorf("%s: a second one of that name, or it says or does nothing", x.name)
		}
		names[x.name] = true
		files, err := x.apply()
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
		for name, text := range files {
			if _, err := format.Source(text); err != nil {
				t.Errorf("%s: %s: %v", x.name, name, err)
			}
		}
	}
	if len(names) < 25 {
		t.Errorf("%d exhibits are no museum", len(names))
	}
}

// TestMuseumCatches shows one exhibit to tests that find it, and to some that cannot.
func TestMuseumCatches(t *testing.T) {
	inRoot(t)
	x := exhibit{
		name:  "value-aliases-cache",
		edits: []edit{{"sstable/block.go", "e := b.data[start:end:end]", "e := b.data[start:end]"}},
		pkg:   "./sstable", run: "^TestAppendToValue",
	}
	c, err := x.show(t.Context(), t.TempDir())
	if err != nil || !c.caught || !strings.HasPrefix(c.by, "TestAppend") {
		t.Errorf("caught: %v by %q, %v", c.caught, c.by, err)
	}
	x.run = "^TestGolden"
	if c, err = x.show(t.Context(), t.TempDir()); err != nil || c.caught {
		t.Errorf("caught by golden tests: %v by %q, %v", c.caught, c.by, err)
	}
	x.run = "^TestThatIsNotThere$"
	if _, err = x.show(t.Context(), t.TempDir()); err == nil {
		t.Error("no test ran, and nobody says so")
	}
	x.edits[0].old = "no such text"
	if _, err := x.show(t.Context(), t.TempDir()); err == nil {
		t.Error("an edit that fits nowhere is no error")
	}
}

func TestScannerSumsFigures(t *testing.T) {
	s := &scanner{figures: figures{}}
	out := "=== RUN   TestA\n    a_test.go:12: proof: crash points 12\n    a_test.go:13: proof: recov"
	for _, p := range []string{out, "eries 7\n--- PASS: TestA (0.1s)\n", "  proof: recoveries 3\n"} {
		if n, err := s.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	if want := (figures{"crash points": 12, "recoveries": 10}); !maps.Equal(s.figures, want) {
		t.Errorf("%v, want %v", s.figures, want)
	}
	if s.passed != 1 {
		t.Errorf("%d tests passed", s.passed)
	}
}

func TestLedger(t *testing.T) {
	page, err := renderLedger([]byte(`{"date":"2026-01-02","commit":"abc","seconds":90,` +
		`"parts":["crash"],"figures":{"recoveries":1000,"kills":3}}` + "\n" +
		`{"date":"2026-01-03","commit":"def+","seconds":60,"parts":["crash","fuzz"],` +
		`"failed":["fuzz"],"figures":{"recoveries":234}}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| kills | 3 | 3 |", "| recoveries | 1 234 | 234 |",
		"| 2026-01-02 | abc | 1.5 | crash | none |", "| 2026-01-03 | def+ | 1.0 | crash, fuzz | fuzz |"} {
		if !bytes.Contains(page, []byte(want+"\n")) {
			t.Errorf("no line %s in\n%s", want, page)
		}
	}
	if _, err := renderLedger([]byte("no JSON\n")); err == nil {
		t.Error("a ledger that is none is rendered")
	}
	inRoot(t)
	data, err := os.ReadFile(ledgerFile)
	if os.IsNotExist(err) {
		return // nothing was recorded yet
	}
	want, renderErr := renderLedger(data)
	if err = errors.Join(err, renderErr); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(ledgerPage); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what %s gives: %v", ledgerPage, ledgerFile, err)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1 000", 1234567: "1 234 567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// TestPartsNameTests fails when a part runs nothing.
func TestPartsNameTests(t *testing.T) {
	inRoot(t)
	for _, p := range parts {
		if p.pkg == "" {
			continue
		}
		files, err := filepath.Glob(filepath.Join(p.pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		run, found := regexp.MustCompile(p.run), false
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range testName.FindAllSubmatch(source, -1) {
				found = found || run.Match(name[1])
			}
		}
		if !found {
			t.Errorf("%s: %s has no %s", p.name, p.pkg, p.run)
		}
	}
}

var testName = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
