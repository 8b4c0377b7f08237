package lsm

import (
	"errors"
	"math"
	"sync/atomic"
	"testing"

	"kvd/lsm/vfs"
)

// TestTryApplyNeverWaits: whatever would make a commit wait makes TryApply refuse, and then nothing
// is changed.
func TestTryApplyNeverWaits(t *testing.T) {
	var stuck atomic.Bool
	release := make(chan struct{})
	fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
		if stuck.Load() && o.Kind == vfs.OpCreate {
			<-release
		}
		return nil
	})
	db := mustOpen(t, "data", Options{FS: fsys, MemtableBytes: 64 << 10})
	try := func(key string, want bool) {
		t.Helper()
		var b Batch
		b.Put([]byte(key), make([]byte, 1000))
		before := db.published.seq()
		done, err := db.TryApply(&b)
		if done != want || err != nil {
			t.Errorf("%s: done %v, %v", key, done, err)
		}
		if moved := db.published.seq() != before; moved != want {
			t.Errorf("%s: changed something: %v", key, moved)
		}
		if _, err := db.Get([]byte(key)); (err == nil) != want {
			t.Errorf("%s afterwards: %v", key, err)
		}
	}
	try("an idle database", true)

	db.pace.nanosPerByte.Store(math.Float64bits(1))
	try("commits are being slowed down", false)
	db.pace.nanosPerByte.Store(0)

	db.commit.Lock()
	try("another commit waits", false)
	db.commit.Unlock()

	stuck.Store(true)
	full := false
	for range 100 {
		var b Batch
		b.Put([]byte("fill"), make([]byte, 1000))
		done, err := db.TryApply(&b)
		if err != nil {
			t.Fatal(err)
		}
		if full = !done; full {
			break
		}
	}
	if !full {
		t.Error("100 KB fit into a memtable of 64")
	}
	try("the memtable is full", false)
	stuck.Store(false)
	close(release)

	if err := db.Put([]byte("waits"), nil, NoSync); err != nil {
		t.Error(err)
	}
	if err := db.Flush(); err != nil { // while a flush runs, commits may be slowed down
		t.Error(err)
	}
	try("there is a new memtable", true)
	var long Batch
	long.Put(make([]byte, MaxKeyBytes+1), nil)
	if done, err := db.TryApply(&long); !done || !isKeySize(err) {
		t.Errorf("a long key: %v, %v", done, err)
	}
	if done, err := db.TryApply(new(Batch)); !done || err != nil {
		t.Errorf("nothing: %v, %v", done, err)
	}
	mustClose(t, db)
	var b Batch
	b.Put([]byte("late"), nil)
	if done, err := db.TryApply(&b); !done || !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, %v", done, err)
	}
}

func isKeySize(err error) bool {
	_, ok := errors.AsType[*KeySizeError](err)
	return ok
}
