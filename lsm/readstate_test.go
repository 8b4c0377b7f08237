package lsm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// TestLastIteratorFreesItsTables: tables that are compacted away stay for as long as any iterator
// may read them, on whatever goroutine it was made or is closed, and are gone after that.
func TestLastIteratorFreesItsTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		db := mustOpen(t, "data", tinyOptions(mem))
		defer mustClose(t, db)
		tables := func() []string {
			names, err := mem.List("data")
			if err != nil {
				t.Fatal(err)
			}
			return slices.DeleteFunc(names, func(s string) bool {
				return !strings.HasSuffix(s, tableSuffix)
			})
		}
		for i := range 100 {
			if err := db.Put(fmt.Appendf(nil, "k%02d", i), make([]byte, 100), NoSync); err != nil {
				t.Fatal(err)
			}
		}
		rewrite := func() {
			if err := db.Put([]byte("k50"), make([]byte, 100), NoSync); err != nil {
				t.Fatal(err)
			}
			if err := db.Compact(context.Background(), nil, nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		rewrite()
		before := tables()
		iters := make(chan *Iter, 8)
		for range cap(iters) {
			go func() { iters <- db.NewIter(IterOptions{}) }()
		}
		synctest.Wait()
		rewrite()
		for range cap(iters) {
			for _, name := range before {
				if !slices.Contains(tables(), name) {
					t.Fatalf("%s is gone, and %d iterators are open", name, len(iters))
				}
			}
			go func() {
				if err := (<-iters).Close(); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		time.Sleep(time.Second) // the cleaner may sleep until a reader has left
		synctest.Wait()
		var live []string
		for _, level := range db.state.Load().version.tables {
			for _, table := range level {
				live = append(live, filepath.Base(table.name))
			}
		}
		slices.Sort(live)
		if now := tables(); !slices.Equal(now, live) || slices.Equal(now, before) {
			t.Errorf("no iterator is open, and there are %v, of which are needed %v; before %v",
				now, live, before)
		}
	})
}

// An iterator that was closed while Close waited for readers gave the last state to Close as one to
// free: its tables were removed as obsolete, and the database did not open again.
func TestIteratorClosedAmidCloseRemovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		db := mustOpen(t, "data", tinyOptions(mem))
		if err := errors.Join(db.Put([]byte("k"), []byte("v"), Sync), db.Flush()); err != nil {
			t.Fatal(err)
		}
		it := db.NewIter(IterOptions{})
		reader := db.readers.Enter() // Close waits for it
		closed := make(chan error, 1)
		go func() { closed <- db.Close() }()
		time.Sleep(time.Second)
		if err := it.Close(); err != nil {
			t.Error(err)
		}
		reader.Exit()
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		db = mustOpen(t, "data", tinyOptions(mem))
		if v, err := db.Get([]byte("k")); err != nil || string(v) != "v" {
			t.Errorf("%q, %v", v, err)
		}
		mustClose(t, db)
	})
}
