package vfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"testing"
)

// The model of a Mem: files as plain byte slices, directories as a history of edits.

type modelFile struct {
	live, durable []byte
	dirty         map[int]bool // sectors
}

type modelEdit struct {
	name    string     // with its directory
	to      *modelFile // nil: nothing
	from    string     // directory of the source, for the target of a rename
	durable bool
}

type model struct {
	history []*modelEdit
}

// lookup returns what a name leads to, taking only durable edits if asked so.
func (m *model) lookup(name string, durable bool) *modelFile {
	for _, e := range slices.Backward(m.history) {
		if e.name == name && (e.durable || !durable) {
			return e.to
		}
	}
	return nil
}

// candidates returns everything a name may lead to after a crash.
func (m *model) candidates(name string) []*modelFile {
	var all []*modelFile
	for _, e := range slices.Backward(m.history) {
		if e.name == name {
			all = append(all, e.to)
			if e.durable {
				return all
			}
		}
	}
	return append(all, nil)
}

func (m *model) syncDir(dir string) {
	for _, e := range m.history {
		if path.Dir(e.name) == dir || e.from == dir {
			e.durable = true
		}
	}
}

func (f *modelFile) mark(from, to int) {
	for s := from / sectorBytes; s*sectorBytes < to; s++ {
		f.dirty[s] = true
	}
}

func (f *modelFile) write(off int, p []byte) {
	f.live = append(f.live, make([]byte, max(0, off+len(p)-len(f.live)))...)
	copy(f.live[off:], p)
	f.mark(off, off+len(p))
}

func (f *modelFile) truncate(size int) {
	if size < len(f.live) {
		f.mark(size, len(f.live))
	}
	f.live = append(f.live[:min(size, len(f.live))], make([]byte, max(0, size-len(f.live)))...)
}

func (f *modelFile) sync() {
	f.durable = slices.Clone(f.live)
	clear(f.dirty)
}

// sector returns sector s of content as it reads in a file of a given size.
func sector(data []byte, s, size int) []byte {
	b := make([]byte, sectorBytes)
	if s*sectorBytes < len(data) {
		copy(b, data[s*sectorBytes:])
	}
	return b[:min(sectorBytes, size-s*sectorBytes)]
}

// admits says what is wrong with got as what a crash has left of f, if anything.
func (f *modelFile) admits(got []byte, mode CrashMode) error {
	low, high := min(len(f.durable), len(f.live)), max(len(f.durable), len(f.live))
	if len(got) < low || len(got) > high {
		return fmt.Errorf("size %d, not in [%d,%d]", len(got), low, high)
	}
	torn := 0
	for s := 0; s*sectorBytes < len(got); s++ {
		is := sector(got, s, len(got))
		was, live := sector(f.durable, s, len(got)), sector(f.live, s, len(got))
		switch {
		case slices.Equal(is, was):
			continue
		case !f.dirty[s]:
			return fmt.Errorf("synced sector %d changed", s)
		case slices.Equal(is, live):
			continue
		}
		from, to := changed(was, live)
		for i := range is {
			if (i < from || i >= to) && is[i] != was[i] && len(got) == high {
				return fmt.Errorf("byte %d of sector %d was not being written", i, s)
			}
		}
		i := 0
		for i < len(is) && is[i] == live[i] {
			i++
		}
		switch {
		case mode != Torn && mode != Garbage:
			return fmt.Errorf("sector %d is neither old nor new", s)
		case mode == Torn && !slices.Equal(is[i:], was[i:]):
			return fmt.Errorf("sector %d is not new and then old", s)
		}
		torn++
	}
	if mode == Torn && torn > 1 {
		return fmt.Errorf("%d torn sectors", torn)
	}
	return nil
}

var modelNames = []string{"/x", "/y", "/d/x", "/d/y", "/d/z"}

// step does one random operation on both.
func (m *model) step(t *testing.T, r *rand.Rand, mem *Mem, open map[*modelFile]File) {
	name, other := modelNames[r.IntN(len(modelNames))], modelNames[r.IntN(len(modelNames))]
	f := m.lookup(name, false)
	if f == nil {
		f = &modelFile{dirty: map[int]bool{}}
		h, err := mem.Create(name)
		must(t, err)
		open[f] = h
		m.history = append(m.history, &modelEdit{name: name, to: f})
		return
	}
	h := open[f]
	switch r.IntN(12) {
	case 0, 1, 2, 3:
		p := make([]byte, 1+r.IntN(1<<r.IntN(13)))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		off := r.IntN(len(f.live) + 700)
		f.write(off, p)
		_, err := h.WriteAt(p, int64(off))
		must(t, err)
	case 4, 5:
		f.sync()
		must(t, h.Sync())
	case 6:
		size := r.IntN(len(f.live) + 1000)
		f.truncate(size)
		must(t, h.Truncate(int64(size)))
	case 7:
		f.truncate(0)
		again, err := mem.Create(name)
		must(t, err)
		must(t, again.Close())
	case 8:
		m.history = append(m.history, &modelEdit{name: name})
		must(t, mem.Remove(name))
	case 9:
		must(t, mem.Rename(name, other))
		if g := m.lookup(other, false); g != f {
			m.history = append(m.history,
				&modelEdit{name: other, to: f, from: path.Dir(name)}, &modelEdit{name: name})
		}
	case 10:
		if m.lookup(other, false) == nil {
			must(t, mem.Link(name, other))
			m.history = append(m.history, &modelEdit{name: other, to: f})
		}
	case 11:
		m.syncDir(path.Dir(name))
		must(t, mem.SyncDir(path.Dir(name)))
	}
}

// check crashes the disk in a mode and compares what is left.
func (m *model) check(mem *Mem, r *rand.Rand, mode CrashMode) error {
	after := mem.Crash(r, mode)
	for _, name := range modelNames {
		got, err := after.ReadFile(name)
		exists := err == nil
		want := m.candidates(name)
		switch mode {
		case KeepAll:
			want = want[:1]
		case KeepNone:
			want = want[len(want)-1:]
		}
		err = fmt.Errorf("exists: %v", exists)
		for _, f := range want {
			switch {
			case f == nil || !exists:
				if f == nil && !exists {
					err = nil
				}
				continue
			case mode == KeepAll && slices.Equal(got, f.live):
				err = nil
			case mode == KeepNone && slices.Equal(got, f.durable):
				err = nil
			case mode >= Random:
				if e := f.admits(got, mode); e == nil || err != nil {
					err = e
				}
			}
			if err == nil {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("%v: %s: %w", mode, name, err)
		}
	}
	return nil
}

// TestModel runs random operations on a Mem and on the model, crashing the disk in every mode after
// each, and going on with what a crash has left now and then.
func TestModel(t *testing.T) {
	for seed := range uint64(12) {
		r := seeded(seed)
		mem, m, open := NewMem(), &model{}, map[*modelFile]File{}
		must(t, mem.MkdirAll("d"))
		must(t, mem.SyncDir("/"))
		for i := range 80 {
			m.step(t, r, mem, open)
			for _, mode := range CrashModes {
				if err := m.check(mem, r, mode); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, i, err)
				}
			}
			if r.IntN(20) == 0 {
				mem, m, open = m.restart(t, mem.Crash(r, CrashModes[r.IntN(len(CrashModes))]))
			}
		}
	}
}

// restart takes a crashed disk as the beginning of a new history.
func (m *model) restart(t *testing.T, mem *Mem) (*Mem, *model, map[*modelFile]File) {
	after, open := &model{}, map[*modelFile]File{}
	same := map[*inode]*modelFile{}
	for _, name := range modelNames {
		h, err := mem.OpenReadWrite(name)
		if err != nil {
			continue
		}
		n := h.(*memFile).n
		if same[n] == nil {
			data := []byte(content(t, mem, name))
			same[n] = &modelFile{live: data, durable: slices.Clone(data), dirty: map[int]bool{}}
		}
		open[same[n]] = h
		after.history = append(after.history, &modelEdit{name: name, to: same[n], durable: true})
	}
	if got := len(slices.Collect(maps.Keys(open))); int64(got) > int64(mem.OpenFiles()) {
		t.Fatalf("%d files open, counted %d", got, mem.OpenFiles())
	}
	return mem, after, open
}
