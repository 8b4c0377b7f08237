package bench

import (
	"math"
	"sync"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	longest = int64(3600e9) // ns: what a histogram can tell apart; longer counts as this

	samplesHeld = 128        // by a worker before it merges them
	samplesAge  = int64(1e8) // ns after which it merges them anyway

	// maxIntervals bounds the series: when it is full, neighbours merge and intervals double.
	maxIntervals = 1024
)

// sample is one successful operation.
type sample struct {
	end, took int64 // ns; end is since the phase began
	entries   int
	bytes     int
	kind      Kind
	missing   bool
}

// tally is all operations of one kind.
type tally struct {
	took                          *hdrhistogram.Histogram // ns
	ops, failed, missing, entries uint64
	bytes                         uint64
	sum, max                      int64 // ns
}

// interval is all operations that ended in one stretch of time.
type interval struct {
	took        *hdrhistogram.Histogram // ns, 2 digits
	ops, failed uint64
	max         int64
}

// recorder collects the samples of all workers. Its methods may be called from any goroutine; the
// workers come by once per samplesHeld operations. (A histogram per worker and kind cost 220 KB
// each and a merge of all of them per second, for the same 10 ns per sample.)
type recorder struct {
	mu     sync.Mutex
	kinds  [kindCount]tally
	series []*interval
	width  int64 // ns per interval
	late   *hdrhistogram.Histogram
	first  error
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds, r.series, r.width = [kindCount]tally{}, nil, 1e9
	r.late, r.first = nil, nil
}

func (r *recorder) merge(samples []sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range samples {
		s := &samples[i]
		took := min(max(s.took, 1), longest)
		k := r.kindLocked(s.kind)
		k.ops++
		k.entries += uint64(s.entries)
		k.bytes += uint64(s.bytes)
		k.sum += s.took
		k.max = max(k.max, s.took)
		if s.missing {
			k.missing++
		}
		_ = k.took.RecordValue(took) // in bounds by construction, as below
		v := r.intervalLocked(s.end)
		v.ops++
		v.max = max(v.max, s.took)
		_ = v.took.RecordValue(took)
	}
}

func (r *recorder) kindLocked(kind Kind) *tally {
	k := &r.kinds[kind]
	if k.took == nil {
		k.took = hdrhistogram.New(1, longest, 3)
	}
	return k
}

func (r *recorder) intervalLocked(end int64) *interval {
	if r.width == 0 {
		r.width = 1e9
	}
	for end/r.width >= maxIntervals {
		r.halveLocked()
	}
	i := int(end / r.width)
	for len(r.series) <= i {
		r.series = append(r.series, &interval{took: hdrhistogram.New(1, longest, 2)})
	}
	return r.series[i]
}

// halveLocked merges neighbours of the series.
func (r *recorder) halveLocked() {
	half := r.series[:0]
	for i := 0; i < len(r.series); i += 2 {
		a := r.series[i]
		if i+1 < len(r.series) {
			a.add(r.series[i+1])
		}
		half = append(half, a)
	}
	clear(r.series[len(half):])
	r.series, r.width = half, 2*r.width
}

func (v *interval) add(o *interval) {
	v.took.Merge(o.took)
	v.ops, v.failed, v.max = v.ops+o.ops, v.failed+o.failed, max(v.max, o.max)
}

// failed counts an operation that ended with an error. Its time is not a latency.
func (r *recorder) failed(kind Kind, end int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kindLocked(kind).failed++
	r.intervalLocked(end).failed++
	if r.first == nil {
		r.first = err
	}
}

// lag records by how much the open loop woke too late.
func (r *recorder) lag(ns int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.late == nil {
		r.late = hdrhistogram.New(1, longest, 2)
	}
	_ = r.late.RecordValue(min(max(ns, 1), longest))
}

// second is what ended in the i-th second, or in the longer interval around it.
func (r *recorder) second(i int64) Interval {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := i * 1e9
	v := r.intervalLocked(at)
	return v.shown(at/r.width*r.width, r.width)
}

func (v *interval) shown(at, width int64) Interval {
	seconds := float64(width) / 1e9
	return Interval{
		StartSeconds: float64(at) / 1e9,
		Seconds:      seconds,
		OpsPerSecond: float64(v.ops) / seconds,
		Errors:       v.failed,
		P50Micros:    micros(v.took.ValueAtQuantile(50)),
		P99Micros:    micros(v.took.ValueAtQuantile(99)),
		MaxMicros:    micros(v.max),
	}
}

// micros is ns in µs, to the nanosecond.
func micros(ns int64) float64 { return math.Round(float64(ns)) / 1e3 }
