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

// Whatever else a member says, and whenever, its intervals are those between its heartbeats.
func TestMeanIsOfHeartbeatsOnly(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 3 * time.Second} {
		d := detector{mean: time.Second}
		var now time.Duration
		for range 200 {
			d.heard(now + every/2)
			now += every
			d.heard(now) // as each message of a heartbeat is
			d.beat(now, time.Second)
		}
		if d.mean < every*95/100 || d.mean > every*105/100 {
			t.Errorf("heartbeats every %v have a mean of %v", every, d.mean)
		}
	}
}

// A burst takes no part of the detector with it: regular intervals are learnt again.
func TestMeanRecoversFromABurst(t *testing.T) {
	d := detector{mean: time.Second}
	var now time.Duration
	for range 1000 {
		d.beat(now, time.Second)
	}
	for range 200 {
		now += time.Second
		d.beat(now, time.Second)
	}
	if d.mean < 950*time.Millisecond {
		t.Errorf("after a burst the mean is stuck at %v", d.mean)
	}
}

func TestSkipHearsNobodyInTheFuture(t *testing.T) {
	const s = time.Second
	before := detector{last: 30 * s, beatAt: 29 * s}
	before.skip(91*s, 60*s)
	if before.last != 90*s || before.beatAt != 89*s {
		t.Errorf("heard before the stop: %+v", before)
	}
	after := detector{last: 91 * s, beatAt: 91 * s}
	after.skip(91*s, 60*s)
	if after.last != 91*s || after.beatAt != 91*s {
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

// A member that regularly stalls for longer than a regular one may is known to do so after a while.
func TestRegularPausesAreLearnt(t *testing.T) {
	for _, n := range []int{3, 9} {
		g := newGossipNet(n, uint64(100+n))
		downs := func(cycles int) (wrong int) {
			for range cycles {
				g.up[0] = false
				g.run(14*time.Second, nil)
				for i := 1; i < n; i++ {
					if g.members[i].table[0].verdict == Down {
						wrong++
					}
				}
				g.up[0] = true
				g.run(6*time.Second, nil)
			}
			return wrong
		}
		first := downs(30)
		later := downs(60)
		t.Logf("%d members: down %d times in the first 30 pauses, %d in the next 60", n, first, later)
		if later > 0 {
			t.Errorf("%d members: pauses are not learnt", n)
		}
	}
}
