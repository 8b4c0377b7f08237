package bench

import (
	"math"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"

	"kvd/lsm/procs"
)

// usage is what this process consumed so far, or between two moments.
type usage struct {
	at        time.Time
	wall, cpu time.Duration // cpu without what was spent in waiting for packets
	mallocs   uint64
	waits     []uint64 // how many goroutines waited how long for a processor, by bucket
	bounds    []float64
}

const schedulerMetric = "/sched/latencies:seconds"

func readUsage() usage {
	u := usage{at: time.Now()}
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		u.cpu = time.Duration(r.Utime.Nano()+r.Stime.Nano()) - procs.PolledSoFar()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.mallocs = m.Mallocs
	s := []metrics.Sample{{Name: schedulerMetric}}
	metrics.Read(s)
	if s[0].Value.Kind() == metrics.KindFloat64Histogram {
		h := s[0].Value.Float64Histogram()
		u.waits, u.bounds = h.Counts, h.Buckets
	}
	return u
}

// since is what was consumed from before to u.
func (u usage) since(before usage) usage {
	u.wall = u.at.Sub(before.at)
	u.cpu -= before.cpu
	u.mallocs -= before.mallocs
	for i := range min(len(u.waits), len(before.waits)) {
		u.waits[i] -= before.waits[i]
	}
	return u
}

// busy is the share of the processors open to this process that it kept busy.
func (u usage) busy() float64 {
	if u.wall <= 0 {
		return 0
	}
	// What is polled for is told a little before the system counts it.
	return max(0, float64(u.cpu)/float64(u.wall)/float64(procs.All()))
}

// wait is the q-quantile of the times that goroutines were ready and waited for a processor.
func (u usage) wait(q float64) time.Duration {
	var total, seen uint64
	for _, n := range u.waits {
		total += n
	}
	for i, n := range u.waits {
		if seen += n; total > 0 && float64(seen) >= q*float64(total) {
			return bound(u.bounds[i], u.bounds[i+1])
		}
	}
	return 0
}

// bound is the upper end of a bucket, or the lower one where it has no upper.
func bound(lo, hi float64) time.Duration {
	if math.IsInf(hi, 1) {
		hi = lo
	}
	return time.Duration(hi * 1e9)
}
