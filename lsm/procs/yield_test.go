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
			y.starved, y.yielded = starvedMost, now
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
	const long = 10 * time.Millisecond
	for _, c := range []struct {
		name       string
		took, work time.Duration // of each yield, and from one to the next
		want       string        // of ten yields, those that earn a turn
	}{
		{"busy goroutines on all processors", long, 50 * time.Microsecond, "..TTTTTTTT"},
		{"the same, with a turn after each", long, long, "..TTTTTTTT"},
		{"a third of the time", long, 2 * long, "....TTTTTT"},
		{"a quarter", long, 3 * long, ".........."},
		{"others who yield", 300 * time.Microsecond, 100 * time.Microsecond, ".........."},
		{"one pause of the machine", 0, 100 * time.Microsecond, ".........."},
	} {
		var y Yielder
		got, now := "", time.Unix(1, 0)
		y.yielded = now
		if c.took == 0 {
			y.resume(now, now.Add(15*time.Millisecond), 0)
			now = y.yielded
		}
		for range 10 {
			y.turn = 0
			now = now.Add(c.work)
			y.resume(now, now.Add(c.took), 0)
			now = now.Add(c.took)
			got += map[bool]string{true: "T", false: "."}[y.turn > 0]
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		y.turn, now = 0, now.Add(time.Second)
		if y.resume(now, now.Add(long), 0); y.turn > 0 {
			t.Errorf("%s: a second later it earned a turn", c.name)
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
		y := Yielder{starved: starvedMost, yielded: time.Now()}
		for !ran.Load() { // now and then the scheduler has this one go on
			y.Yield()
		}
		if earned := y.turn > 0; earned != (worked == 0) {
			t.Errorf("beside a turn of %v: %v", worked, y.turn)
		}
		done.Wait()
	}
}
