package lsm

import (
	"math"
	"runtime"
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

const (
	// paceQuantum is the shortest sleep worth its system call; less is carried forward.
	paceQuantum = 200 * time.Microsecond
	// paceShareMax bounds the share of one commit, however large, so that nobody waits long for
	// what was meant to keep waits short.
	paceShareMax = 100 * time.Millisecond
	// paceLook is how long a sleep lasts before it looks whether writes are refused by now.
	paceLook = 20 * time.Millisecond
)

// on reports whether commits are delayed at all.
func (p *pacer) on() bool { return p.nanosPerByte.Load() != 0 }

// awaitPace delays a commit of the given size by its share.
func (db *DB) awaitPace(bytes int) {
	p := &db.pace
	rate := math.Float64frombits(p.nanosPerByte.Load())
	share := min(int64(rate*float64(bytes)), int64(paceShareMax))
	now := int64(time.Since(p.epoch))
	var d time.Duration
	for {
		old := p.free.Load()
		next := max(old, now) + share
		if p.free.CompareAndSwap(old, next) {
			d = time.Duration(next - now)
			break
		}
	}
	if d < paceQuantum {
		return
	}
	for d > 0 && db.failure.Load() == nil { // a refusal is not to be waited for
		step := min(d, paceLook)
		time.Sleep(step)
		p.waited.Add(int64(step))
		d -= step
	}
}

// repaceLocked recomputes from the state of the tree the delay, and how many compactions may run.
// The caller holds mu.
func (db *DB) repaceLocked() {
	s, p := db.state.Load(), &db.pace
	if s == nil {
		return
	}
	const sample = 1 << 20
	running := make([]compaction.Progress, 0, 8)
	for m := range db.merges {
		running = append(running, compaction.Progress{Job: &m.Job, Read: m.read.Load()})
	}
	pressure := compaction.Pressure(&s.version.levels, db.opts.Compaction, running)
	if workers := compaction.Workers(pressure, runtime.GOMAXPROCS(0)); workers != db.workersMax {
		db.workersMax = workers
		db.work.Broadcast()
	}
	// As if each worker finds something to do. With many processors this is too much, and an
	// overload settles at a higher pressure.
	drain := p.drain.Rate() * float64(db.workersMax)
	d := compaction.Delay(pressure, sample, drain)
	if p.flushRate > 0 {
		// With one frozen memtable the flush has a whole memtable's time to finish; with two it
		// must keep up.
		waiting := float64(len(db.frozen)) / frozenMax
		d = max(d, compaction.Delay(waiting, sample, p.flushRate))
	}
	p.nanosPerByte.Store(math.Float64bits(float64(d) / sample))
	db.watchCalmLocked()
}

// flushedLocked notes a flush of so many bytes of pairs.
func (p *pacer) flushedLocked(bytes uint64, took time.Duration) {
	p.flushRate = float64(bytes) / max(took.Seconds(), 1e-6)
}
