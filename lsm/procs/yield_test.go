package procs

import (
	"testing"
	"time"
)

// TestYielder counts the steps of 100 us that follow a yield without another.
func TestYielder(t *testing.T) {
	const step = 100 * time.Microsecond
	for _, c := range []struct {
		took, step time.Duration
		want       int
	}{
		{step, step, 0},
		{longYield - 1, step, 0},
		{longYield, step, 50},
		{8 * time.Millisecond, step, 80},
		{time.Second, step, 100},                 // everybody else had several turns: one is due
		{time.Second, 20 * time.Millisecond, 10}, // steps that the disk made long, or others
	} {
		var y Yielder
		now := time.Unix(1, 0)
		for range 2 { // what is left of one turn does not add to the next
			if !y.due(now) {
				t.Fatalf("%+v: not due", c)
			}
			began := now
			now = now.Add(c.took)
			y.yielded(began, now)
			got := 0
			for now = now.Add(c.step); y.turn > 0; now = now.Add(c.step) {
				if y.due(now) {
					t.Fatalf("%+v: due in its turn", c)
				}
				got++
			}
			if got != c.want {
				t.Errorf("%+v: %d steps", c, got)
			}
		}
	}
}
