package lsm

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// Each test here is about a way in which stores of this kind have lost data when the disk failed.

// A read error in the middle of the log is not its end: Open fails, whichever read it is and
// however far it came, and changes nothing.
func TestReadErrorDuringReplayIsNoEndOfTheLog(t *testing.T) {
	o := Options{MemtableBytes: 8 << 20} // all of the log, which takes several reads
	open := func(fsys vfs.FS) (*DB, error) { o.FS = fsys; return Open("data", o) }
	mem := vfs.NewMem()
	killed, err := open(lockless{mem}) // closed only when it is of no consequence
	if err != nil {
		t.Fatal(err)
	}
	const keys = 30
	for i := range keys {
		if err := killed.Put(fmt.Appendf(nil, "k%02d", i), make([]byte, 100<<10), Durability(i%2)); err != nil {
			t.Fatal(err)
		}
	}
	disk := mem.Crash(nil, vfs.KeepAll)
	_ = killed.Close()
	if err := disk.WriteFile("data/"+lockName, nil); err != nil { // which Open would make
		t.Fatal(err)
	}
	seed, tried := maphash.MakeSeed(), 0
	for nth := 1; ; nth++ {
		for _, half := range []bool{false, true} {
			copied, n := disk.Crash(nil, vfs.KeepAll), 0
			var mu sync.Mutex // an Open that succeeds has several goroutines
			var failed vfs.Op
			opened, err := open(vfs.NewFault(copied, func(o vfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				class := faultClassOf(o.Name)
				if n++; o.Kind != vfs.OpReadAt || class == classTable || half && class != classLog {
					n--
				}
				if n < nth || failed.N > 0 {
					return nil
				}
				failed = o
				return vfs.ShortWrite(map[bool]int{true: int(o.Len / 2)}[half], syscall.EIO)
			}))
			if err == nil {
				mustClose(t, opened)
			}
			if failed.N == 0 {
				if half {
					continue
				}
				if tried < 8 {
					t.Errorf("only %d reads", tried)
				}
				return
			}
			tried++
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("%v fails: %v", failed, err)
			}
			if copied.Hash(seed) != disk.Hash(seed) {
				t.Errorf("%v failed, and Open has changed something", failed)
			}
			db, err := open(copied)
			if err != nil {
				t.Fatal(err)
			}
			for i := range keys {
				if _, err := db.Get(fmt.Appendf(nil, "k%02d", i)); err != nil {
					t.Fatalf("%v failed; then k%02d: %v", failed, i, err)
				}
			}
			mustClose(t, db)
		}
	}
}

// A sync fails, the system drops the pages, the next sync succeeds. From the failure on nothing is
// acknowledged, in any class and by any means, and what was before is all there is after a loss of
// power.
func TestFailedSyncThenSuccess(t *testing.T) {
	for name, lose := range map[string]func(error) error{
		"lost": vfs.LostSync, "evicted": vfs.EvictedSync,
		"dirty": func(err error) error { return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testFailedSync(t, name, lose) })
		})
	}
}

func testFailedSync(t *testing.T, name string, lose func(error) error) {
	fsys := newFailingFS(nil)
	var failed atomic.Bool
	fsys.match = func(o vfs.Op) error {
		if o.Kind == vfs.OpSync && strings.Contains(o.Name, logSuffix) && !failed.Swap(true) {
			return lose(syscall.EIO)
		}
		return nil
	}
	db := mustOpen(t, "data", roomyOptions(fsys))
	put := func(key string, d Durability) error { return db.Put([]byte(key), []byte("v"), d) }
	if err := put("before", Sync); err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // no log is being made ready, whose sync would be the one that fails
	fsys.armed.Store(true)
	if err := put("amid", Sync); !errors.Is(err, ErrInDoubt) || !errors.Is(err, ErrReadOnly) ||
		!errors.Is(err, syscall.EIO) {
		t.Fatalf("the write whose sync failed: %v", err)
	}
	for range 3 {
		for _, d := range []Durability{Sync, Async, NoSync} {
			if err := put("after", d); !errors.Is(err, ErrReadOnly) || errors.Is(err, ErrInDoubt) {
				t.Errorf("a write after the failed sync: %v", err)
			}
		}
		for what, err := range map[string]error{
			"an empty batch": db.Apply(new(Batch), Sync),
			"Flush":          db.Flush(),
			"Compact":        db.Compact(context.Background(), nil, nil),
			"Checkpoint":     db.Checkpoint("copy"),
		} {
			if !errors.Is(err, ErrReadOnly) {
				t.Errorf("%s after the failed sync: %v", what, err)
			}
		}
	}
	if _, err := db.Get([]byte("before")); err != nil {
		t.Errorf("reads do not go on: %v", err)
	}
	if s := db.Metrics().State; !strings.HasPrefix(s, ErrReadOnly.Error()) {
		t.Errorf("state: %s", s)
	}
	crashed := fsys.mem.Crash(nil, vfs.KeepNone)
	if err := db.Close(); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Close: %v", err)
	}
	keys := func(disk *vfs.Mem) string {
		db := mustOpen(t, "data", roomyOptions(disk))
		defer mustClose(t, db)
		contents, err := faultContents(db)
		if err != nil {
			t.Error(err)
		}
		var keys []string
		for key := range contents {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		return strings.Join(keys, " ")
	}
	if got := keys(crashed); got != "before" {
		t.Errorf("after a loss of power: %q", got)
	}
	want := "amid before"
	if name == "evicted" {
		want = "before"
	}
	if got := keys(fsys.mem); got != want {
		t.Errorf("opened again: %q, want %q", got, want)
	}
	// What the second life has shown it keeps, although the first sync had lost it.
	if got := keys(fsys.mem.Crash(nil, vfs.KeepNone)); got != want {
		t.Errorf("opened again, after a loss of power: %q, want %q", got, want)
	}
}

// After a failed write nobody knows how long the manifest is: nothing is written to that file any
// more, only a new one takes over. The disk is full at each write to a manifest in turn.
func TestNothingFollowsAFailedWriteOfTheManifest(t *testing.T) {
	for nth := 1; ; nth++ {
		var broken atomic.Pointer[string] // the manifest whose write failed
		n := 0
		fsys := newFailingFS(func(o vfs.Op) error {
			if o.Kind != vfs.OpWriteAt || faultClassOf(o.Name) != classManifest {
				return nil
			}
			if b := broken.Load(); b != nil {
				if *b == o.Name {
					t.Errorf("failure %d: %v follows the write that failed", nth, o)
				}
				return nil
			}
			if n++; n < nth {
				return nil
			}
			broken.Store(&o.Name)
			return vfs.ShortWrite(int(o.Len/2), syscall.ENOSPC)
		})
		synctest.Test(t, func(t *testing.T) {
			db := mustOpen(t, "data", tinyOptions(fsys))
			fsys.armed.Store(true)
			acked := 0
			for i := range 12 {
				for db.Put(fmt.Appendf(nil, "k%02d", i), make([]byte, 300), Sync) != nil {
					time.Sleep(100 * time.Millisecond)
				}
				acked++
				_ = db.Flush() // fails now and then
			}
			time.Sleep(5 * time.Second)
			if s := db.Metrics().State; s != "healthy" {
				t.Errorf("failure %d: state: %s", nth, s)
			}
			for name, disk := range map[string]*vfs.Mem{
				"the end": fsys.mem.Crash(nil, vfs.KeepAll), "a crash": fsys.mem.Crash(nil, vfs.KeepNone),
			} {
				after := mustOpen(t, "data", tinyOptions(disk))
				for i := range acked {
					if _, err := after.Get(fmt.Appendf(nil, "k%02d", i)); err != nil {
						t.Errorf("failure %d, after %s: k%02d: %v", nth, name, i, err)
					}
				}
				mustClose(t, after)
			}
			mustClose(t, db)
		})
		if broken.Load() == nil {
			if nth < 8 {
				t.Errorf("only %d writes of a manifest", nth-1)
			}
			return
		}
	}
}

// The edit of a flush or a compaction fails to sync and may be in force or not. The files of either
// outcome are there, whichever the disk shows at the next start, and no number is used twice.
func TestFilesStayWhenTheFateOfAnEditIsUnknown(t *testing.T) {
	for name, do := range map[string]func(*DB) error{
		"flush":   (*DB).Flush,
		"compact": func(db *DB) error { return db.Compact(context.Background(), nil, nil) },
	} {
		for _, mode := range []vfs.CrashMode{vfs.KeepAll, vfs.KeepNone, vfs.LoseNames, vfs.LoseFiles} {
			t.Run(fmt.Sprintf("%s/%v", name, mode), func(t *testing.T) {
				testUnknownEdit(t, do, mode)
			})
		}
	}
}

func testUnknownEdit(t *testing.T, do func(*DB) error, mode vfs.CrashMode) {
	var mu sync.Mutex // files are made by several goroutines
	made := make(map[string]bool)
	note := func(o vfs.Op) { // each number is given to one file
		mu.Lock()
		defer mu.Unlock()
		name := o.Name
		if o.Kind == vfs.OpRename {
			name = o.NewName
		}
		base := strings.TrimPrefix(strings.TrimSuffix(name, tempSuffix), "data/")
		kind, num := parseName(base)
		is := o.Kind == vfs.OpRename && kind == fileLog && strings.HasSuffix(o.Name, tempSuffix) ||
			o.Kind == vfs.OpCreate && (kind == fileTable || kind == fileManifest)
		if key := fmt.Sprint(num); is && made[key] {
			t.Errorf("%v: the number has been used", o)
		} else if is {
			made[key] = true
		}
	}
	var fail, past atomic.Bool
	mem := vfs.NewMem()
	open := func() *DB {
		o := roomyOptions(vfs.NewFault(mem, func(o vfs.Op) error {
			if !past.Load() {
				note(o)
			}
			if fail.Load() && o.Kind == vfs.OpSync && faultClassOf(o.Name) == classManifest {
				return syscall.EIO
			}
			return nil
		}))
		o.Compaction.LevelZeroTrigger = 100
		return mustOpen(t, "data", o)
	}
	db := open()
	want := 0
	for range 3 {
		for range 5 {
			if err := db.Put(fmt.Appendf(nil, "k%02d", want), make([]byte, 100), Sync); err != nil {
				t.Fatal(err)
			}
			want++
		}
		if want < 15 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	fail.Store(true)
	if err := do(db); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("the edit failed to sync: %v", err)
	}
	db.segments.files.Lock() // a log segment whose name is not durable may give its number away
	after := mem.Crash(nil, mode)
	past.Store(true) // what this life does now is not on the disk of the next
	db.segments.files.Unlock()
	fail.Store(false)
	if err := db.Close(); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Close: %v", err)
	}
	mem = after
	past.Store(false)
	for life := range 3 {
		db := open()
		for i := range want {
			if _, err := db.Get(fmt.Appendf(nil, "k%02d", i)); err != nil {
				t.Errorf("life %d: k%02d: %v", life, i, err)
			}
		}
		if err := errors.Join(db.Compact(context.Background(), nil, nil), db.Check()); err != nil {
			t.Error(err)
		}
		mustClose(t, db)
	}
}

// EIO on a block of a table is an error of Get and of an iterator, in both directions, and never a
// key that is not found or a scan that ends early.
func TestReadErrorIsNotAbsence(t *testing.T) {
	mem := vfs.NewMem()
	var nth, n atomic.Int64
	o := tinyOptions(vfs.NewFault(mem, func(o vfs.Op) error {
		if o.Kind == vfs.OpReadAt && nth.Load() > 0 && n.Add(1) >= nth.Load() {
			return vfs.ShortWrite(int(o.Len/2), syscall.EIO)
		}
		return nil
	}))
	o.CacheBytes = -1
	db := mustOpen(t, "data", o)
	defer mustClose(t, db)
	const keys = 60
	for i := range keys {
		if err := db.Put(fmt.Appendf(nil, "k%02d", i*7%keys), make([]byte, 100), NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	db.mu.Lock()
	for db.jobs > 0 {
		db.work.Wait()
	}
	db.retryAfter = time.Now().Add(time.Hour) // no compaction reads beside us
	db.mu.Unlock()
	failing := func(from int64) { n.Store(0); nth.Store(from) }
	for i := range keys {
		failing(1)
		if _, err := db.Get(fmt.Appendf(nil, "k%02d", i)); !errors.Is(err, syscall.EIO) {
			t.Fatalf("k%02d: %v", i, err)
		}
		failing(0)
		if _, err := db.Get(fmt.Appendf(nil, "k%02d", i)); err != nil {
			t.Fatalf("k%02d, when the disk is well again: %v", i, err)
		}
	}
	for from := int64(1); ; from++ {
		met := false
		for _, forward := range []bool{true, false} {
			failing(from)
			it, pairs := db.NewIter(IterOptions{}), 0
			start, move := it.First, it.Next
			if !forward {
				start, move = it.Last, it.Prev
			}
			for ok := start(); ok; ok = move() {
				pairs++
			}
			failed := n.Load() >= from
			met = met || failed
			err := it.Close()
			if failed && !errors.Is(err, syscall.EIO) || !failed && (err != nil || pairs != keys) {
				t.Fatalf("read %d fails, forward: %v: %d of %d pairs, %v", from, forward, pairs, keys, err)
			}
		}
		if !met {
			break
		}
	}
	failing(0)
}
