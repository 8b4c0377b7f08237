package lsm

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// checked is a database with tables on several levels, a full log and an iterator over the past.
func checked(t *testing.T, fsys vfs.FS) (*DB, *Iter) {
	t.Helper()
	db := mustOpen(t, "data", tinyOptions(fsys))
	it := db.NewIter(IterOptions{})
	for i := range 400 {
		key := fmt.Appendf(nil, "%03d", i*7%400)
		if err := db.Put(key, make([]byte, 100), NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Check(); err != nil {
		t.Fatal(err)
	}
	return db, it
}

// awaitRest returns when no compaction runs and the cleaner is done.
func awaitRest(db *DB) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for db.jobs > 0 || db.cleaning || len(db.dead) > 0 {
		db.work.Wait()
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	create := func(base string) func(*testing.T, *DB) {
		return func(t *testing.T, db *DB) {
			f, err := db.opts.FS.Create(filepath.Join(db.dir, base))
			if err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
		}
	}
	remove := func(name func(*DB) string) func(*testing.T, *DB) {
		return func(t *testing.T, db *DB) {
			if err := db.opts.FS.Remove(name(db)); err != nil {
				t.Fatal(err)
			}
		}
	}
	current := func(db *DB) *version { return db.state.Load().version }
	bottom := func(db *DB) *table { // of the levels that there are by now
		levels := &current(db).levels
		return current(db).tables[levels.Bottom()][0]
	}
	for _, c := range []struct {
		what, want string
		do         func(*testing.T, *DB)
	}{
		{"a stray table", "000001.sst is there, but", create("000001.sst")},
		{"a stray segment", "000001.wal is there, but", create("000001.wal")},
		{"a stray manifest", "MANIFEST-000777 is there, but", create("MANIFEST-000777")},
		{"a stray temporary file", "9.wal.tmp is there, but", create("9.wal.tmp")},
		{"a lost table", "but missing", remove(func(db *DB) string { return bottom(db).name })},
		{"a lost segment", ".wal is missing", remove(func(db *DB) string {
			return logName(db.dir, db.state.Load().mem.segment)
		})},
		{"a lost manifest", "manifest", remove(func(db *DB) string {
			return manifestName(db.dir, db.manifest.num)
		})},
		{"a table counted twice", "versions, but", func(_ *testing.T, db *DB) {
			bottom(db).refs.Add(1)
		}},
		{"a version counted twice", "read states, but", func(_ *testing.T, db *DB) {
			current(db).states.Add(1)
		}},
		{"a memtable counted twice", "reach it", func(_ *testing.T, db *DB) {
			db.state.Load().mem.refs.Add(1)
		}},
		{"segments not retired", "not retired", func(t *testing.T, db *DB) {
			for range 3 {
				s, err := db.segments.take()
				if err != nil {
					t.Fatal(err)
				}
				_ = s.file.Close()
			}
		}},
		{"a segment retired too soon", "needed, but", func(t *testing.T, db *DB) {
			if err := db.segments.retire(db.state.Load().mem.segment); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			db, it := checked(t, vfs.NewMem())
			if err := errors.Join(it.Close(), db.Flush()); err != nil {
				t.Fatal(err)
			}
			awaitRest(db)
			c.do(t, db)
			if err := db.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A file that resists removal is not forgotten, and the tables of a compaction that fails half way
// are known until they are gone.
func TestCheckKnowsLeftovers(t *testing.T) {
	var resist atomic.Bool
	fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
		if o.Kind == vfs.OpRemove && resist.Load() {
			return errors.New("it resists")
		}
		return nil
	})
	db, it := checked(t, fsys)
	resist.Store(true)
	if err := errors.Join(it.Close(), db.Compact(t.Context(), nil, nil), db.Check()); err != nil {
		t.Fatal(err)
	}
	awaitRest(db)
	if err := db.Check(); err != nil {
		t.Fatal(err)
	}
	if len(db.remover.leftovers()) == 0 {
		t.Fatal("nothing resisted")
	}
	mustClose(t, db)
	resist.Store(false)
	db = mustOpen(t, "data", tinyOptions(fsys))
	if err := db.Check(); err != nil || len(db.remover.leftovers()) > 0 {
		t.Fatalf("the next open left %v, %v", db.remover.leftovers(), err)
	}
	mustClose(t, db)
}

// While a Check waited for the cleaner, and that for a reader, no flush came to its end.
func TestFlushDuringCheckThatWaits(t *testing.T) {
	db := mustOpen(t, "data", tinyOptions(vfs.NewMem()))
	flush := func() error { return errors.Join(db.Put([]byte("k"), []byte("v"), NoSync), db.Flush()) }
	if err := flush(); err != nil {
		t.Fatal(err)
	}
	awaitRest(db)
	reader := db.readers.Enter()
	if err := flush(); err != nil {
		t.Fatal(err)
	}
	cleaning := func() bool {
		db.mu.Lock()
		defer db.mu.Unlock()
		return db.cleaning
	}
	for !cleaning() { // from then on until the reader leaves
		time.Sleep(time.Millisecond)
	}
	checked, flushed := make(chan error, 1), make(chan error, 1)
	go func() { checked <- db.Check() }()
	time.Sleep(20 * time.Millisecond)
	go func() { flushed <- flush() }()
	select {
	case err := <-flushed:
		if err != nil {
			t.Error(err)
		}
	case err := <-checked:
		t.Errorf("Check did not wait: %v", err)
		checked <- nil
	case <-time.After(10 * time.Second):
		t.Error("the flush waits for the reader")
	}
	reader.Exit()
	if err := <-checked; err != nil {
		t.Error(err)
	}
	mustClose(t, db)
}

// A log segment whose reuse failed stayed behind as a file that nobody would remove.
func TestReuseOfSegmentFails(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpRename, vfs.OpOpenReadWrite} {
		synctest.Test(t, func(t *testing.T) {
			var fail atomic.Bool
			fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
				if o.Kind == kind && fail.CompareAndSwap(true, false) {
					return errors.New("no reuse")
				}
				return nil
			})
			db, it := checked(t, fsys)
			fail.Store(true)
			for i := range 400 {
				_ = db.Put(fmt.Appendf(nil, "%d", i), make([]byte, 100), NoSync)
			}
			if fail.Load() {
				t.Fatal("nothing failed")
			}
			time.Sleep(time.Second) // until writes go on
			if err := errors.Join(db.Flush(), db.Check(), it.Close()); err != nil {
				t.Fatalf("%v: %v", kind, err)
			}
			mustClose(t, db)
		})
	}
}
