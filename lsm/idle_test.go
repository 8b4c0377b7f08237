package lsm

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kvd/compaction"
	"kvd/lsm/vfs"
)

// TestLevelZeroIsMergedWhenNobodyWrites: not while somebody does, however slowly, and not again for
// little. What there is of the memtable goes with it.
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

		held := func(what string, want bool) {
			t.Helper()
			if m := db.Metrics(); m.MemtableBytes > 8*firstOffset != want {
				t.Fatalf("%s: a memtable of %d bytes", what, m.MemtableBytes)
			}
		}
		before := db.Metrics().FlushedBytes
		put(0)
		time.Sleep(time.Hour)
		held("with one key", true)
		for i := range 2000 {
			put(i)
		}
		held("before anybody rests", true)
		time.Sleep(4 * calmAfter)
		want("with a memtable", 0, 1)
		held("with a memtable", false)
		if db.Metrics().FlushedBytes == before {
			t.Error("nothing was flushed")
		}
		mustClose(t, db)
	})
}

// TestPausesDoNotFillLevelZero: on a disk so slow that a merge outlasts many pauses of a writer, what
// each of them has written stays in the memtable meanwhile. Without any care for pauses there are 7
// tables at most, with a flush in each pause 40.
func TestPausesDoNotFillLevelZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			if o.Kind == vfs.OpWriteAt && strings.HasSuffix(o.Name, tableSuffix) {
				time.Sleep(200 * time.Millisecond)
			}
			return nil
		})
		db := mustOpen(t, "data", Options{FS: slow, MemtableBytes: 1 << 20})
		r := rand.New(rand.NewPCG(1, 1))
		value := make([]byte, 10<<10)
		most := 0
		for range 200 {
			for range 8 {
				for i := range value {
					value[i] = byte(r.Uint32())
				}
				key := fmt.Appendf(nil, "key%08x", r.Uint32())
				if err := db.Put(key, value, NoSync); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * calmAfter)
			most = max(most, db.Metrics().Levels[0].Tables)
		}
		m := db.Metrics()
		t.Logf("%d compactions, %d stalls, at most %d tables", m.Compactions, m.Stalls, most)
		if most > 10 || m.Stalls > 0 || m.Compactions == 0 {
			t.Errorf("%d tables in level 0, %d stalls, %d compactions", most, m.Stalls, m.Compactions)
		}
		mustClose(t, db)
	})
}
