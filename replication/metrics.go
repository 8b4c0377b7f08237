package replication

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// DurationBuckets is the number of buckets of a DurationHistogram.
const DurationBuckets = 25

// BucketBound returns the upper bound of bucket i: 1 µs, 2 µs, 4 µs and so on to 16.8 s. The last
// bucket has no bound; 0 is returned for it.
func BucketBound(i int) time.Duration {
	if i == DurationBuckets-1 {
		return 0
	}
	return time.Microsecond << i
}

// DurationHistogram counts durations by powers of two.
type DurationHistogram struct {
	Buckets [DurationBuckets]uint64 // not cumulative
	Sum     time.Duration
}

// Count returns the number of durations.
func (h *DurationHistogram) Count() (n uint64) {
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

// OpMetrics are the figures of one kind of request since the node was made.
type OpMetrics struct {
	Kind     Kind
	OK       uint64 // answered as asked; a Get that found nothing counts here
	Failed   uint64 // answered with an error
	Duration DurationHistogram
}

// Metrics are a node's counters since it was made. They are read one by one: a request under way
// may be in some and not in others.
type Metrics struct {
	Ops       []OpMetrics // by Kind, ascending
	Malformed uint64      // messages that are none of the protocol
	Refused   uint64      // requests turned away while draining
	Draining  bool
}

// counters are the live form of OpMetrics.
type counters struct {
	ok, failed atomic.Uint64
	nanos      atomic.Int64
	buckets    [DurationBuckets]atomic.Uint64
}

func (c *counters) record(took time.Duration, ok bool) {
	if ok {
		c.ok.Add(1)
	} else {
		c.failed.Add(1)
	}
	c.nanos.Add(int64(took))
	c.buckets[bucketOf(took)].Add(1)
}

// bucketOf returns the first bucket whose bound is at or above d.
func bucketOf(d time.Duration) int {
	if d <= time.Microsecond {
		return 0
	}
	return min(bits.Len64(uint64((d-1)/time.Microsecond)), DurationBuckets-1)
}

func (c *counters) read(k Kind) OpMetrics {
	m := OpMetrics{Kind: k, OK: c.ok.Load(), Failed: c.failed.Load()}
	m.Duration.Sum = time.Duration(c.nanos.Load())
	for i := range c.buckets {
		m.Duration.Buckets[i] = c.buckets[i].Load()
	}
	return m
}
