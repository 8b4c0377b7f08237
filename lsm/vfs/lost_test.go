package vfs

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// losing returns a Fault over m whose next sync fails as lose says, once it is armed.
func losing(m *Mem, lose func(error) error, armed *bool) *Fault {
	return NewFault(m, func(o Op) error {
		if *armed && (o.Kind == OpSync || o.Kind == OpSyncDir) {
			*armed = false
			return lose(errInjected)
		}
		return nil
	})
}

// A failed sync that loses its pages: the next one succeeds and does not cover them.
func TestLostSync(t *testing.T) {
	for _, evict := range []bool{false, true} {
		t.Run(fmt.Sprintf("evict=%v", evict), func(t *testing.T) {
			lose := LostSync
			if evict {
				lose = EvictedSync
			}
			m, armed := NewMem(), false
			f := losing(m, lose, &armed)
			h, err := f.Create("f")
			must(t, err)
			write := func(text string, off int64) {
				_, err := h.WriteAt([]byte(text), off)
				must(t, err)
			}
			write("old", 0)
			must(t, h.Sync())
			must(t, f.SyncDir("."))
			write("new", 0)
			write("far", pageBytes) // grows the file
			armed = true
			if err := h.Sync(); err != errInjected {
				t.Fatalf("Sync: %v", err)
			}
			must(t, h.Sync())
			near, far := "new", "far"
			if evict {
				near, far = "old", "\x00\x00\x00"
			}
			live := content(t, m, "f")
			if len(live) != pageBytes+3 || live[:3] != near || live[pageBytes:] != far {
				t.Errorf("live: %d bytes, %.3q and %q", len(live), live, live[pageBytes:])
			}
			if got := content(t, m.Crash(nil, KeepNone), "f"); got != "old" {
				t.Errorf("after a crash: %.10q, want what the first sync covered", got)
			}
			if got := content(t, m.Crash(nil, KeepAll), "f"); got != live {
				t.Errorf("after the death of the process: %.10q of %d bytes", got, len(got))
			}
			write("x", 1) // dirties the first page again, and the size
			must(t, h.Sync())
			want := near[:1] + "x" + near[2:]
			if got := content(t, m.Crash(nil, KeepNone), "f"); len(got) != pageBytes+3 ||
				got[:3] != want || got[pageBytes:] != "\x00\x00\x00" {
				t.Errorf("written again: %d bytes, %.3q, want %q", len(got), got, want)
			}
			must(t, h.Close())
		})
	}
}

// What was cut off is not back within the file, whatever the sync lost.
func TestLostSyncOfTruncate(t *testing.T) {
	for _, lose := range []func(error) error{LostSync, EvictedSync} {
		m, armed := NewMem(), false
		f := losing(m, lose, &armed)
		h, err := f.Create("f")
		must(t, err)
		_, err = h.WriteAt(make([]byte, 2*pageBytes), 0)
		must(t, err)
		_, err = h.WriteAt([]byte("0123456789"), pageBytes)
		must(t, err)
		must(t, h.Sync())
		must(t, f.SyncDir("."))
		must(t, h.Truncate(pageBytes+4))
		armed = true
		if err := h.Sync(); err != errInjected {
			t.Fatal(err)
		}
		must(t, h.Sync())
		if got := content(t, m, "f"); len(got) != pageBytes+4 || got[pageBytes:] != "0123" {
			t.Errorf("live: %d bytes, %q", len(got), got[pageBytes:])
		}
		if got := content(t, m.Crash(nil, KeepNone), "f"); len(got) != 2*pageBytes ||
			got[pageBytes:pageBytes+10] != "0123456789" {
			t.Errorf("after a crash: %d bytes", len(got))
		}
		must(t, h.Truncate(pageBytes+8)) // grows again: with zeros
		if got := content(t, m, "f"); got[pageBytes:] != "0123\x00\x00\x00\x00" {
			t.Errorf("grown again: %q", got[pageBytes:])
		}
		must(t, h.Close())
	}
}

// A failed sync of a directory that loses the names: a later one does not cover them, a name that
// is made again it does.
func TestLostSyncDir(t *testing.T) {
	for _, evict := range []bool{false, true} {
		t.Run(fmt.Sprintf("evict=%v", evict), func(t *testing.T) {
			lose := LostSync
			if evict {
				lose = EvictedSync
			}
			m, armed := NewMem(), false
			f := losing(m, lose, &armed)
			must(t, m.WriteFile("kept", []byte("kept")))
			must(t, m.WriteFile("current", []byte("one")))
			must(t, m.WriteFile("next", []byte("two")))
			must(t, f.SyncDir("."))
			h, err := f.Create("made")
			must(t, err)
			must(t, h.Close())
			must(t, f.Rename("next", "current"))
			must(t, f.Remove("kept"))
			used := m.UsedBytes()
			armed = true
			if err := f.SyncDir("."); err != errInjected {
				t.Fatalf("SyncDir: %v", err)
			}
			must(t, f.SyncDir("."))
			before, after := "[current kept next]", "[current made]"
			if !evict {
				list(t, m, after)
			} else {
				list(t, m, before)
				if back := m.UsedBytes() - used; back != int64(len("kept")+len("one")) {
					t.Errorf("%d bytes are back", back)
				}
			}
			none := m.Crash(nil, KeepNone)
			list(t, none, before)
			if got := content(t, none, "current"); got != "one" {
				t.Errorf("current holds %q after a crash", got)
			}
			live, _ := m.List(".")
			list(t, m.Crash(nil, KeepAll), fmt.Sprint(live))
			for seed := range uint64(50) {
				m.Crash(rand.New(rand.NewPCG(seed, 0)), Random) // anything goes, but no panic
			}
			// Made again, the names are durable, and what was lost does not come back over them.
			must(t, m.WriteFile("temp", []byte("three")))
			must(t, f.Rename("temp", "current"))
			if !evict {
				must(t, f.Remove("made"))
				h, err = f.Create("made")
				must(t, err)
				must(t, h.Close())
			}
			must(t, f.SyncDir("."))
			for _, mode := range []CrashMode{KeepNone, KeepAll, Random} {
				disk := m.Crash(rand.New(rand.NewPCG(1, 1)), mode)
				if got := content(t, disk, "current"); got != "three" {
					t.Errorf("%v: current holds %q", mode, got)
				}
				if _, err := disk.Size("made"); err != nil && !evict {
					t.Errorf("%v: %v", mode, err)
				}
			}
		})
	}
}

func list(t *testing.T, m *Mem, want string) {
	t.Helper()
	names, err := m.List(".")
	if got := fmt.Sprint(names); err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

// Asked of another operation, or of a file system that is no Mem, it is a plain error.
func TestLostSyncOfAnythingElse(t *testing.T) {
	m := NewMem()
	f := NewFault(NewFault(m, nil), func(o Op) error {
		if o.Kind != OpCreate && o.Kind != OpClose {
			return LostSync(errInjected)
		}
		return nil
	})
	h, err := f.Create("f")
	must(t, err)
	if _, err := h.WriteAt([]byte("x"), 0); err != errInjected {
		t.Errorf("WriteAt: %v", err)
	}
	if err := h.Sync(); err != errInjected {
		t.Errorf("Sync: %v", err)
	}
	if err := f.SyncDir("."); err != errInjected {
		t.Errorf("SyncDir: %v", err)
	}
	must(t, m.SyncDir("."))
	list(t, m.Crash(nil, KeepNone), "[f]")
	must(t, h.Close())
}
