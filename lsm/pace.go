package lsm

import (
	"math"
	"sync/atomic"
	"time"

	"kvd/compaction"
)

// pacer slows commits down smoothly when flushes or compactions fall behind, so that nobody ever
// waits for a whole one. The delay of each byte is recomputed when the tree changes; commits queue
// for it in virtual time, in which the next free moment is one number.
type pacer struct {
	nanosPerByte atomic.Uint64 // float64 bits; 0 = no delay
	free         atomic.Int64  // nanoseconds since epoch at which the next commit may start
	epoch        time.Time
	waited       atomic.Int64 // nanoseconds, for the metrics

	// Guarded by DB.mu.
	drain     compaction.Drain
	flushRate float64 // bytes per second of the last flush
}

// paceQuantum is the shortest sleep worth its system call; less is carried forward.
const paceQuantum = 200 * time.Microsecond

// wait delays a commit of the given size by its share.
func (p *pacer) wait(bytes int) {
	rate := math.Float64frombits(p.nanosPerByte.Load())
	if rate == 0 {
		return
	}
	now := int64(time.Since(p.epoch))
	for {
		old := p.free.Load()
		next := max(old, now) + int64(rate*float64(bytes))
		if p.free.CompareAndSwap(old, next) {
			if d := time.Duration(next - now); d >= paceQuantum {
				time.Sleep(d)
				p.waited.Add(int64(d))
			}
			return
		}
	}
}

// repaceLocked recomputes the delay from the state of the tree. The caller holds mu.
func (db *DB) repaceLocked() {
	s, p := db.state.Load(), &db.pace
	if s == nil {
		return
	}
	const sample = 1 << 20
	drain := p.drain.Rate() * float64(compactionGoroutines())
	pressure := compaction.Pressure(&s.version.levels, db.opts.Compaction)
	d := compaction.Delay(pressure, sample, drain)
	if p.flushRate > 0 {
		// With one frozen memtable the flush has a whole memtable's time to finish; with two it
		// must keep up.
		waiting := float64(len(db.frozen)) / frozenMax
		d = max(d, compaction.Delay(waiting, sample, p.flushRate))
	}
	p.nanosPerByte.Store(math.Float64bits(float64(d) / sample))
}

// flushedLocked notes a flush of so many bytes of pairs.
func (p *pacer) flushedLocked(bytes uint64, took time.Duration) {
	p.flushRate = float64(bytes) / max(took.Seconds(), 1e-6)
}
