package procs

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestYielder counts the steps, of 100 us but for some, that follow a yield without another.
func TestYielder(t *testing.T) {
	const step = 100 * time.Microsecond
	for _, c := range []struct {
		took, theirs, step time.Duration
		want               int
	}{
		{step, 0, step, 0},
		{longYield - 1, 0, step, 0},
		{longYield, 0, step, 50},
		{8 * time.Millisecond, 0, step, 80},
		{20 * time.Millisecond, 18 * time.Millisecond, step, 0}, // two others had a turn
		{20 * time.Millisecond, 12 * time.Millisecond, step, 80},
		{time.Second, 0, 900 * time.Microsecond, 12},
		{time.Second, 0, step, 100},                 // everybody else had several: one is due
		{time.Second, 0, 20 * time.Millisecond, 10}, // steps that the disk made long, or others
	} {
		var y Yielder
		now := time.Unix(1, 0)
		for range 2 { // what is left of one turn does not add to the next
			if !y.due(now) {
				t.Fatalf("%+v: not due", c)
			}
			began := now
			now = now.Add(c.took)
			y.yielded(began, now, c.theirs)
			got, before := 0, turns.Load()
			for now = now.Add(c.step); y.turn > 0; now = now.Add(c.step) {
				if y.due(now) {
					t.Fatalf("%+v: due in its turn", c)
				}
				got++
			}
			if got != c.want {
				t.Errorf("%+v: %d steps", c, got)
			}
			worked := time.Duration(turns.Load() - before)
			if worked != time.Duration(got)*min(c.step, stepMax) {
				t.Errorf("%+v: others are told of %v", c, worked)
			}
		}
	}
}

// TestYieldersDoNotEarnTurnsOfEachOther: what runs when this one yields is another Yielder in its
// turn, or it is not.
func TestYieldersDoNotEarnTurnsOfEachOther(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, worked := range []time.Duration{0, time.Hour} {
		var done sync.WaitGroup
		var ran atomic.Bool
		done.Go(func() {
			ran.Store(true)
			turns.Add(int64(worked))
			for began := time.Now(); time.Since(began) < 8*time.Millisecond; {
			}
		})
		var y Yielder
		for !ran.Load() { // now and then the scheduler has this one go on
			y.Yield()
		}
		if earned := y.turn > 0; earned != (worked == 0) {
			t.Errorf("beside a turn of %v: %v", worked, y.turn)
		}
		done.Wait()
	}
}
