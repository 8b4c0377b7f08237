package lsm

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"kvd/lsm/vfs"
)

// allocFree demands that f allocates nothing once it has run a few times. An allocation of
// background work now and then is not f's.
func allocFree(t *testing.T, what string, f func()) {
	t.Helper()
	allocAtMost(t, 0, what, f)
}

func allocAtMost(t *testing.T, most float64, what string, f func()) {
	t.Helper()
	for range 100 {
		f()
	}
	best := testing.AllocsPerRun(200, f)
	for range 3 {
		if best > most {
			best = min(best, testing.AllocsPerRun(200, f))
		}
	}
	if best > most {
		t.Errorf("%s allocates %v times", what, best)
	}
}

func skipAllocsUnderRace(t *testing.T) {
	if defaultModelSeeds < 1000 {
		t.Skip("the race detector allocates")
	}
}

// quietFS writes and syncs nothing: what a file system allocates is its own business.
type quietFS struct{ *vfs.Mem }

type quietFile struct{ vfs.File }

func (f quietFS) Create(name string) (vfs.File, error) {
	file, err := f.Mem.Create(name)
	if err != nil || !strings.Contains(name, logSuffix) {
		return file, err
	}
	return quietFile{file}, nil
}

func (quietFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (quietFile) Sync() error                            { return nil }

func TestWritesAllocateNothing(t *testing.T) {
	skipAllocsUnderRace(t)
	db := mustOpen(t, "data", Options{FS: quietFS{vfs.NewMem()}})
	defer mustClose(t, db)
	key, value := make([]byte, 16), make([]byte, 100)
	n := uint64(0)
	var b Batch
	for d, name := range []string{"Sync", "Async", "NoSync"} {
		d := Durability(d)
		allocFree(t, "Put "+name, func() {
			n += 0x9e3779b97f4a7c15
			binary.BigEndian.PutUint64(key, n)
			if err := db.Put(key, value, d); err != nil {
				t.Fatal(err)
			}
		})
		allocFree(t, "Delete "+name, func() {
			if err := db.Delete(key, d); err != nil {
				t.Fatal(err)
			}
		})
		allocFree(t, "Apply "+name, func() {
			b.Reset()
			for range 10 {
				n += 0x9e3779b97f4a7c15
				binary.BigEndian.PutUint64(key, n)
				b.Put(key, value)
			}
			if err := db.Apply(&b, d); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestReadsAllocateNothing(t *testing.T) {
	skipAllocsUnderRace(t)
	db := mustOpen(t, "data", Options{FS: vfs.NewMem()})
	defer mustClose(t, db)
	const n = 2000
	key := func(i int) []byte { return fmt.Appendf(nil, "key%06d", i) }
	for level := range 3 {
		for i := level; i < n; i += level + 1 {
			if err := db.Put(key(i), []byte(fmt.Sprintf("value %d", i)), NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if level == 0 {
			if err := db.Compact(t.Context(), nil, nil); err != nil {
				t.Fatal(err)
			}
		} else if level == 1 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	inMemtable, inTop, inBottom := key(2), key(3), key(4)
	missing, beyond := []byte("key000003x"), []byte("zzz")
	dst := make([]byte, 0, 100)
	for name, k := range map[string][]byte{
		"in the memtable": inMemtable, "in level 0": inTop, "in the bottom": inBottom,
	} {
		allocFree(t, "GetTo "+name, func() {
			if _, err := db.GetTo(dst, k); err != nil {
				t.Fatal(err)
			}
		})
	}
	for name, k := range map[string][]byte{"missing": missing, "beyond": beyond, "empty": nil} {
		allocFree(t, "GetTo "+name, func() {
			if _, err := db.GetTo(dst, k); err != ErrNotFound {
				t.Fatal(err)
			}
		})
	}
	it := db.NewIter(IterOptions{})
	ok := false
	allocFree(t, "Next", func() {
		if ok = ok && it.Next(); !ok {
			ok = it.First()
		}
	})
	allocFree(t, "Prev", func() {
		if ok = ok && it.Prev(); !ok {
			ok = it.Last()
		}
	})
	i := 0
	allocFree(t, "SeekGE", func() {
		i = (i + 797) % n
		if !it.SeekGE(keyTo(dst, i)) {
			t.Fatal(i, it.Err())
		}
	})
	allocFree(t, "SeekLT", func() {
		i = (i + 797) % n
		if !it.SeekLT(keyTo(dst, i+1)) {
			t.Fatal(i, it.Err())
		}
	})
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	bounds := IterOptions{Lower: key(100), Upper: key(300)}
	allocAtMost(t, 1, "NewIter, ten steps, Close", func() {
		it := db.NewIter(bounds)
		ok := it.SeekGE(keyTo(dst, 150))
		for range 10 {
			ok = ok && it.Next()
		}
		if err := it.Close(); err != nil || !ok {
			t.Fatal(ok, err)
		}
	})
	s := db.NewSnapshot()
	allocAtMost(t, 1, "an iterator of a snapshot", func() {
		it := s.NewIter(bounds)
		if ok := it.Last() && it.Prev(); !ok {
			t.Fatal(it.Err())
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// keyTo is key without an allocation.
func keyTo(dst []byte, i int) []byte { return fmt.Appendf(dst[:0], "key%06d", i) }
