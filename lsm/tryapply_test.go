package lsm

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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

// TestTryApplyReadOnly: there is no log, and nothing to wait for.
func TestTryApplyReadOnly(t *testing.T) {
	mem := vfs.NewMem()
	mustClose(t, mustOpen(t, "data", Options{FS: mem}))
	db := mustOpen(t, "data", Options{FS: mem, ReadOnly: true})
	var b Batch
	b.Put([]byte("k"), nil)
	if done, err := db.TryApply(&b); !done || !errors.Is(err, ErrReadOnly) {
		t.Errorf("%v, %v", done, err)
	}
	mustClose(t, db)
}

// TestTryApplyLarge: what would fill the log's buffer is left to Apply, which then writes it.
func TestTryApplyLarge(t *testing.T) {
	db := mustOpen(t, "data", Options{FS: vfs.NewMem()})
	var b Batch
	b.Put([]byte("k"), make([]byte, MaxValueBytes))
	if done, err := db.TryApply(&b); done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	mustClose(t, db)
}

// TestSyncWhileWritesAreRefused: a table that cannot be made has writes refused for the time being,
// but says nothing of the log. What was written before can still be made durable, and is.
func TestSyncWhileWritesAreRefused(t *testing.T) {
	var broken atomic.Bool
	mem := vfs.NewMem()
	fsys := vfs.NewFault(mem, func(o vfs.Op) error {
		if broken.Load() && o.Kind == vfs.OpCreate && strings.HasSuffix(o.Name, tableSuffix) {
			return syscall.EMFILE
		}
		return nil
	})
	db := mustOpen(t, "data", Options{FS: fsys})
	var b, nothing Batch
	b.Put([]byte("k"), []byte("v"))
	if done, err := db.TryApply(&b); !done || err != nil {
		t.Fatalf("%v, %v", done, err)
	}
	broken.Store(true)
	if err := db.Flush(); !errors.Is(err, ErrSuspended) {
		t.Fatalf("Flush: %v", err)
	}
	if err := db.Put([]byte("later"), nil, Sync); !errors.Is(err, ErrSuspended) {
		t.Errorf("Put: %v", err)
	}
	if err := db.Apply(&nothing, NoSync); !errors.Is(err, ErrSuspended) {
		t.Errorf("nothing, not to be made durable: %v", err)
	}
	if err := db.Apply(&nothing, Sync); err != nil {
		t.Errorf("a sync of what was written before: %v", err)
	}
	after := mustOpen(t, "data", Options{FS: mem.Crash(nil, vfs.KeepNone)})
	if v, err := after.Get([]byte("k")); string(v) != "v" {
		t.Errorf("after a power cut: %q, %v", v, err)
	}
	mustClose(t, after)
	broken.Store(false)
	for db.Flush() != nil { // it tries again by itself
		time.Sleep(time.Millisecond)
	}
	mustClose(t, db)
}

// TestSyncAcrossAReplacedLog: a log that could not be written is replaced once what it held is in
// tables. An empty batch applied meanwhile says nothing before that, and afterwards the truth.
func TestSyncAcrossAReplacedLog(t *testing.T) {
	var full atomic.Bool
	mem := vfs.NewMem()
	fsys := vfs.NewFault(mem, func(o vfs.Op) error {
		if full.Load() && (o.Kind == vfs.OpWriteAt || o.Kind == vfs.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	})
	db := mustOpen(t, "data", Options{FS: fsys})
	for round := range 20 {
		var b, nothing Batch
		key := fmt.Appendf(nil, "%d", round)
		b.Put(key, []byte("v"))
		full.Store(true)
		done, err := db.TryApply(&b)
		for ; !done; done, err = db.TryApply(&b) { // another commit may be under way
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := db.Apply(&nothing, Sync); !errors.Is(err, ErrDiskFull) {
			t.Errorf("round %d: a sync on a full disk: %v", round, err)
		}
		full.Store(false)
		for err = db.Apply(&nothing, Sync); err != nil; err = db.Apply(&nothing, Sync) {
			if !errors.Is(err, ErrDiskFull) {
				t.Fatalf("round %d: %v", round, err)
			}
			time.Sleep(time.Millisecond)
		}
		after := mustOpen(t, "data", Options{FS: mem.Crash(nil, vfs.KeepNone)})
		if v, err := after.Get(key); string(v) != "v" {
			t.Errorf("round %d: after a power cut: %q, %v", round, v, err)
		}
		mustClose(t, after)
		for done = false; !done; done, err = db.TryApply(&b) {
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			t.Errorf("round %d: once there is room: %v", round, err)
		}
	}
	mustClose(t, db)
}

func isKeySize(err error) bool {
	_, ok := errors.AsType[*KeySizeError](err)
	return ok
}
