package lsm

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"kvd/lsm/procs"
	"kvd/lsm/vfs"
	"kvd/sstable"
)

// sortedMemtable is a full memtable of several steps of a sort, half of them with the same head,
// and its keys in order.
func sortedMemtable(t *testing.T) (*DB, *memtable, []sstable.Key) {
	const entries = 3*itemsAStep + 7
	db := memtableDB(t, 8<<20, nil)
	m := db.commit.mem
	r := rand.New(rand.NewPCG(1, 1))
	keys := make([]sstable.Key, entries)
	for i := range keys {
		user := fmt.Appendf(nil, "%016x", r.Uint64())
		if i%2 == 0 {
			user = fmt.Appendf(nil, "same head %x", r.Uint32N(1000))
		}
		var b Batch
		b.Put(user, nil)
		if !commitTo(db, &b) {
			t.Fatal("the arena of the test is too small")
		}
		keys[i] = sstable.MakeKey(user, sstable.Seq(i+1), sstable.KindPut)
	}
	m.full.Store(true)
	slices.SortFunc(keys, sstable.Compare)
	return db, m, keys
}

// turnsDuring returns how often somebody else had the only processor while f ran.
func turnsDuring(f func()) (n int) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				n++
				runtime.Gosched()
			}
		}
	}()
	f()
	close(stop)
	<-stopped
	return n
}

// TestSortOfFlushYields: for 12 ms no timer of its processor fired, and the sort of keys with the
// same head had no end. Who reads waits for nobody else.
func TestSortOfFlushYields(t *testing.T) {
	for _, c := range []struct {
		name               string
		yielder            *procs.Yielder
		awaited            bool
		turnsMin, turnsMax int
	}{
		{"flush", new(procs.Yielder), false, 500, 1 << 20},
		{"flush that somebody waits for", new(procs.Yielder), true, 0, 20},
		{"reader", nil, false, 0, 20},
	} {
		db, m, want := sortedMemtable(t)
		m.awaited.Store(c.awaited)
		var run *memRun
		turns := turnsDuring(func() { run = db.order(m, 1, c.yielder) })
		if turns < c.turnsMin || turns > c.turnsMax {
			t.Errorf("%s: others had %d turns", c.name, turns)
		}
		if m.awaited.Load() != (c.yielder == nil || c.awaited) {
			t.Errorf("%s: awaited %v", c.name, m.awaited.Load())
		}
		for i := range want {
			if got := m.arena.key(run.items[i].node); sstable.Compare(got, want[i]) != 0 {
				t.Fatalf("%s: entry %d of %d is %v, want %v", c.name, i, len(want), got, want[i])
			}
		}
		run.free()
	}
}

// TestFlushDoesNotAwaitItself: what makes a sort hurry is somebody who reads.
func TestFlushDoesNotAwaitItself(t *testing.T) {
	db := mustOpen(t, "data", roomyOptions(vfs.NewMem()))
	defer mustClose(t, db)
	if err := db.Put([]byte("k"), nil, NoSync); err != nil {
		t.Fatal(err)
	}
	m := db.commit.mem
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if m.awaited.Load() {
		t.Error("a flush that nobody waits for hurries")
	}
}
