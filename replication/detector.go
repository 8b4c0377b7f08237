package replication

import (
	"math"
	"time"
)

// A detector watches the heartbeats of one member and says how unlikely its silence is: accrual
// failure detection (Hayashibara et al., 2004) with exponentially distributed intervals, as in
// Cassandra. It knows nothing of any other member.
type detector struct {
	last   time.Duration // when it was last heard of, in whatever way
	beatAt time.Duration // when its heartbeat last advanced
	mean   time.Duration // of the intervals between heartbeats, the last ones counting most
}

const (
	// phiSuspect is the suspicion from which a member is suspected: at 4 a live one is wrongly
	// suspected once in 10^4 intervals. What follows from a suspicion waits for others to share it.
	phiSuspect = 4.0
	// detectorWeight of a new interval in the mean is one in so many.
	detectorWeight = 16
	// outlier is how many times the mean an interval counts at most.
	outlier = 4
)

// usual is the mean, but at least half the interval at which heartbeats are due, so that a burst
// makes nobody nervous.
func (d *detector) usual(due time.Duration) time.Duration { return max(d.mean, due/2) }

// beat takes in that the member's heartbeat has advanced. Intervals are those between heartbeats:
// a member that also talks about other things beats no faster for it.
func (d *detector) beat(now, due time.Duration) {
	// An outage is no interval: it would make the detector as patient as the outage was long.
	interval := min(now-d.beatAt, outlier*d.usual(due))
	d.mean += (interval - d.mean) / detectorWeight
	d.beatAt = now
	d.heard(now)
}

// heard takes in any sign of life.
func (d *detector) heard(now time.Duration) { d.last = now }

// skip leaves a time out in which this node did not listen. What came in at its end stays: a
// member is never heard of in the future.
func (d *detector) skip(now, stopped time.Duration) {
	d.last = min(d.last+stopped, now)
	d.beatAt = min(d.beatAt+stopped, now)
}

// phi is the suspicion: -log10 of the probability that an interval is as long as the silence.
func (d *detector) phi(now, due time.Duration) float64 {
	return float64(now-d.last) / float64(d.usual(due)) * math.Log10E
}
