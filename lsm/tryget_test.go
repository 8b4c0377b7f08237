package lsm

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"kvd/lsm/vfs"
)

// TestTryGetReadsNoFile: what is in memory it finds, or knows to be nowhere, and of the rest it says
// that it has not looked.
func TestTryGetReadsNoFile(t *testing.T) {
	var reads atomic.Int64
	fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
		if o.Kind == vfs.OpReadAt {
			reads.Add(1)
		}
		return nil
	})
	db := mustOpen(t, "data", Options{FS: fsys})
	key := func(i int) []byte { return fmt.Appendf(nil, "key%05d", i) }
	for i := range 1000 {
		if err := db.Put(key(i), fmt.Append(nil, "value ", i), NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := db.Put([]byte("new"), []byte("value"), NoSync); err != nil {
		t.Fatal(err)
	}
	if err := db.Delete(key(7), NoSync); err != nil {
		t.Fatal(err)
	}
	try := func(key []byte, wantDone bool, want string, wantErr error) {
		t.Helper()
		before := reads.Load()
		got, done, err := db.TryGet([]byte("dst "), key)
		if done != wantDone || !errors.Is(err, wantErr) || string(got) != "dst "+want {
			t.Errorf("%s: %q, %v, %v", key, got, done, err)
		}
		if n := reads.Load() - before; n != 0 {
			t.Errorf("%s: %d reads", key, n)
		}
		if n := testing.AllocsPerRun(10, func() { _, _, _ = db.TryGet(got[:0], key) }); n != 0 {
			t.Errorf("%s: %v allocations", key, n)
		}
	}
	try([]byte("new"), true, "value", nil)
	try(key(7), true, "", ErrNotFound)
	try([]byte("key00007x"), true, "", ErrNotFound) // says the filter, with this key for certain
	try(key(500), false, "", nil)
	if _, err := db.Get(key(500)); err != nil {
		t.Fatal(err)
	}
	try(key(500), true, "value 500", nil)
	try(key(501), true, "value 501", nil) // in the same block
	try(key(0), false, "", nil)

	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, done, err := db.TryGet(nil, key(0)); !done || !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v, %v", done, err)
	}
}
