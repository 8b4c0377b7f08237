package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// TestFullDisk fills a disk up, waits and makes room.

// failingFS fails the operations that match while it is armed.

type failingFS struct {
	*vfs.Fault
	mem   *vfs.Mem
	mu    sync.Mutex // held by match
	match func(vfs.Op) error
	armed atomic.Bool
}

func newFailingFS(match func(vfs.Op) error) *failingFS {
	f := &failingFS{mem: vfs.NewMem(), match: match}
	f.Fault = vfs.NewFault(f.mem, func(o vfs.Op) error {
		if !f.armed.Load() {
			return nil
		}
		return f.matches(o)
	})
	return f
}

// matches calls match, for one goroutine at a time: it may count.
func (f *failingFS) matches(o vfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.match(o)
}

// A flush whose edit did not fit on the disk had moved the start of the log in memory. The edit of

// a compaction next to it then made a manifest that needed neither the log nor the table.

// Close during a full disk sealed the log that was to replace the failed one, which vouched for

// what was in neither: the database did not open again.

// A log that fails while no writer waits for it, in the background, went unnoticed by NoSync.

func TestNoSyncIsRefusedAfterTheLogFailed(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpClose && strings.Contains(o.Name, logSuffix) {
			return syscall.EIO
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		if err := db.Put([]byte("k"), []byte("v"), NoSync); err != nil {
			t.Fatal(err)
		}
		fsys.armed.Store(true) // the flush closes the old segment
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		fsys.armed.Store(false)
		for range 3 {
			err := db.Put([]byte("k"), []byte("v"), NoSync)
			if !errors.Is(err, ErrReadOnly) {
				t.Errorf("Put: %v", err)
			}
		}
		if err := db.Close(); !errors.Is(err, syscall.EIO) {
			t.Errorf("Close: %v", err)
		}
	})
}

// Only the last directory that Open made had a durable name.

func TestNewDirectoriesAreDurable(t *testing.T) {
	mem := vfs.NewMem()
	db := mustOpen(t, "a/b/data", tinyOptions(mem))
	if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Checkpoint("c/d/copy"); err != nil {
		t.Fatal(err)
	}
	crashed := mem.Crash(nil, vfs.KeepNone)
	mustClose(t, db)
	for _, dir := range []string{"a/b/data", "c/d/copy"} {
		db := mustOpen(t, dir, tinyOptions(crashed))
		if v, err := db.Get([]byte("k")); err != nil || string(v) != "v" {
			t.Errorf("%s after a crash: %q, %v", dir, v, err)
		}
		mustClose(t, db)
	}
}

// Closing a database that was opened from a medium on which no lock can be made panicked.

func TestReadOnlyWithoutALock(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind.Writes() {
			return fs.ErrPermission
		}
		return nil
	})
	o := tinyOptions(fsys)
	db := mustOpen(t, "data", o)
	if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	fsys.armed.Store(true)
	o.ReadOnly = true
	db = mustOpen(t, "data", o)
	if v, err := db.Get([]byte("k")); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
	mustClose(t, db)
}

// Compactions that could not open what they wrote left it behind, again at every attempt.

func TestFailedCompactionLeavesNoTables(t *testing.T) {
	var opens atomic.Int64
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpOpen && strings.HasSuffix(o.Name, tableSuffix) {
			if opens.Add(1) > 1 { // the first is that of the flush
				return syscall.EMFILE
			}
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		defer mustClose(t, db)
		for round := range 2 {
			fsys.armed.Store(round == 1)
			for i := range 8 {
				if err := db.Put(fmt.Appendf(nil, "k%d", i), nil, NoSync); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute)
		if tables, err := listFiles(fsys, "data", fileTable); err != nil || len(tables) != 2 {
			t.Errorf("tables %v, %v; after %d attempts", tables, err, opens.Load()-1)
		}
		if opens.Load() < 10 {
			t.Errorf("only %d attempts in five minutes", opens.Load()-1)
		}
		fsys.armed.Store(false)
		time.Sleep(time.Minute)
		if n := db.Metrics().Levels[0].Tables; n != 0 {
			t.Errorf("%d tables are left in level 0", n)
		}
		if err := db.Check(); err != nil {
			t.Error(err)
		}
	})
}

// A compaction whose output did not read back put its sound inputs under suspicion, all of them.

func TestDamagedOutputOfCompactionIsNoWordOnInputs(t *testing.T) {
	var fsys *failingFS
	fsys = newFailingFS(func(o vfs.Op) error {
		if o.Kind != vfs.OpOpen || !strings.HasSuffix(o.Name, tableSuffix) {
			return nil
		}
		fsys.armed.Store(false)
		size, err := fsys.mem.Size(o.Name)
		return errors.Join(err, fsys.mem.FlipByte(o.Name, size-20, 1))
	})
	db := mustOpen(t, "data", roomyOptions(fsys))
	defer mustClose(t, db)
	for range 2 {
		if err := errors.Join(db.Put([]byte("k"), []byte("v"), NoSync), db.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	fsys.armed.Store(true)
	_, isCorrupt := errors.AsType[*CorruptError](db.Compact(t.Context(), nil, nil))
	if m := db.Metrics(); !isCorrupt || m.Damaged != 0 {
		t.Errorf("the compaction found damage: %v; tables that count as damaged: %v", isCorrupt, m.DamagedFiles)
	}
	if err := errors.Join(db.Compact(t.Context(), nil, nil), db.Check()); err != nil {
		t.Errorf("the next compaction: %v", err)
	}
}

// Every attempt to start a log on a full disk left a temporary file.

// A manifest that could not be written was left behind, again at every attempt.
