package replication

import (
	"math"
	"time"
)

// A detector watches the heartbeats of one member and says how unlikely its silence is: accrual
// failure detection (Hayashibara et al., 2004) with exponentially distributed intervals, as in
// Cassandra. It knows nothing of any other member.
type detector struct {
	last time.Duration // when it was last heard of
	mean time.Duration // of the intervals between heartbeats, the last ones counting most
}

const (
	// phiSuspect is the suspicion from which a member is suspected: at 5 a live one is wrongly
	// suspected once in 10^5 intervals. What follows from a suspicion waits for others to share it.
	phiSuspect = 5.0
	// detectorWeight of a new interval in the mean is one in so many.
	detectorWeight = 16
	// outlier is how many times the mean an interval counts at most.
	outlier = 4
)

// beat takes in that the member's heartbeat has advanced.
func (d *detector) beat(now time.Duration) {
	// An outage is no interval: it would make the detector as patient as the outage was long.
	if interval := min(now-d.last, outlier*d.mean); d.mean > 0 {
		d.mean += (interval - d.mean) / detectorWeight
	}
	d.last = now
}

// heard takes in any other sign of life.
func (d *detector) heard(now time.Duration) { d.last = now }

// skip leaves a time out in which this node did not listen. What came in at its end stays: a
// member is never heard of in the future.
func (d *detector) skip(now, stopped time.Duration) { d.last = min(d.last+stopped, now) }

// phi is the suspicion: -log10 of the probability that an interval is as long as the silence. The
// mean counts as at least half the interval of heartbeats, so that a burst makes nobody nervous.
func (d *detector) phi(now, interval time.Duration) float64 {
	mean := max(d.mean, interval/2)
	return float64(now-d.last) / float64(mean) * math.Log10E
}
