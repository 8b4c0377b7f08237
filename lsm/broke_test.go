package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/compaction"
	"kvd/lsm/vfs"
)

// Each test here is named after what once broke.

func roomyOptions(fs vfs.FS) Options { return Options{FS: fs, MemtableBytes: 64 << 10} }

// A flush while a checkpoint linked its tables took file numbers. The new manifest did not know
// its own number to be taken: the second Open wrote its manifest over the one in force and then
// removed it.
func TestManifestOverwroteItself(t *testing.T) {
	mem := vfs.NewMem()
	var db *DB
	var once atomic.Bool
	fsys := vfs.NewFault(mem, func(o vfs.Op) error {
		if o.Kind == vfs.OpLink && !once.Swap(true) {
			if err := errors.Join(db.Put([]byte("later"), []byte("x"), Sync), db.Flush()); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	db = mustOpen(t, "data", roomyOptions(fsys))
	for i := range 3 {
		if err := db.Put([]byte("k"), fmt.Appendf(nil, "v%d", i), Sync); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Checkpoint("copy"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	for range 3 {
		copied := mustOpen(t, "copy", roomyOptions(mem))
		if v, err := copied.Get([]byte("k")); err != nil || string(v) != "v2" {
			t.Fatalf("%q, %v", v, err)
		}
		mustClose(t, copied)
	}
}

type lockless struct{ vfs.FS }

type noLock struct{}

func (noLock) Close() error { return nil }

func (lockless) Lock(string) (io.Closer, error) { return noLock{}, nil }

// An Open that failed sealed the log that it had just begun, and so vouched for records before it
// that were never synced: after a loss of power the database did not open.
func TestFailedOpenVouchedForUnsyncedRecords(t *testing.T) {
	mem := vfs.NewMem()
	killed := mustOpen(t, "data", roomyOptions(lockless{mem})) // never closed
	if err := killed.Put([]byte("a"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	if err := killed.Put([]byte("b"), []byte("v"), Async); err != nil {
		t.Fatal(err)
	}
	full := vfs.NewFault(mem, func(o vfs.Op) error {
		if o.Kind == vfs.OpCreate && strings.Contains(o.Name, manifestPrefix) {
			return syscall.ENOSPC
		}
		return nil
	})
	if _, err := Open("data", roomyOptions(lockless{full})); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Open on a full disk: %v", err)
	}
	db := mustOpen(t, "data", roomyOptions(mem.Crash(nil, vfs.KeepNone)))
	if _, err := db.Get([]byte("a")); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	_ = killed.Close()
}

// A write on a full disk waited for the pacer, up to 8 s for a large value, before it was refused.
func TestRefusedWriteDoesNotWaitForPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			if o.Kind == vfs.OpWriteAt && strings.HasSuffix(o.Name, tableSuffix) {
				time.Sleep(300 * time.Millisecond) // a slow disk
				if full.Load() {
					return syscall.ENOSPC
				}
			}
			return nil
		})
		db := mustOpen(t, "data", Options{FS: fsys, MemtableBytes: 512 << 10})
		value := make([]byte, 200<<10)
		for i := range 16 {
			full.Store(i >= 8)
			_ = db.Put(fmt.Appendf(nil, "k%d", i), value, NoSync) // refused in the end
		}
		time.Sleep(time.Second)
		if !db.pace.on() {
			t.Fatal("nothing slows writes down: the test tests nothing")
		}
		began := time.Now()
		err := db.Put([]byte("big"), make([]byte, MaxValueBytes), NoSync)
		if took := time.Since(began); !errors.Is(err, ErrDiskFull) || took > 10*time.Millisecond {
			t.Errorf("refused after %v: %v", took, err)
		}
		_ = db.Close() // reports the full disk
	})
}

// One failure to create a table made the database read only until it was opened again.
func TestTransientFlushErrorPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Bool
		fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			if o.Kind == vfs.OpCreate && strings.HasSuffix(o.Name, tableSuffix) && fail.Swap(false) {
				return syscall.EMFILE
			}
			return nil
		})
		db := mustOpen(t, "data", roomyOptions(fsys))
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		fail.Store(true)
		if err := db.Flush(); !errors.Is(err, syscall.EMFILE) || !errors.Is(err, ErrSuspended) {
			t.Fatalf("Flush: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := db.Put([]byte("k"), []byte("w"), Sync); err != nil {
			t.Fatal(err)
		}
		mustClose(t, db)
	})
}

// Metrics waited for the commit lock, which a commit holds while it waits for a flush.
func TestMetricsDuringStall(t *testing.T) {
	var block atomic.Bool
	release := make(chan struct{})
	fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
		if block.Load() && o.Kind == vfs.OpCreate && strings.HasSuffix(o.Name, tableSuffix) {
			<-release
		}
		return nil
	})
	db := mustOpen(t, "data", tinyOptions(fsys))
	block.Store(true)
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 200 && err == nil; i++ {
			err = db.Put(fmt.Appendf(nil, "k%06d", i), make([]byte, 100), NoSync)
		}
		done <- err
	}()
	stalled := func() bool { // the commit lock is held and nobody lets it go
		if db.commit.TryLock() {
			db.commit.Unlock()
			return false
		}
		db.mu.Lock()
		defer db.mu.Unlock()
		return len(db.frozen) == frozenMax
	}
	for !stalled() {
		time.Sleep(time.Millisecond)
	}
	answered := make(chan struct{})
	go func() { db.Metrics(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(10 * time.Second):
		t.Error("Metrics hangs while a commit waits for a flush")
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	mustClose(t, db)
}

// A file system that is mounted read only refused the lock, and so a read-only Open.
func TestReadOnlyOnReadOnlyFileSystem(t *testing.T) {
	mem := vfs.NewMem()
	mustClose(t, mustOpen(t, "data", roomyOptions(mem)))
	o := roomyOptions(vfs.NewFault(mem, func(o vfs.Op) error {
		if o.Kind.Writes() {
			return syscall.EROFS
		}
		return nil
	}))
	o.ReadOnly = true
	mustClose(t, mustOpen(t, "data", o))
	if _, err := Verify(o.FS, "data", nil); err != nil {
		t.Error(err)
	}
}

// Iterators were pooled whole: a second Close closed the iterator of whoever came next.
func TestSecondCloseOfIteratorHitsNobody(t *testing.T) {
	db := mustOpen(t, "data", roomyOptions(vfs.NewMem()))
	for i := range 10 {
		if err := db.Put(fmt.Appendf(nil, "k%d", i), nil, NoSync); err != nil {
			t.Fatal(err)
		}
	}
	first := db.NewIter(IterOptions{})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := db.NewIter(IterOptions{})
	_ = first.Close()
	n := 0
	for range second.All() {
		n++
	}
	if err := second.Close(); err != nil || n != 10 || first.First() || first.Next() {
		t.Errorf("%d of 10 pairs, %v", n, err)
	}
	mustClose(t, db)
}

// The end of a caller's context counted as a failed compaction and held up all others.
func TestCompactDeadlineHoldsNobodyUp(t *testing.T) {
	var slow atomic.Bool
	fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
		if slow.Load() && o.Kind == vfs.OpReadAt {
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	db := mustOpen(t, "data", Options{
		FS: fsys, CacheBytes: -1, MemtableBytes: 64 << 10,
		Compaction: compaction.Config{TableBytes: 4 << 10, LevelZeroTrigger: 100},
	})
	for i := range 2000 {
		if err := db.Put(fmt.Appendf(nil, "k%05d", i*7%2000), make([]byte, 100), NoSync); err != nil {
			t.Fatal(err)
		}
	}
	slow.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err := db.Compact(ctx, nil, nil)
	slow.Store(false)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Compact: %v", err)
	}
	db.mu.Lock()
	held := time.Until(db.retryAfter)
	db.mu.Unlock()
	if held > 0 {
		t.Errorf("compactions are held up for %v", held)
	}
	mustClose(t, db)
}

// A checkpoint that failed left its links behind, or CURRENT in the making, and the next try found
// the directory not empty. Then it left the directory.
func TestCheckpointAgainAfterFailure(t *testing.T) {
	for kind, name := range map[vfs.OpKind]string{
		vfs.OpCreate: "copy/" + manifestPrefix, vfs.OpSync: "copy/" + currentName, vfs.OpWriteAt: "copy/" + currentName,
	} {
		var full atomic.Bool
		fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			if full.Load() && o.Kind == kind && strings.HasPrefix(o.Name, name) {
				return syscall.ENOSPC
			}
			return nil
		})
		db := mustOpen(t, "data", roomyOptions(fsys))
		if err := errors.Join(db.Put([]byte("k"), []byte("v"), Sync), db.Flush()); err != nil {
			t.Fatal(err)
		}
		full.Store(true)
		if err := db.Checkpoint("copy"); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if names, err := fsys.List("copy"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after %v of %s a directory is left: %v, %v", kind, name, names, err)
		}
		full.Store(false)
		if err := db.Checkpoint("copy"); err != nil {
			t.Errorf("after %v of %s: %v", kind, name, err)
		}
		mustClose(t, db)
	}
}

// An Open that found no room did not say so as ErrDiskFull, and left the tables that it had made
// of the log behind: with every attempt there was less room.
func TestOpenOnFullDiskTakesNoRoom(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: lockless{mem}, MemtableBytes: 4 << 20}
	killed := mustOpen(t, "data", o) // never closed
	value := make([]byte, 4<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		for j := range value {
			value[j] = byte(r.Uint32()) // not to be compressed
		}
		if err := killed.Put(fmt.Appendf(nil, "k%d", i), value, Async); err != nil {
			t.Fatal(err)
		}
	}
	mem.SetCapacity(mem.UsedBytes() + 1<<20) // the log needs more as tables
	o.MemtableBytes = 256 << 10              // several of them
	before := mem.UsedBytes()
	for range 3 {
		if _, err := Open("data", o); !errors.Is(err, ErrDiskFull) {
			t.Fatalf("Open on a full disk: %v", err)
		}
		if used := mem.UsedBytes(); used > before {
			t.Errorf("an Open that failed took %d bytes", used-before)
		}
	}
	mem.SetCapacity(-1)
	db := mustOpen(t, "data", o)
	for i := range 400 {
		if _, err := db.Get(fmt.Appendf(nil, "k%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, db)
	_ = killed.Close()
}

// An Open that could not look for CURRENT went on to the lock and said that the directory was not
// there.
func TestOpenTellsWhatFailed(t *testing.T) {
	mem := vfs.NewMem()
	fsys := vfs.NewFault(mem, func(o vfs.Op) error {
		if o.Kind == vfs.OpSize {
			return syscall.EIO
		}
		return nil
	})
	if _, err := Open("data", roomyOptions(fsys)); !errors.Is(err, syscall.EIO) {
		t.Errorf("Open: %v", err)
	}
}

// A log that failed while a flush closed an old segment was noticed by the next write only: until
// then the metrics called the database healthy.
func TestStateTellsThatTheLogFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Bool
		fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			if fail.Load() && o.Kind == vfs.OpClose && strings.Contains(o.Name, logSuffix) {
				return syscall.EIO
			}
			return nil
		})
		db := mustOpen(t, "data", roomyOptions(fsys))
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		fail.Store(true)
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		fail.Store(false)
		if s := db.Metrics().State; !strings.HasPrefix(s, ErrReadOnly.Error()) {
			t.Errorf("the log has failed, and the state is %s", s)
		}
		if err := db.Close(); !errors.Is(err, syscall.EIO) {
			t.Errorf("Close: %v", err)
		}
	})
}

// A Close while a flush was at its end closed the log segment that the flush no longer needed, and
// the flush reported that it could not be used again, as if something were wrong.
func TestCloseAmidAFlushIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var armed atomic.Bool
		var atEdit, closes sync.Once
		amid, logClosed := make(chan struct{}), make(chan struct{})
		mem, told := vfs.NewMem(), new(crashLog)
		o := roomyOptions(vfs.NewFault(mem, func(o vfs.Op) error {
			switch {
			case !armed.Load():
			case o.Kind == vfs.OpClose && strings.Contains(o.Name, logSuffix):
				closes.Do(func() { close(logClosed) })
			case o.Kind == vfs.OpSync && strings.Contains(o.Name, manifestPrefix):
				atEdit.Do(func() { close(amid); <-logClosed })
			}
			return nil
		}))
		o.Logger = slog.New(told)
		db := mustOpen(t, "data", o)
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		armed.Store(true)
		flushed := make(chan error)
		go func() { flushed <- db.Flush() }()
		<-amid
		mustClose(t, db)
		if err := <-flushed; err != nil && !errors.Is(err, ErrClosed) { // who looks first?
			t.Errorf("Flush: %v", err)
		}
		if err := told.err(); err != nil {
			t.Error(err)
		}
		db = mustOpen(t, "data", roomyOptions(mem))
		if v, err := db.Get([]byte("k")); err != nil || string(v) != "v" {
			t.Errorf("%q, %v", v, err)
		}
		if err := db.Check(); err != nil {
			t.Error(err)
		}
		mustClose(t, db)
	})
}

// A compaction that the disk had no room for was tried again every second. It took all the room
// that was left each time, and writes that would have had enough were refused meanwhile.
func TestCompactionWithoutRoomIsTriedRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		var tries atomic.Int64
		full.Store(true)
		fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			// No flush here writes as much to one table.
			large := o.Kind == vfs.OpWriteAt && o.Off+o.Len > 256<<10
			if large && strings.HasSuffix(o.Name, tableSuffix) && full.Load() {
				tries.Add(1)
				return syscall.ENOSPC
			}
			return nil
		})
		db := mustOpen(t, "data", Options{FS: fsys, MemtableBytes: 1 << 20})
		value := make([]byte, 8<<10)
		r := rand.New(rand.NewPCG(1, 2))
		for i := range 8 * 16 {
			for j := range value {
				value[j] = byte(r.Uint32()) // not to be compressed
			}
			if err := db.Put(fmt.Appendf(nil, "k%d", i), value, NoSync); err != nil {
				t.Fatal(err)
			}
			if i%16 == 15 {
				if err := db.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(10 * time.Minute)
		if n := tries.Load(); n < 30 || n > 90 {
			t.Errorf("%d tries in 10 minutes, want about 62", n)
		}
		full.Store(false)
		time.Sleep(11 * time.Second)
		if m := db.Metrics(); m.Compactions == 0 {
			t.Errorf("no compaction 11 s after there is room:\n%s", m)
		}
		mustClose(t, db)
	})
}

// Writes that were suspended for want of a log segment resumed at once, although none could be made
// still: the metrics said healthy, and the next memtable failed again.
func TestSuspendedUntilALogCanBeMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Bool
		fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			if fail.Load() && o.Kind == vfs.OpRename && strings.Contains(o.Name, logSuffix) {
				return syscall.EIO
			}
			return nil
		})
		db := mustOpen(t, "data", roomyOptions(fsys))
		fail.Store(true)
		var err error
		for i := 0; i < 3 && err == nil; i++ { // the first may find a segment ready
			err = errors.Join(db.Put([]byte("k"), nil, Sync), db.Flush())
		}
		if !errors.Is(err, ErrSuspended) || !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s := db.Metrics().State; !strings.HasPrefix(s, ErrSuspended.Error()) {
			t.Errorf("no segment can be made, and the state is %s", s)
		}
		fail.Store(false)
		time.Sleep(2 * time.Second)
		if err := errors.Join(db.Put([]byte("k"), nil, Sync), db.Flush()); err != nil {
			t.Error(err)
		}
		mustClose(t, db)
	})
}
