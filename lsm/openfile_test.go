package lsm

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"kvd/lsm/vfs"
)

// strictFS refuses what some systems refuse: to remove a file that is open, or to replace one by a
// rename.
type strictFS struct {
	vfs.FS
	t *testing.T

	mu   sync.Mutex
	open map[string]int // handles by name
	all  map[*strictFile]bool
}

type strictFile struct {
	vfs.File
	fs   *strictFS
	name string // follows renames; guarded by fs.mu
}

func (s *strictFS) opened(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	file := &strictFile{f, s, name}
	s.open[name]++
	s.all[file] = true
	return file, nil
}

func (f *strictFile) Close() error {
	f.fs.mu.Lock()
	if f.fs.all[f] { // a second Close does nothing
		f.fs.open[f.name]--
		delete(f.fs.all, f)
	}
	f.fs.mu.Unlock()
	return f.File.Close()
}

func (s *strictFS) Create(name string) (vfs.File, error) {
	s.free("create", name)
	f, err := s.FS.Create(name)
	return s.opened(name, f, err)
}

func (s *strictFS) Open(name string) (vfs.File, error) {
	f, err := s.FS.Open(name)
	return s.opened(name, f, err)
}

func (s *strictFS) OpenReadWrite(name string) (vfs.File, error) {
	s.free("open for writing", name)
	f, err := s.FS.OpenReadWrite(name)
	return s.opened(name, f, err)
}

func (s *strictFS) Remove(name string) error {
	s.free("remove", name)
	return s.FS.Remove(name)
}

// Rename lets an open file get its name, as log segments do, but not take that of another.
func (s *strictFS) Rename(from, to string) error {
	s.free("replace", to)
	if err := s.FS.Rename(from, to); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.all {
		if f.name == from {
			f.name = to
			s.open[from]--
			s.open[to]++
		}
	}
	return nil
}

func (s *strictFS) free(what, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.open[name]; n != 0 {
		s.t.Errorf("%s %s, which is open %d times", what, name, n)
	}
}

// TestNoFileIsRemovedWhileOpen: each file is closed before it is removed, replaced or reused, also
// when operations fail and while readers hold tables that are no longer in the tree.
func TestNoFileIsRemovedWhileOpen(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 9))
		var mu sync.Mutex
		fail := false
		faulty := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if fail && o.Kind != vfs.OpRemove && o.Kind.Writes() && r.IntN(40) == 0 {
				return syscall.ENOSPC
			}
			return nil
		})
		strict := &strictFS{FS: faulty, t: t, open: map[string]int{},
			all: map[*strictFile]bool{}}
		failing := func(on bool) { mu.Lock(); fail = on; mu.Unlock() }
		for range 3 {
			failing(false)
			db, err := Open("data", tinyOptions(strict))
			if err != nil {
				t.Fatal(err)
			}
			failing(seed%2 == 1)
			var its []*Iter
			for i := range 300 {
				d := Durability(i % 3)
				if seed%4 >= 2 { // no sync of a writer closes the segments before
					d = NoSync
				}
				_ = db.Put(fmt.Appendf(nil, "%03d", i*7%200), make([]byte, 60), d)
				if i%40 == 0 {
					its = append(its, db.NewIter(IterOptions{}))
				}
				if i%100 == 99 {
					_ = db.Compact(t.Context(), nil, nil)
				}
			}
			for _, it := range its {
				if err := it.Close(); err != nil {
					t.Error(err)
				}
			}
			_ = db.Close() // reports what failed
		}
		for name, n := range strict.open {
			if n != 0 {
				t.Errorf("seed %d: %s is left open %d times", seed, name, n)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
