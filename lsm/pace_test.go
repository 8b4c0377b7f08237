package lsm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvd/compaction"
	"kvd/lsm/vfs"
)

// On a slow disk a memtable lasts for long, and so did a delay that nothing asked for any more.
func TestDelayedWriterLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", Options{FS: vfs.NewMem()})
		put := func() {
			t.Helper()
			if err := db.Put([]byte("k"), make([]byte, 1000), NoSync); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			db.pace.nanosPerByte.Store(math.Float64bits(1e5)) // 100 ms for each put
			time.Sleep(2 * repaceAfter)
			began := time.Now()
			if put(); db.pace.on() || time.Since(began) > 0 {
				t.Errorf("an empty tree delays writers, by %v", time.Since(began))
			}
			db.pace.nanosPerByte.Store(math.Float64bits(1e5))
			for range 5 {
				put()
			}
			if !db.pace.on() {
				t.Error("looked at again before the time")
			}
		}
		mustClose(t, db)
	})
}

// Writers who had queued for a delay slept on when it was over, and so did those who came later.
func TestLiftedDelayIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", Options{FS: vfs.NewMem()})
		defer mustClose(t, db)
		delayed := func() {
			db.pace.looked.Store(int64(time.Since(db.pace.epoch))) // keep the delay that is set here
			db.pace.nanosPerByte.Store(math.Float64bits(1))
		}
		began := time.Now()
		delayed()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { _ = db.awaitPace(t.Context(), int(paceShareMax)) })
		}
		time.Sleep(paceShareMax / 2)
		db.mu.Lock()
		db.repaceLocked() // the tree is empty
		db.mu.Unlock()
		wg.Wait()
		if took := time.Since(began); took > paceShareMax/2+paceLook {
			t.Errorf("who waited went on after %v", took)
		}
		delayed()
		again := time.Now()
		err := db.awaitPace(t.Context(), int(paceQuantum))
		if err != nil || time.Since(again) > paceQuantum {
			t.Errorf("who came later waited %v: %v", time.Since(again), err)
		}
	})
}

// When every write had its own short sleep, the price of pacing was in the p99 of all of them.
func TestDelayedWritersSleepSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", Options{FS: vfs.NewMem()})
		defer mustClose(t, db)
		const delay, puts = 10 * time.Microsecond, 10_000
		began, waited := time.Now(), 0
		for range puts {
			db.pace.looked.Store(int64(time.Since(db.pace.epoch))) // keep the delay that is set here
			at := time.Now()
			db.pace.nanosPerByte.Store(math.Float64bits(1))
			if err := db.awaitPace(t.Context(), int(delay)); err != nil {
				t.Fatal(err)
			}
			if time.Since(at) > 0 {
				waited++
			}
		}
		took, all := time.Since(began), delay*puts
		if want := int(all / paceQuantum); waited < want-1 || waited > want {
			t.Errorf("%d of %d writes waited, want %d", waited, puts, want)
		}
		if took < all-paceQuantum || took > all {
			t.Errorf("%d writes of %v each took %v", puts, delay, took)
		}
	})
}

// Callers with deadlines, who ask again when they have waited in vain, waited behind their own
// writes of before, which nobody waited for any more: hardly one came in time.
func TestWritesNobodyWaitsForAreNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", Options{FS: vfs.NewMem()})
		defer mustClose(t, db)
		const callers, share, patience, long = 8, 50 * time.Millisecond, 300 * time.Millisecond,
			10 * time.Second
		var done, late atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		for i := range callers {
			wg.Go(func() {
				var b Batch
				for n := 0; time.Since(began) < long; n++ {
					b.Reset()
					b.Put(fmt.Appendf(nil, "%d/%d", i, n), []byte("v"))
					db.pace.looked.Store(int64(time.Since(db.pace.epoch))) // keep the delay:
					db.pace.nanosPerByte.Store(math.Float64bits(float64(share) / float64(len(b.data))))
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					asked := time.Now()
					err := db.ApplyContext(ctx, &b, NoSync)
					cancel()
					_, missing := db.Get(fmt.Appendf(nil, "%d/%d", i, n))
					there := missing == nil
					switch {
					case err == nil && there && time.Since(asked) <= patience-paceMargin:
						done.Add(1)
					case errors.Is(err, ErrTooLate) && !there && time.Since(asked) <= patience+paceLook:
						late.Add(1)
						time.Sleep(time.Millisecond)
					default:
						t.Errorf("after %v: %v, there: %v", time.Since(asked), err, there)
					}
				}
			})
		}
		wg.Wait()
		if most := int64(long / share); done.Load() < most*9/10 || late.Load() == 0 {
			t.Errorf("%d of at most %d writes were done, %d came too late", done.Load(), most, late.Load())
		}
	})
}

// A caller that gives up while it waits has written nothing, and nobody waits for its turn.
func TestWriterGivesUpItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", Options{FS: vfs.NewMem()})
		defer mustClose(t, db)
		db.pace.looked.Store(int64(time.Since(db.pace.epoch)))
		db.pace.nanosPerByte.Store(math.Float64bits(float64(paceShareMax)))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(paceShareMax/2, cancel)
		var b Batch
		b.Put([]byte("k"), []byte("v"))
		free := db.pace.free.Load()
		if err := db.ApplyContext(ctx, &b, NoSync); !errors.Is(err, ErrTooLate) {
			t.Errorf("given up: %v", err)
		}
		if got := db.pace.free.Load(); got > free+int64(paceShareMax/2) {
			t.Errorf("the next turn is in %v", time.Duration(got))
		}
		if _, err := db.Get([]byte("k")); !errors.Is(err, ErrNotFound) {
			t.Errorf("it is there: %v", err)
		}
	})
}

// A flush that took twice as long as the one before let all writers stand still for the difference.
// Here processors take no time, only a table's sync does and what the pacer adds to writes.
func TestLateFlushStopsNobody(t *testing.T) {
	for _, usual := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			var flushes atomic.Int32
			fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
				if o.Kind == vfs.OpSync && strings.HasSuffix(o.Name, tableSuffix) {
					time.Sleep(usual) // a flush: there is no compaction
					if flushes.Add(1)%5 == 0 {
						time.Sleep(usual)
					}
				}
				return nil
			})
			db := mustOpen(t, "data", Options{FS: fsys, MemtableBytes: 1 << 20,
				Compaction: compaction.Config{LevelZeroTrigger: 1 << 20}})
			worst := time.Duration(0)
			for i := range 40_000 {
				began := time.Now()
				if err := db.Put(fmt.Appendf(nil, "%08d", i), make([]byte, 1000), NoSync); err != nil {
					t.Fatal(err)
				}
				if flushes.Load() > 3 { // nobody knows before how long one takes
					worst = max(worst, time.Since(began))
				}
			}
			if n := flushes.Load(); n < 20 || worst > paceQuantum+2*time.Millisecond {
				t.Errorf("%d flushes of %v or twice that; the longest write took %v", n, usual, worst)
			}
			mustClose(t, db)
		})
	}
}
