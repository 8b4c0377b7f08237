package lsm

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"kvd/lsm/procs"
	"kvd/lsm/vfs"
	"kvd/sstable"
)

// keysOfManySteps are keys whose sort has several steps, half of them with the same head.
func keysOfManySteps() []sstable.Key {
	r := rand.New(rand.NewPCG(1, 1))
	keys := make([]sstable.Key, itemsAStep+itemsAStep/4+7)
	for i := range keys {
		user := fmt.Appendf(nil, "%016x", r.Uint64())
		if i%2 == 0 {
			user = fmt.Appendf(nil, "same head %x", r.Uint32N(1000))
		}
		keys[i] = sstable.MakeKey(user, sstable.Seq(i+1), sstable.KindPut)
	}
	return keys
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
	db, want := memtableDB(t, 8<<20, nil), keysOfManySteps()
	m := db.commit.mem
	for _, k := range want {
		var b Batch
		b.Put(k.User, nil)
		if !commitTo(db, &b) {
			t.Fatal("the arena of the test is too small")
		}
	}
	slices.SortFunc(want, sstable.Compare)
	for _, c := range []struct {
		name    string
		yielder *procs.Yielder
		awaited int32
		yields  int // at least
	}{
		{"flush", new(procs.Yielder), 0, 250},
		{"flush that somebody waits for", new(procs.Yielder), 1, 0},
		{"reader", nil, 0, 0},
	} {
		m.awaited.Store(c.awaited)
		step := &sortStep{yielder: c.yielder, awaited: &m.awaited}
		run := newMemRun(m.arena, firstOffset, uint32(m.used/8), len(want), true, step)
		if step.yields < c.yields || c.yields == 0 && step.yields > 0 {
			t.Errorf("%s: yielded %d times", c.name, step.yields)
		}
		for i := range want {
			if got := m.arena.key(run.items[i].node); sstable.Compare(got, want[i]) != 0 {
				t.Fatalf("%s: entry %d of %d is %v, want %v", c.name, i, len(want), got, want[i])
			}
		}
		run.free()
	}
}

// TestReaderThatWaitsForASortIsCounted while it waits.
func TestReaderThatWaitsForASortIsCounted(t *testing.T) {
	db := memtableDB(t, 64<<10, nil)
	m := db.commit.mem
	m.ordering.Lock()
	sorted := make(chan *memRun)
	go func() { sorted <- db.order(m, 0, nil) }()
	for began := time.Now(); m.awaited.Load() != 1; runtime.Gosched() {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d are waiting", m.awaited.Load())
		}
	}
	m.ordering.Unlock()
	<-sorted
	if n := m.awaited.Load(); n != 0 {
		t.Errorf("%d are waiting", n)
	}
}

// TestFlushYieldsInItsSort has so little to write that all turns but some 20 are those of the sort.
func TestFlushYieldsInItsSort(t *testing.T) {
	o := roomyOptions(vfs.NewMem())
	o.MemtableBytes = 8 << 20
	db := mustOpen(t, "data", o)
	defer mustClose(t, db)
	for _, k := range keysOfManySteps() {
		if err := db.Put(k.User, nil, NoSync); err != nil {
			t.Fatal(err)
		}
	}
	turns := turnsDuring(func() {
		if err := db.Flush(); err != nil {
			t.Error(err)
		}
	})
	if turns < 150 {
		t.Errorf("others had %d turns", turns)
	}
}
