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
		announced bool
		want      int
	}{
		{0, time.Hour, false, 8}, // idle: nothing is saved by fewer
		{0.4, patience / 2, false, 8},
		{0.4, patience / 2, false, 1}, // that was long enough
		{0.7, time.Hour, false, 1},
		{0.85, pauseFew, false, 1}, // more than fits, for a moment
		{0.6, pauseFew, false, 1},
		{0.91, pauseFew, false, 8}, // too much
		{1.6, patience - 1, false, 8},
		{7, pauseAll, false, 8}, // the wait begins anew
		{1.6, patience - 1, false, 8},
		{1.6, 1, false, 3},
		{1.6, time.Hour, true, 8}, // work that computes begins
		{0.4, time.Hour, true, 8},
		{1.6, patience, false, 3},
		{0.4, patience, false, 1},
		{0.85, patience, false, 2}, // a little more, for long
		{0.01, patience, false, 8}, // idle
		{6.1, time.Hour, false, 8},
	} {
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
