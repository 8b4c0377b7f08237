package procs

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestYielder counts the steps, of 100 us but for some, that follow a yield without another, when it
// had to wait a lot before.
func TestYielder(t *testing.T) {
	const step = 100 * time.Microsecond
	for _, c := range []struct {
		took, theirs, step time.Duration
		want               int
	}{
		{step, 0, step, 0},
		{longYield - 1, 0, step, 0},
		{longYield, 0, step, 20},
		{8 * time.Millisecond, 0, step, 80},
		{20 * time.Millisecond, 19 * time.Millisecond, step, 0}, // two others had a turn
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
			y.starved = starvedMost
			began := now
			now = now.Add(c.took)
			y.resume(began, now, c.theirs)
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

// TestYielderPutsUpWithSomeWaiting: turns are for who waits for more than a quarter of the time.
func TestYielderPutsUpWithSomeWaiting(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	for _, c := range []struct {
		name       string
		took, work time.Duration // of each yield, and before it
		want       string        // of ten yields, those that earn a turn
	}{
		{"busy goroutines on all processors", 10 * ms, 50 * us, "..TTTTTTTT"},
		{"many of them", 80 * ms, 50 * us, "..TTTTTTTT"},
		{"on many processors", 3 * ms, 50 * us, "........TT"},
		{"with a turn after each", 10 * ms, 10 * ms, "...TTTTTTT"},
		{"a third of the time", 10 * ms, 20 * ms, ".....TTTTT"},
		{"a quarter", 10 * ms, 30 * ms, ".........."},
		{"others who yield", longYield - 1, 100 * us, ".........."},
	} {
		var y Yielder
		now := time.Unix(1, 0)
		yield := func(work, took time.Duration) string {
			y.turn = 0
			for ; work > 0; work -= stepMax {
				now = now.Add(min(work, stepMax))
				y.due(now)
			}
			began := now
			now = began.Add(took)
			y.resume(began, now, 0)
			return map[bool]string{true: "T", false: "."}[y.turn > 0]
		}
		got := ""
		for range 10 {
			got += yield(c.work, c.took)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		for range 1000 {
			yield(c.work, c.took)
		}
		// All is forgotten after work for 120 ms, and one pause of the machine is nothing.
		if got := yield(120*ms, time.Second); got != "." {
			t.Errorf("%s: a pause of the machine earned a turn", c.name)
		}
		if got := yield(50*us, 10*ms) + yield(50*us, 10*ms); got != ".T" {
			t.Errorf("%s: after a pause of the machine and work: %s", c.name, got)
		}
	}
}

// TestYieldersDoNotEarnTurnsOfEachOther: what runs when this one yields is another Yielder in its
// turn, or it is not.
func TestYieldersDoNotEarnTurnsOfEachOther(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, worked := range []time.Duration{0, time.Hour} {
		for tries := 1; ; tries++ {
			var done sync.WaitGroup
			var ran, ended atomic.Bool
			done.Go(func() {
				ran.Store(true)
				turns.Add(int64(worked))
				for began := time.Now(); time.Since(began) < 8*time.Millisecond; {
				}
				ended.Store(true)
			})
			y := Yielder{starved: starvedMost}
			for !ran.Load() { // now and then the scheduler has this one go on
				y.Yield()
			}
			whole := ended.Load()
			done.Wait()
			if !whole && tries < 1000 {
				continue // it was interrupted, and this one waited for a part of it
			}
			if earned := y.turn > 0; earned != (worked == 0) {
				t.Errorf("beside a turn of %v: %v", worked, y.turn)
			}
			break
		}
	}
}
