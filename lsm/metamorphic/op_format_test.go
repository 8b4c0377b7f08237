package metamorphic

import (
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"kvd/lsm"
)

// A list that is written and read again is the same list.
func TestListIsText(t *testing.T) {
	for seed := range uint64(5) {
		ops := generate(seed, 500)
		var text strings.Builder
		plans := append(corners(), randomPlan(rand.New(rand.NewPCG(seed, 2)), "drawn"))
		text.WriteString("# a comment\n\n")
		for _, p := range plans {
			text.WriteString(p.String() + "\n")
		}
		for _, o := range ops {
			text.WriteString(o.String() + "\n")
		}
		gotOps, err := parseOps(text.String())
		if err != nil || !reflect.DeepEqual(gotOps, ops) {
			t.Fatalf("seed %d: other ops, %v", seed, err)
		}
		gotPlans, err := parsePlans(text.String())
		if err != nil || !reflect.DeepEqual(gotPlans, plans) {
			t.Fatalf("seed %d: other plans, %v", seed, err)
		}
	}
}

func TestListIsRefused(t *testing.T) {
	for _, line := range []string{
		"jump", "put db k 1:1 sync", `put db "k" 1 sync`, `put db "k" 1:1 fast`, `put db "k" 1:1`,
		`delete db "k"*x sync`, `get db "k"x`, `next i0 -1`, `batch db sync put "k"`,
		`batch db sync erase "k"`, `crash Softly 1 sync`, "flush now", `get db "unended`,
	} {
		if _, err := parseOps("flush\n" + line + "\n"); err == nil {
			t.Errorf("%s: accepted", line)
		} else if !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, line := range []string{"options", "options x", "options x memtable=1"} {
		if _, err := parsePlans(line); err == nil {
			t.Errorf("%s: accepted", line)
		}
	}
}

func TestKeysAndValues(t *testing.T) {
	for text, want := range map[string]string{
		`""`: "", `"a\x20b"`: "a b", `"ab"*3+"c"`: "abababc", `"\x00"*2+"\xff"`: "\x00\x00\xff",
		`"*+"*2`: "*+*+",
	} {
		if got := string(keyOf(text)); got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
	if got := string(valueOf("9:98")); got != "bcdefghbc" {
		t.Errorf("an even fill gives %q", got)
	}
	if a, b := digestOf("100:3"), digestOf("100:5"); a == b || a != digest(valueOf("100:3")) {
		t.Errorf("digests %s, %s", a, b)
	}
	if n := len(keyOf(`"x"*65536`)); n != lsm.MaxKeyBytes {
		t.Errorf("%d bytes", n)
	}
}

// The list of the package comment has every verb and fails nowhere.
func TestListOfDoc(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "fails nowhere:\n//\n")
	list, _, _ = strings.Cut(list, "//\n")
	ops, err := parseOps(strings.ReplaceAll(list, "//\t", ""))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, o := range ops {
		seen[o[0]] = true
	}
	for verb := range words {
		if !seen[verb] {
			t.Errorf("no %s", verb)
		}
	}
	for _, result := range runModel(ops).history {
		if result == skipped {
			t.Error("the list speaks of something that is not open")
		}
	}
	if m := runPlans(ops, corners(), "the list of doc.go", new(figures)); m != nil {
		t.Error(m)
	}
}
