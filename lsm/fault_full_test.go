package lsm

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		db := mustOpen(t, "data", tinyOptions(mem))
		acked := map[string]bool{}
		d := Sync
		put := func(i int) error {
			key := fmt.Sprintf("key%06d", i)
			err := db.Put([]byte(key), []byte(strings.Repeat(key, 20)), d)
			acked[key] = acked[key] || err == nil
			return err
		}
		has := func(when string) {
			t.Helper()
			for key, want := range acked {
				value, err := db.Get([]byte(key))
				if want && (err != nil || string(value) != strings.Repeat(key, 20)) {
					t.Fatalf("%s: %s is %q, %v", when, key, value, err)
				}
			}
		}
		next := 0
		for round := range 6 {
			d = Durability((round + 1) % 3)
			mem.SetCapacity(mem.UsedBytes() + 100<<10)
			for full := false; !full; next++ { // a compaction that ends makes room once more
				var err error
				for ; err == nil; next++ {
					err = put(next)
				}
				if !errors.Is(err, ErrDiskFull) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("round %d: %v", round, err)
				}
				has("full")
				synctest.Wait()
				full = put(next) != nil
			}
			files, _ := mem.List("data")
			began := time.Now()
			for range 100 {
				if next++; !errors.Is(put(next), ErrDiskFull) {
					t.Fatal("a write succeeds on a full disk, or fails otherwise")
				}
			}
			if d := time.Since(began); d > 0 {
				t.Errorf("writes on a full disk wait for %v", d)
			}
			time.Sleep(time.Hour)
			synctest.Wait() // a retry may fall on this moment
			has("full for an hour")
			if now, _ := mem.List("data"); len(now) > len(files)+4 {
				t.Errorf("in an hour without room the files grew from %v to %v", files, now)
			}
			mem.SetCapacity(-1)
			began = time.Now()
			for next++; put(next) != nil; next++ {
				if time.Since(began) > 3*time.Second {
					t.Fatal("writes do not resume")
				}
				time.Sleep(50 * time.Millisecond)
			}
			has("room again")
		}
		mustClose(t, db)
		db = mustOpen(t, "data", tinyOptions(mem))
		has("reopened")
		if err := db.Check(); err != nil {
			t.Error(err)
		}
		mustClose(t, db)
	})
}

func TestLogIsNeededUntilTheFlushIsInTheManifest(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpWriteAt && strings.Contains(o.Name, manifestPrefix) {
			return syscall.ENOSPC
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		fsys.armed.Store(true)
		if err := db.Flush(); !errors.Is(err, ErrDiskFull) {
			t.Fatalf("Flush: %v", err)
		}
		fsys.armed.Store(false)
		if err := db.install(&edit{}, nil); err != nil { // as a compaction would
			t.Fatal(err)
		}
		after := mustOpen(t, "data", tinyOptions(fsys.mem.Crash(nil, vfs.KeepNone)))
		if v, err := after.Get([]byte("k")); err != nil || string(v) != "v" {
			t.Errorf("after a crash: %q, %v", v, err)
		}
		mustClose(t, after)
		time.Sleep(time.Second)
		mustClose(t, db)
	})
}

func TestCloseOnFullDisk(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpCreate && strings.HasSuffix(o.Name, tableSuffix) ||
			o.Kind == vfs.OpWriteAt && strings.Contains(o.Name, logSuffix) && o.Off > 0 {
			return syscall.ENOSPC
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		fsys.armed.Store(true)
		if err := db.Put([]byte("k"), []byte("w"), Sync); !errors.Is(err, ErrDiskFull) {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		fsys.armed.Store(false) // the log has room, the tables had none
		if err := db.Close(); !errors.Is(err, ErrDiskFull) {
			t.Errorf("Close: %v", err)
		}
		db = mustOpen(t, "data", tinyOptions(fsys))
		if v, err := db.Get([]byte("k")); err != nil || string(v) != "v" && string(v) != "w" {
			t.Errorf("%q, %v", v, err)
		}
		mustClose(t, db)
	})
}

func TestFullDiskLeavesNoTemporaryFiles(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpWriteAt {
			return syscall.ENOSPC
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		defer mustClose(t, db)
		synctest.Wait() // two log segments are made ahead
		before, _ := fsys.List("data")
		fsys.armed.Store(true)
		if err := db.Put([]byte("k"), []byte("v"), Sync); !errors.Is(err, ErrDiskFull) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait() // a retry may fall on this moment
		if after, _ := fsys.List("data"); len(after) > len(before)+2 {
			t.Errorf("%d files became %d: %v ...", len(before), len(after), after[:len(before)+2])
		}
		fsys.armed.Store(false)
		time.Sleep(10 * time.Second)
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Error(err)
		}
	})
}

func TestFullDiskLeavesNoManifests(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpWriteAt && strings.Contains(o.Name, manifestPrefix) {
			return syscall.ENOSPC
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		defer mustClose(t, db)
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // two log segments are made ahead
		before, _ := fsys.List("data")
		fsys.armed.Store(true)
		if err := db.Flush(); !errors.Is(err, ErrDiskFull) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait() // a retry may fall on this moment
		if after, _ := fsys.List("data"); len(after) > len(before)+4 {
			t.Errorf("%d files became %d: %v ...", len(before), len(after), after[:len(before)+4])
		}
		fsys.armed.Store(false)
		time.Sleep(10 * time.Second)
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Error(err)
		}
	})
}

// The end of one passing failure took away the word of a log that had failed meanwhile: the state
// was healthy over a dead log, and what NoSync had acknowledged was never written.
func TestLogFailsWhileAnotherFailureEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var armed, tableOnce, logOnce atomic.Bool
		tableAt, logAt := make(chan struct{}), make(chan struct{})
		tableGo, logGo := make(chan struct{}), make(chan struct{})
		mem := vfs.NewMem()
		fsys := vfs.NewFault(mem, func(o vfs.Op) error {
			switch {
			case !armed.Load():
			case o.Kind == vfs.OpCreate && strings.HasSuffix(o.Name, tableSuffix) &&
				tableOnce.CompareAndSwap(false, true):
				close(tableAt)
				<-tableGo
				return syscall.EMFILE
			case o.Kind == vfs.OpWriteAt && strings.Contains(o.Name, ".wal") && o.Off >= 4096 &&
				logOnce.CompareAndSwap(false, true):
				close(logAt)
				<-logGo
				return syscall.ENOSPC
			}
			return nil
		})
		db := mustOpen(t, "data", Options{FS: fsys, ScrubPeriod: -1})
		if err := db.Put([]byte("a"), []byte("1"), Sync); err != nil {
			t.Fatal(err)
		}
		armed.Store(true)
		go func() { _ = db.Flush() }()
		<-tableAt
		if err := db.Put([]byte("w"), []byte("1"), NoSync); err != nil {
			t.Fatal(err)
		}
		<-logAt // it is written behind
		close(tableGo)
		time.Sleep(10 * time.Second) // the log is found in order, and the write waited for
		close(logGo)
		time.Sleep(10 * time.Second)
		if state, err := db.Metrics().State, db.wal.Load().Err(); state != "healthy" || err != nil {
			t.Errorf("the state is %s, that of the log %v", state, err)
		}
		c := mustOpen(t, "data", Options{FS: mem.Crash(nil, vfs.KeepAll), ScrubPeriod: -1})
		if _, err := c.Get([]byte("w")); err != nil {
			t.Errorf("what was acknowledged long before the process died: %v", err)
		}
		mustClose(t, c)
		mustClose(t, db)
	})
}
