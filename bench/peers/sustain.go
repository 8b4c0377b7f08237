package main

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// slowWrite is how long a write takes that a caller would call a stall.
const slowWrite = 50 * time.Millisecond

// steady is what one writer saw that overwrote random keys for long.
type steady struct {
	outcome
	windows       []float64 // operations per second of each minute or tenth
	tail, longest float64   // p99.9 and the longest write, microseconds
	slow          []span    // writes that took longer than slowWrite
	slowWrites    float64   // their number
}

// Suffixes of the rows beside the mean rate of a sustained overwrite. The debt of compaction shows
// in the third minute at the earliest: the first ones fill the memtables and the upper levels.
const (
	thirdSuffix   = "-third"
	lastSuffix    = "-last"
	tailSuffix    = "-p99.9"
	longestSuffix = "-max"
	quietSuffix   = "-quiet" // the mean again, with the time until background work was over
)

// sustainedRows are the names of all rows of a sustained overwrite.
func sustainedRows(name string) []string {
	return []string{
		name, name + quietSuffix, name + thirdSuffix, name + lastSuffix, name + tailSuffix,
		name + longestSuffix,
	}
}

func sustainedLines(name, title string) []row {
	return []row{
		{name, title, false},
		{name + quietSuffix, title + " till compaction is quiet", false},
		{name + thirdSuffix, title + ": third minute", false},
		{name + lastSuffix, title + ": last minute", false},
		{name + tailSuffix, title + ": p99.9", true},
		{name + longestSuffix, title + ": longest", true},
	}
}

// sustainWindow is a minute, or a tenth of a run that is too short for minutes.
func sustainWindow(d time.Duration) time.Duration { return min(time.Minute, d/10) }

// overwriteFor overwrites random keys for a time, timing each write.
func (d *data) overwriteFor(t store, version uint64, limit time.Duration) (steady, error) {
	latency, longest := hdrhistogram.New(1, int64(time.Hour), 3), time.Duration(0)
	window := sustainWindow(limit)
	var out steady
	out.windows = make([]float64, limit/window)
	var err error
	out.outcome, err = parallel(1, func(_ int, start time.Time) (done uint64, err error) {
		key, value := d.buffers()
		random := d.random(5000)
		for time.Since(start) < limit {
			n := d.space.Loaded(random.Uint64N(d.keys))
			key = d.space.AppendKey(key[:0], n)
			value = d.values.Append(value[:0], n, version)
			before := time.Now()
			if err := t.Put(key, value); err != nil {
				return done, err
			}
			after := time.Now()
			done++
			took := after.Sub(before)
			_ = latency.RecordValue(int64(took)) // bounded by the hour
			longest = max(longest, took)
			if took > slowWrite {
				from := seconds(before)
				out.slow = append(out.slow, span{from, from + took.Seconds()})
			}
			if at := int(after.Sub(start) / window); at < len(out.windows) {
				out.windows[at] += 1 / window.Seconds()
			}
		}
		return done, nil
	})
	out.longest, out.slowWrites = micros(longest), float64(len(out.slow))
	out.tail = min(float64(latency.ValueAtQuantile(99.9))/1e3, out.longest) // buckets round up
	return out, err
}

func micros(d time.Duration) float64 { return d.Seconds() * 1e6 }

// showSteady emits the rows of a sustained overwrite but the mean.
func (s *session) showSteady(name string, o steady) {
	if len(o.windows) > 2 {
		s.note("%s: %.0f a second, every %v", name, o.windows, sustainWindow(s.Sustain))
		third, last := o.windows[2], o.windows[len(o.windows)-1]
		s.show(name+thirdSuffix, third)
		s.show(name+lastSuffix, last)
		if third > 0 {
			s.fact(factSteady, 100*last/third)
		}
	}
	s.show(name+tailSuffix, o.tail)
	s.show(name+longestSuffix, o.longest)
	s.fact(factSlow, o.slowWrites)
}

// stageSustained loads a tree and overwrites it for long.
func (s *session) stageSustained(open opener) error {
	if !s.wants(sustainedRows(rowSustained)...) {
		return nil
	}
	return s.fresh(open, s.base, "sustained", func(t store, dir string) error {
		if err := s.loadLarge(t, dir, ""); err != nil {
			return err
		}
		return s.overwriteLarge(t, dir, rowSustained)
	})
}
