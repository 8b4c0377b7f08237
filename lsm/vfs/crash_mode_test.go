package vfs

import (
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// unsynced is a disk with a file that was overwritten and grown, then one that was created, then
// one that was replaced by it, nothing of all this synced.
func unsynced(t *testing.T) *Mem {
	m := NewMem()
	must(t, m.WriteFile("log", []byte("old")))
	must(t, m.WriteFile("head", []byte("1")))
	f, err := m.OpenReadWrite("log")
	must(t, err)
	write(t, f, 0, "newer")
	g := create(t, m, "temp")
	write(t, g, 0, "2")
	must(t, m.Rename("temp", "head"))
	return m
}

// TestCrashModes shows what each mode leaves of the same disk.
func TestCrashModes(t *testing.T) {
	const (
		nothing = `/head "1" /log "old"`
		all     = `/head "2" /log "newer"`
	)
	want := map[CrashMode][]string{
		KeepAll:      {all},
		KeepNone:     {nothing},
		LoseRemovals: {`/head "2" /log "newer" /temp "2"`},
		LoseNames:    {`/head "1" /log "newer"`},
		LoseFiles:    {`/head "" /log "old"`},
		LoseContent:  {`/head "\x00" /log "old\x00\x00"`},
		LoseSizes:    {`/head "" /log "new"`},
		LoseNewest:   {`/head "" /log "newer"`},
		// The write of the log, the creation, the write of the file, the renaming.
		LoseLate: {nothing, `/head "1" /log "newer"`, `/head "1" /log "newer" /temp ""`,
			`/head "1" /log "newer" /temp "2"`},
		LoseEarly: {all, `/head "2" /log "old"`, `/head "" /log "old"`},
		LoseOne: {`/head "2" /log "old"`, all, `/head "" /log "newer"`,
			`/head "1" /log "newer" /temp "2"`},
		KeepOne: {`/head "1" /log "newer"`, `/head "1" /log "old" /temp ""`, nothing,
			`/head "" /log "old"`},
	}
	m := unsynced(t)
	for mode, want := range want {
		got := map[string]bool{}
		for seed := range uint64(100) {
			var left []string
			after := m.Crash(seeded(seed), mode)
			names, err := after.List("/")
			must(t, err)
			for _, name := range names {
				left = append(left, fmt.Sprintf("/%s %q", name, content(t, after, name)))
			}
			got[strings.Join(left, " ")] = true
		}
		slices.Sort(want)
		if all := slices.Sorted(maps.Keys(got)); !slices.Equal(all, want) {
			t.Errorf("%v left\n%s\nwant\n%s", mode, strings.Join(all, "\n"),
				strings.Join(want, "\n"))
		}
	}
}

// TestVersionMovesWithTheDisk does what changes a disk, and what does not.
func TestVersionMovesWithTheDisk(t *testing.T) {
	m := unsynced(t)
	f, err := m.OpenReadWrite("log")
	must(t, err)
	steps := []struct {
		name    string
		changes bool
		do      func() error
	}{
		{"write", true, func() error { _, err := f.WriteAt([]byte("x"), 9); return err }},
		{"write nothing", false, func() error { _, err := f.WriteAt(nil, 9); return err }},
		{"read", false, func() error { _, err := f.ReadAt(make([]byte, 2), 0); return err }},
		{"list", false, func() error { _, err := m.List("/"); return err }},
		{"sync", true, f.Sync},
		{"sync again", false, f.Sync},
		{"truncate", true, func() error { return f.Truncate(1) }},
		{"sync directory", true, func() error { return m.SyncDir("/") }},
		{"sync directory again", false, func() error { return m.SyncDir("/") }},
		{"link", true, func() error { return m.Link("log", "other") }},
		{"rename", true, func() error { return m.Rename("log", "moved") }},
		{"remove", true, func() error { return m.Remove("moved") }},
		{"make a directory", true, func() error { return m.MkdirAll("d") }},
		{"make it again", false, func() error { return m.MkdirAll("d") }},
		{"create", true, func() error { f, err = m.Create("d/f"); return err }},
		{"close", false, func() error { return f.Close() }},
		{"flip", true, func() error { return m.FlipByte("other", 0, 1) }},
	}
	for _, step := range steps {
		was := m.Version()
		must(t, step.do())
		if changed := m.Version() != was; changed != step.changes {
			t.Errorf("%s: the version moved: %v", step.name, changed)
		}
	}
}

// TestHashTellsDisksApart compares the hashes of disks that differ in one thing.
func TestHashTellsDisksApart(t *testing.T) {
	seed := maphash.MakeSeed()
	base := func() *Mem {
		m := NewMem()
		must(t, m.MkdirAll("d"))
		must(t, m.WriteFile("f", make([]byte, 10000)))
		return m
	}
	want := base().Hash(seed)
	if got := base().Crash(nil, KeepAll).Hash(seed); got != want {
		t.Error("two disks that are the same have two hashes")
	}
	for name, change := range map[string]func(m *Mem) error{
		"a byte":      func(m *Mem) error { return m.FlipByte("f", 9999, 1) },
		"a size":      func(m *Mem) error { return m.WriteFile("f", make([]byte, 10001)) },
		"a name":      func(m *Mem) error { return m.Rename("f", "g") },
		"another":     func(m *Mem) error { return m.WriteFile("d/f", nil) },
		"a link":      func(m *Mem) error { return m.Link("f", "g") },
		"a copy":      func(m *Mem) error { return m.WriteFile("g", make([]byte, 10000)) },
		"a directory": func(m *Mem) error { return m.MkdirAll("d/e") },
	} {
		m := base()
		must(t, change(m))
		if m.Hash(seed) == want {
			t.Errorf("%s more or less does not change the hash", name)
		}
	}
}

// A crash used to look at one file after the other: one that was synced meanwhile could be lost
// while a file that was written and synced later was kept.
func TestCrashSeesOneMoment(t *testing.T) {
	m := NewMem()
	a, b := create(t, m, "a"), create(t, m, "b")
	must(t, m.SyncDir("/"))
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		for i := byte(1); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for _, f := range []File{b, a} { // the order in which a crash does not look at them
				_, _ = f.WriteAt([]byte{i}, 0)
				_ = f.Sync()
			}
		}
	})
	for range 2000 {
		after := m.Crash(nil, KeepNone)
		first, second := content(t, after, "b"), content(t, after, "a")
		if first != second && first != "" && second != "" && first[0] != second[0]+1 {
			t.Errorf("b has %d, a, which follows it, has %d", first[0], second[0])
		}
		if first == "" && second != "" {
			t.Error("b is not there, but a, which follows it, is")
		}
	}
	close(stop)
	writer.Wait()
}
