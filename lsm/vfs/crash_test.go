package vfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 99)) }

// dump prints everything on a disk, for comparing two of them.
func dump(t testing.TB, m *Mem) string {
	t.Helper()
	var s strings.Builder
	var walk func(dir string)
	walk = func(dir string) {
		names, err := m.List(dir + "/")
		must(t, err)
		for _, name := range names {
			full := dir + "/" + name
			if data, err := m.ReadFile(full); err == nil {
				fmt.Fprintf(&s, "%s %d %q\n", full, len(data), data)
			} else {
				fmt.Fprintf(&s, "%s/\n", full)
				walk(full)
			}
		}
	}
	walk("")
	return s.String()
}

// durabilityCases are short histories of a disk.
var durabilityCases = []struct {
	name string
	do   func(t *testing.T, m *Mem)
	want string // the names and contents a loss of power leaves
}{
	{"nothing synced", func(t *testing.T, m *Mem) {
		write(t, create(t, m, "f"), 0, "x")
	}, ""},
	{"file synced, name not", func(t *testing.T, m *Mem) {
		f := create(t, m, "f")
		write(t, f, 0, "x")
		must(t, f.Sync())
	}, ""},
	{"name synced, file not", func(t *testing.T, m *Mem) {
		write(t, create(t, m, "f"), 0, "x")
		must(t, m.SyncDir("."))
	}, `/f 0 ""`},
	{"both synced", func(t *testing.T, m *Mem) {
		f := create(t, m, "f")
		write(t, f, 0, "x")
		must(t, f.Sync())
		must(t, m.SyncDir("/"))
		write(t, f, 0, "unsynced")
	}, `/f 1 "x"`},
	{"directory not synced in its parent", func(t *testing.T, m *Mem) {
		must(t, m.MkdirAll("a/b"))
		must(t, m.WriteFile("a/b/f", nil))
		must(t, m.SyncDir("a"))
		must(t, m.SyncDir("a/b"))
	}, ""},
	{"directory synced in its parent", func(t *testing.T, m *Mem) {
		must(t, m.MkdirAll("a/b"))
		must(t, m.SyncDir("."))
		must(t, m.SyncDir("a"))
	}, "/a/\n/a/b/"},
	{"removal not synced", func(t *testing.T, m *Mem) {
		must(t, m.WriteFile("f", []byte("x")))
		must(t, m.Remove("f"))
	}, `/f 1 "x"`},
	{"removal synced", func(t *testing.T, m *Mem) {
		must(t, m.WriteFile("f", []byte("x")))
		must(t, m.Remove("f"))
		must(t, m.SyncDir("."))
	}, ""},
	{"rename not synced", func(t *testing.T, m *Mem) {
		must(t, m.WriteFile("new", []byte("2")))
		must(t, m.WriteFile("f", []byte("1")))
		must(t, m.Rename("new", "f"))
	}, "/f 1 \"1\"\n/new 1 \"2\""},
	{"rename synced", func(t *testing.T, m *Mem) {
		must(t, m.WriteFile("new", []byte("2")))
		must(t, m.WriteFile("f", []byte("1")))
		must(t, m.Rename("new", "f"))
		must(t, m.SyncDir("."))
	}, `/f 1 "2"`},
	{"rename across, only the old directory synced", func(t *testing.T, m *Mem) {
		must(t, m.MkdirAll("d"))
		must(t, m.SyncDir("."))
		must(t, m.WriteFile("f", []byte("1")))
		must(t, m.WriteFile("d/f", []byte("0")))
		must(t, m.Remove("d/f"))
		must(t, m.Rename("f", "d/f"))
		must(t, m.SyncDir("."))
	}, "/d/\n/d/f 1 \"1\""},
	{"rename across, only the new directory synced", func(t *testing.T, m *Mem) {
		must(t, m.MkdirAll("d"))
		must(t, m.SyncDir("."))
		must(t, m.WriteFile("f", []byte("1")))
		must(t, m.Rename("f", "d/f"))
		must(t, m.SyncDir("d"))
	}, "/d/\n/d/f 1 \"1\"\n/f 1 \"1\""},
	{"directory renamed across, only the new directory synced", func(t *testing.T, m *Mem) {
		must(t, m.MkdirAll("a/x"))
		must(t, m.MkdirAll("z"))
		must(t, m.SyncDir("."))
		must(t, m.SyncDir("a"))
		must(t, m.Rename("a/x", "z/x"))
		must(t, m.SyncDir("z"))
	}, "/a/\n/z/\n/z/x/"},
	{"rename across, namesake in a third directory", func(t *testing.T, m *Mem) {
		must(t, m.MkdirAll("d"))
		must(t, m.MkdirAll("e"))
		must(t, m.WriteFile("f", []byte("1")))
		create(t, m, "e/f")
		must(t, m.Rename("f", "d/f"))
		must(t, m.SyncDir("."))
		must(t, m.SyncDir("e"))
	}, "/d/\n/d/f 1 \"1\"\n/e/\n/e/f 0 \"\""},
	{"link synced", func(t *testing.T, m *Mem) {
		must(t, m.WriteFile("f", []byte("1")))
		must(t, m.Link("f", "g"))
		must(t, m.SyncDir("."))
		must(t, m.Remove("f"))
		must(t, m.SyncDir("."))
	}, `/g 1 "1"`},
	{"truncation by Create not synced", func(t *testing.T, m *Mem) {
		must(t, m.WriteFile("f", []byte("old")))
		write(t, create(t, m, "f"), 0, "newer")
	}, `/f 3 "old"`},
}

func TestWhatIsDurable(t *testing.T) {
	for _, c := range durabilityCases {
		t.Run(c.name, func(t *testing.T) {
			m := NewMem()
			c.do(t, m)
			live := dump(t, m)
			if got := strings.TrimSuffix(dump(t, m.Crash(nil, KeepNone)), "\n"); got != c.want {
				t.Errorf("left:\n%s\nwant:\n%s", got, c.want)
			}
			if got := dump(t, m.Crash(nil, KeepAll)); got != live {
				t.Errorf("KeepAll left:\n%s\nof:\n%s", got, live)
			}
			if got := dump(t, m); got != live {
				t.Errorf("the crash changed the disk to:\n%s\nfrom:\n%s", got, live)
			}
		})
	}
}

func TestCrashedDiskIsIndependentAndDurable(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f")
	write(t, f, 0, strings.Repeat("a", 5000))
	must(t, m.Link("f", "g"))
	after := m.Crash(nil, KeepAll)
	write(t, f, 0, "old disk")
	g, err := after.OpenReadWrite("g")
	must(t, err)
	defer g.Close()
	write(t, g, 0, "new disk")
	if got := content(t, m, "f")[:9]; got != "old diska" {
		t.Errorf("the old disk reads %q", got)
	}
	if got := content(t, after, "f")[:9]; got != "new diska" {
		t.Errorf("the link was not kept: %q", got)
	}
	again := after.Crash(nil, KeepNone)
	if got := content(t, again, "f"); got != strings.Repeat("a", 5000) {
		t.Errorf("what a crash left is not durable: %.20q", got)
	}
}

// TestRenameIsAtomic replaces a file as the package comment says and looks at many crashes.
func TestRenameIsAtomic(t *testing.T) {
	m := NewMem()
	must(t, m.WriteFile("f", []byte("old")))
	f := create(t, m, "tmp")
	write(t, f, 0, "new")
	must(t, f.Sync())
	must(t, m.Rename("tmp", "f"))
	seen := map[string]int{}
	for seed := range uint64(300) {
		after := m.Crash(seeded(seed), CrashModes[2+seed%3])
		s := content(t, after, "f")
		if data, err := after.ReadFile("tmp"); err == nil {
			s += " tmp=" + string(data)
		}
		seen[s]++
	}
	// tmp as a name never was durable, the creation may be lost by itself.
	for _, want := range []string{"old", "old tmp=new", "new", "new tmp=new"} {
		if seen[want] < 5 {
			t.Errorf("%q seen %d times", want, seen[want])
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("also seen: %v", seen)
	}
	must(t, m.SyncDir("."))
	for seed := range uint64(50) {
		if got := dump(t, m.Crash(seeded(seed), Random)); got != "/f 3 \"new\"\n" {
			t.Fatalf("after SyncDir: %s", got)
		}
	}
}

// TestSectorsAreIndependent counts what becomes of four sectors written over four others.
func TestSectorsAreIndependent(t *testing.T) {
	m := NewMem()
	must(t, m.WriteFile("f", bytes.Repeat([]byte("a"), 4*sectorBytes)))
	f, err := m.OpenReadWrite("f")
	must(t, err)
	defer f.Close()
	write(t, f, 0, strings.Repeat("b", 4*sectorBytes))
	kinds := func(mode CrashMode) map[string]int {
		seen := map[string]int{}
		for seed := range uint64(1000) {
			s := content(t, m.Crash(seeded(seed), mode), "f")
			var shape []byte
			for ; len(s) > 0; s = s[sectorBytes:] {
				sector := s[:sectorBytes]
				switch rest := strings.TrimLeft(sector, "b"); {
				case rest == "":
					shape = append(shape, 'b')
				case strings.Trim(rest, "a") != "":
					shape = append(shape, 'g')
				case len(rest) < sectorBytes:
					shape = append(shape, 't')
				default:
					shape = append(shape, 'a')
				}
			}
			seen[string(shape)]++
		}
		return seen
	}
	random := kinds(Random)
	if len(random) != 16 {
		t.Errorf("Random left %d of the 16 combinations: %v", len(random), random)
	}
	for shape, n := range kinds(Torn) {
		torn, other := strings.Count(shape, "t"), strings.Count(shape, "g")
		if torn != 1 && shape != "aaaa" || other > 0 {
			t.Errorf("Torn left %q %d times", shape, n)
		}
	}
	if seen := kinds(Garbage); len(seen) != 81 {
		t.Errorf("Garbage left %v", seen)
	}
}

// TestNeighboursOfUnsyncedBytesAreSafe appends to a synced part within one sector.
func TestNeighboursOfUnsyncedBytesAreSafe(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f")
	write(t, f, 0, "synced")
	must(t, f.Sync())
	must(t, m.SyncDir("."))
	write(t, f, 6, "unsynced")
	for seed := range uint64(300) {
		for _, mode := range CrashModes {
			got := content(t, m.Crash(seeded(seed), mode), "f")
			if !strings.HasPrefix(got, "synced") || len(got) > 14 {
				t.Fatalf("seed %d, %v: %q", seed, mode, got)
			}
		}
	}
}

func TestCrashIsDeterministic(t *testing.T) {
	build := func() *Mem {
		m := NewMem()
		for i := range 30 {
			f := create(t, m, fmt.Sprint("f", i))
			write(t, f, 0, strings.Repeat(fmt.Sprint(i), 1500))
			if i%3 == 0 {
				must(t, m.Rename(fmt.Sprint("f", i), fmt.Sprint("g", i)))
			}
		}
		return m
	}
	one, two := build(), build()
	for _, mode := range CrashModes {
		a, b := dump(t, one.Crash(seeded(7), mode)), dump(t, two.Crash(seeded(7), mode))
		if a != b {
			t.Errorf("%v: two outcomes of one seed", mode)
		}
		if c := dump(t, one.Crash(seeded(8), mode)); mode.Draws() && a == c {
			t.Errorf("%v: one outcome of two seeds", mode)
		}
	}
}

// TestRenamedDirectoriesStayATree moves directories around without a sync: whatever subset of it
// survives, a directory is in one place at most and nothing runs in circles.
func TestRenamedDirectoriesStayATree(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("a/x"))
	must(t, m.MkdirAll("b"))
	must(t, m.WriteFile("a/x/f", []byte("1")))
	for _, dir := range []string{".", "a", "b"} {
		must(t, m.SyncDir(dir))
	}
	must(t, m.Rename("a/x", "b/x"))
	must(t, m.Rename("b", "b.moved"))
	must(t, m.Rename("b.moved/x", "a/y"))
	must(t, m.Rename("b.moved", "a/y/b"))
	for seed := range uint64(500) {
		left := dump(t, m.Crash(seeded(seed), Random))
		files := strings.Count(left, `/f 1 "1"`)
		folders := strings.Count(left, "/x/\n") + strings.Count(left, "/y/\n")
		if files > 1 || folders > 1 {
			t.Fatalf("seed %d: a directory is in two places:\n%s", seed, left)
		}
	}
}

// TestGrowthMaySurviveInPart looks at the sizes a crash leaves of an unsynced growth and cut.
func TestGrowthMaySurviveInPart(t *testing.T) {
	m := NewMem()
	must(t, m.WriteFile("grown", make([]byte, 1000)))
	must(t, m.WriteFile("cut", bytes.Repeat([]byte("c"), 3000)))
	g, err := m.OpenReadWrite("grown")
	must(t, err)
	defer g.Close()
	write(t, g, 1000, strings.Repeat("g", 2000))
	c, err := m.OpenReadWrite("cut")
	must(t, err)
	defer c.Close()
	must(t, c.Truncate(1000))
	sizes := map[string][]int{}
	for seed := range uint64(300) {
		after := m.Crash(seeded(seed), Random)
		for _, name := range []string{"grown", "cut"} {
			s := content(t, after, name)
			sizes[name] = append(sizes[name], len(s))
			if name == "cut" && len(s) == 3000 && s[1024:] != strings.Repeat("c", 1976) {
				t.Fatalf("seed %d: a cut that did not happen left holes", seed)
			}
		}
	}
	for name := range sizes {
		slices.Sort(sizes[name])
		sizes[name] = slices.Compact(sizes[name])
	}
	if s := sizes["grown"]; s[0] != 1000 || s[len(s)-1] != 3000 || len(s) < 20 {
		t.Errorf("sizes of the grown file: %v", s)
	}
	if s := sizes["cut"]; !slices.Equal(s, []int{1000, 3000}) {
		t.Errorf("sizes of the cut file: %v", s)
	}
}
