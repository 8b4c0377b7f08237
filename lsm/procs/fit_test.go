package procs

import (
	"testing"
	"time"
)

// TestFit is the life of a node with eight processors.
func TestFit(t *testing.T) {
	f := fit{all: 8, now: 8}
	for i, c := range []struct {
		used      float64 // processors
		over      time.Duration
		looks     int
		announced bool
		want      int
	}{
		{0, time.Hour, 1, false, 8}, // idle: nothing is saved by fewer
		{0.4, pauseAll, 2, false, 8},
		{0.4, pauseAll, 1, false, 1}, // that was long enough
		{0.7, pauseFew, 1000, false, 1},
		{0.85, pauseFew, 7, false, 1}, // more than fits, for a moment
		{0.6, pauseFew, 1, false, 1},
		{0.91, pauseFew, 1, false, 8}, // too much
		{1.6, pauseAll, 2, false, 8},
		{7, pauseAll, 1, false, 8}, // the wait begins anew
		{1.6, pauseAll, 2, false, 8},
		{1.6, pauseAll, 1, false, 3},
		{1.6, pauseFew, 100, true, 8}, // work that computes goes on
		{0.4, pauseFew, 100, true, 8},
		{1.6, patience, 1, false, 3},
		{4.4, pauseFew, 1, false, 8},
		{4.4, patience / 2, 1, false, 8},
		{0.4, patience / 2, 1, false, 6}, // for half of the time so many were needed
		{0.4, pauseFew, 7, false, 6},
		{0.4, pauseFew, 1, false, 1},
		{0.4, late, 1, false, 1},
		{0.4, late + 1, 1, false, 8}, // it does not get what it wants, or looks would be in time
		{0.4, patience, 1, false, 1},
		{0.85, pauseFew, 7, false, 1},
		{0.85, pauseFew, 1, false, 2}, // a little more, for long
		{0.01, pauseFew, 7, false, 2},
		{0.01, pauseFew, 1, false, 8}, // idle
		{6.1, pauseAll, 100, false, 8},
	} {
		for range c.looks {
			got := f.look(c.used, c.over, c.announced)
			if got != c.want {
				t.Fatalf("%d: %d processors, want %d, %g in use", i, got, c.want, c.used)
			}
			f.now = got
			if few := f.pause() == pauseFew; few != (got < 8) {
				t.Errorf("%d: with %d processors a pause of %v", i, got, f.pause())
			}
		}
	}
}
