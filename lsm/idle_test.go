package lsm

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvd/compaction"
	"kvd/lsm/vfs"
)

// TestLevelZeroIsMergedWhenNobodyWrites: not while somebody does, however slowly, and not again for
// little.
func TestLevelZeroIsMergedWhenNobodyWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := tinyOptions(vfs.NewMem())
		o.MemtableBytes, o.Compaction = 1<<20, compaction.Config{LevelZeroTrigger: 100}
		db := mustOpen(t, "data", o)
		put := func(i int) {
			t.Helper()
			if err := db.Put(fmt.Appendf(nil, "key%04d", i), make([]byte, 10), NoSync); err != nil {
				t.Fatal(err)
			}
		}
		tables := func() (zero, below int) {
			for level, l := range db.Metrics().Levels {
				if level == 0 {
					zero = l.Tables
				} else {
					below += l.Tables
				}
			}
			return zero, below
		}
		want := func(what string, zero, below int) {
			t.Helper()
			synctest.Wait()
			if z, b := tables(); z != zero || b != below {
				t.Fatalf("%s: %d and %d tables, want %d and %d", what, z, b, zero, below)
			}
		}
		flush := func(from, to int) {
			t.Helper()
			for i := from; i < to; i++ {
				put(i)
			}
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		flush(0, 2000)
		flush(1000, 2000)
		for range 100 {
			put(0)
			time.Sleep(calmAfter * 9 / 10)
		}
		want("beside a writer", 2, 0)
		time.Sleep(2 * calmAfter)
		want("when it has stopped", 0, 1)

		flush(0, 1)
		time.Sleep(time.Hour)
		want("with next to nothing to merge", 1, 1)
		flush(0, 2000)
		mustClose(t, db)
		db = mustOpen(t, "data", o)
		want("opened", 2, 1)
		time.Sleep(2 * calmAfter)
		want("opened and left alone", 0, 1)
		mustClose(t, db)
	})
}

// A commit that waited for a flush of more than idleAfter had the timer wait behind it: in simulated
// time for ever.
func TestIdleTimerDoesNotWaitForCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			if slow.Load() && o.Kind == vfs.OpSync && strings.HasSuffix(o.Name, tableSuffix) {
				time.Sleep(3 * idleAfter)
			}
			return nil
		})
		db := mustOpen(t, "data", tinyOptions(fsys))
		slow.Store(true)
		for i := range 200 {
			if err := db.Put(fmt.Appendf(nil, "%04d", i), make([]byte, 100), NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if db.Metrics().Stalls == 0 {
			t.Error("no commit had to wait: the test tests nothing")
		}
		slow.Store(false)
		mustClose(t, db)
	})
}

func TestIdleMemoryIsGivenBackAfterTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := roomyOptions(vfs.NewMem())
		o.MemtableBytes = 4 << 20
		db := mustOpen(t, "data", o)
		if err := db.Put([]byte("k"), []byte("v"), NoSync); err != nil {
			t.Fatal(err)
		}
		db.commit.Lock()
		unused := &db.commit.mem.arena.bytes[3<<20]
		*unused = 1
		db.idle.Reset(idleAfter)
		time.Sleep(2*idleAfter + idleAfter/2)
		if *unused != 1 {
			t.Error("given back under the hands of a commit")
		}
		db.commit.Unlock()
		time.Sleep(idleAfter)
		if *unused != 0 {
			t.Error("not given back afterwards")
		}
		mustClose(t, db)
	})
}

// TestPauseThatEndedEarlyIsLookedForAgain: a commit came between the moment calm was found and the
// compaction that was to make use of it, and level 0 stayed as it was until the next flush. On a
// full disk, on the other hand, a merge that nobody calls for must not take what room there is.
func TestPauseThatEndedEarlyIsLookedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := tinyOptions(vfs.NewMem())
		o.MemtableBytes, o.Compaction = 1<<20, compaction.Config{LevelZeroTrigger: 100}
		db := mustOpen(t, "data", o)
		flush := func() {
			t.Helper()
			if err := db.Put([]byte("key"), make([]byte, 1000), NoSync); err != nil {
				t.Fatal(err)
			}
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		want := func(what string, tables int) {
			t.Helper()
			synctest.Wait()
			if got := db.Metrics().Levels[0].Tables; got != tables {
				t.Fatalf("%s: %d tables in level 0, want %d", what, got, tables)
			}
		}
		flush()
		flush()
		db.mu.Lock()
		db.calm.timer.Stop()
		db.calm.found, db.calm.seen = true, db.published.seq()
		if db.takeCalmLocked(db.calm.seen + 1) {
			t.Error("found calm, though somebody wrote")
		}
		db.mu.Unlock()
		time.Sleep(2 * calmAfter)
		want("after a pause that ended early", 0)

		flush()
		synctest.Wait()
		db.failure.Store(&failure{err: ErrDiskFull, passes: true})
		db.lookForCalm()
		want("on a full disk", 1)
		db.failure.Store(nil)
		flush()
		time.Sleep(2 * calmAfter)
		want("when there is room again", 0)
		mustClose(t, db)
	})
}
