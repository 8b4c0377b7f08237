package lsm

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"kvd/compaction"
	"kvd/lsm/procs"
)

// pacer slows commits down smoothly when flushes or compactions fall behind, so that nobody ever
// waits for a whole one. The delay of each byte is recomputed when the tree changes; commits queue
// for it in virtual time, in which the next free moment is one number.
type pacer struct {
	nanosPerByte atomic.Uint64 // float64 bits; 0 = no delay
	free         atomic.Int64  // nanoseconds since epoch at which the next commit may start
	epoch        time.Time
	waited       atomic.Int64 // nanoseconds, for the metrics
	looked       atomic.Int64 // nanoseconds since epoch, the last time a writer had it recomputed

	// Guarded by DB.mu.
	drain      compaction.Drain
	flushRate  float64   // bytes per second of the last flush
	flushBegan time.Time // of the one that runs, or the last
}

const (
	// paceQuantum is the shortest sleep; less is carried forward. Few writers wait when they wait
	// seldom and for long. Overwriting 4 GB of 1 KB values with 10 ms, p99 is 1 to 2 us, p99.9 98
	// to 189 us, and p99.99 10 ms. With 200 us, of which waking up is the greater part, it was 253,
	// 830 to 1110, and 1.7 to 3.4 ms; with 5 ms p99.9 was 890 us. Overwriting 20 GB, where more
	// writers wait, p99.9 is 57 to 160 us with 10 ms and 61 to 99 with 15.
	paceQuantum = 15 * time.Millisecond
	// paceShareMax bounds the share of one commit, however large, so that nobody waits long for
	// what was meant to keep waits short.
	paceShareMax = 100 * time.Millisecond
	// paceLook is how long a sleep lasts before it looks whether there is still a reason for it.
	paceLook = 20 * time.Millisecond
	// paceMargin is how long before its caller's deadline a turn must come to be taken. Without,
	// callers who ask again at once take each turn when it is just within their time, and nearly
	// all of them miss it by what the sleeps and the way of the answer take.
	paceMargin = 25 * time.Millisecond
	// repaceAfter is how often a writer that is delayed has the delay recomputed: on a slow disk a
	// memtable lasts for ten seconds, in which a compaction gets on.
	repaceAfter = time.Second
)

// on reports whether commits are delayed at all.
func (p *pacer) on() bool { return p.nanosPerByte.Load() != 0 }

// awaitPace delays a commit of the given size by its share. Who would wait for longer than the
// caller does leaves the queue. Otherwise writes wait behind those of callers long gone: of a node
// whose disk had no room to compact, with callers of 0.1 to 1 s, 16 were acknowledged and 840 not.
func (db *DB) awaitPace(ctx context.Context, bytes int) error {
	p := &db.pace
	now := int64(time.Since(p.epoch))
	then := p.looked.Load()
	if now-then > int64(repaceAfter) && p.looked.CompareAndSwap(then, now) {
		db.mu.Lock()
		db.repaceLocked()
		db.mu.Unlock()
		now = int64(time.Since(p.epoch))
	}
	rate := math.Float64frombits(p.nanosPerByte.Load())
	share := min(int64(rate*float64(bytes)), int64(paceShareMax))
	deadline, limited := ctx.Deadline()
	var d time.Duration
	for {
		old := p.free.Load()
		next := max(old, now) + share
		d = time.Duration(next - now)
		if limited && d >= paceQuantum && time.Until(deadline) < d+paceMargin {
			return fmt.Errorf("%w: its turn would come in %v", ErrTooLate, d)
		}
		if p.free.CompareAndSwap(old, next) {
			break
		}
	}
	if d < paceQuantum {
		return nil
	}
	turn := time.Now().Add(d)
	for left := d; left > 0 && p.on() && db.failure.Load() == nil; left = time.Until(turn) {
		if ctx.Err() != nil {
			// Of another queue, should this one have ended meanwhile; that costs it one share.
			p.free.Add(-share)
			return fmt.Errorf("%w: its turn would have come in %v", ErrTooLate, left)
		}
		step := min(left, paceLook)
		time.Sleep(step)
		p.waited.Add(int64(step))
	}
	return nil
}

// repaceLocked recomputes from the state of the tree the delay, and how many goroutines may
// merge. The caller holds mu.
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
	if workers := compaction.Workers(pressure, procs.All()); workers != db.workersMax {
		db.workersMax = workers
		db.work.Broadcast()
	}
	// As if each worker finds something to do. With many processors this is too much, and an
	// overload settles at a higher pressure.
	drain := p.drain.Rate() * float64(db.workersMax)
	d := compaction.Delay(pressure, sample, drain)
	if p.flushRate > 0 && len(db.frozen) > 0 {
		// With one frozen memtable the flush has a whole memtable's time to finish. With two it
		// gets twice the time that it seems to take, because on a busy disk one does take twice as
		// long as another, and writers stood still for up to 160 ms. That costs nothing: it has
		// work until the memtable is full.
		rate := float64(db.opts.MemtableBytes) / max(time.Since(p.flushBegan).Seconds(), 1e-6)
		waiting := float64(len(db.frozen)) / frozenMax
		d = max(d, compaction.Delay(waiting, sample, min(rate, p.flushRate)/2))
	}
	p.nanosPerByte.Store(math.Float64bits(float64(d) / sample))
	if d == 0 {
		p.free.Store(0) // who queued for the old delay is not to be waited for by those who come
	}
	db.watchCalmLocked()
}

// flushedLocked notes a flush of so many bytes of pairs.
func (p *pacer) flushedLocked(bytes uint64, took time.Duration) {
	p.flushRate = float64(bytes) / max(took.Seconds(), 1e-6)
}
