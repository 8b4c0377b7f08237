package replication

import (
	"math"
	"testing"
	"time"
)

func TestPhi(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name         string
		mean, silent time.Duration
		want         float64
	}{
		{"just heard", s, 0, 0},
		{"one mean is 1/e", s, s, math.Log10E},
		{"one in ten", s, 2302585093, 1},
		{"one in a hundred thousand", s, 11512925465, 5},
		{"twice the mean, half the suspicion", 2 * s, 11512925465, 2.5},
		{"a burst counts as half the interval", time.Millisecond, 2 * s, 4 * math.Log10E},
	} {
		d := detector{last: 100 * s, mean: c.mean}
		if got := d.phi(100*s+c.silent, s); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
	}
}

func TestSkipHearsNobodyInTheFuture(t *testing.T) {
	const s = time.Second
	before := detector{last: 30 * s}
	before.skip(91*s, 60*s)
	if before.last != 90*s {
		t.Errorf("heard before the stop: %+v", before)
	}
	after := detector{last: 91 * s}
	after.skip(91*s, 60*s)
	if after.last != 91*s {
		t.Errorf("heard at the end of it: %+v", after)
	}
}

// The message that a process wakes up to comes before its tick. If its sender dies at that moment,
// that is seen as soon as at any other.
func TestStoppedProcessSeesTheNextCrash(t *testing.T) {
	g := newGossipNet(5, 8)
	g.run(30*time.Second, nil)
	g.up[0] = false
	g.run(time.Minute, nil)
	g.up[0] = true
	g.send(1, 0, false)
	g.up[1] = false
	g.run(30*time.Second, nil)
	if v := g.members[0].table[1].verdict; v != Down {
		t.Errorf("30 s after its crash it is %v", v)
	}
}

// Before anybody can answer it, a process that was stopped takes nobody for down.
func TestStoppedProcessBelievesInOthersAtOnce(t *testing.T) {
	for _, n := range []int{2, 3, 5, 50} {
		g := newGossipNet(n, uint64(200+n))
		g.run(30*time.Second, nil)
		g.up[0] = false
		g.run(time.Minute, nil)
		m := g.members[0]
		m.Tick(g.now)
		for j := 1; j < n; j++ {
			if m.table[j].verdict != Alive {
				t.Errorf("%d members: it takes n%02d for %v", n, j, m.table[j].verdict)
			}
		}
	}
}
