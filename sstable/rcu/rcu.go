package rcu

import (
	"sync"
	"sync/atomic"
	"time"
)

// Domain is a set of readers and what they read. Its zero value is ready, its methods may be called
// concurrently.
//
// Readers count themselves in a Counter. A reference count on what is read costs two contended
// atomic operations instead.
//
// There are two, for odd and for even phases; a reader uses that of the phase it found. The phase
// moves on only when nobody is left in the one before.
type Domain struct {
	phase  atomic.Uint64
	inside [2]Counter

	mu sync.Mutex // one moves the phase
}

// Enter begins a read. Reads are short: they hold up reclamation.
func (d *Domain) Enter() *Cell {
	c := &d.inside[d.phase.Load()&1].cells[choose()]
	c.n.Add(1)
	return c
}

// Exit ends the read that Enter began.
func (c *Cell) Exit() { c.n.Add(-1) }

// Mark is asked for after something was unlinked. When the mark has passed, no reader that could
// have seen it is inside.
//
// Three moves of the phase: the first may have looked at the cells before the unlinking. The two
// after it look at both sets of cells, one of which counts each reader that was inside; also one
// that chose its cell long before it counted itself there.
func (d *Domain) Mark() uint64 { return d.phase.Load() + 3 }

// Passed reports whether a mark has passed, and helps it along. It never waits.
func (d *Domain) Passed(mark uint64) bool {
	for d.phase.Load() < mark {
		if !d.mu.TryLock() {
			return false
		}
		phase := d.phase.Load()
		empty := d.inside[(phase+1)&1].Sum() == 0 // no cell is ever negative
		if empty {
			d.phase.Store(phase + 1)
		}
		d.mu.Unlock()
		if !empty {
			return false
		}
	}
	return true
}

// Synchronize returns when every reader that was inside at the call has left.
func (d *Domain) Synchronize() {
	mark := d.Mark()
	for wait := time.Microsecond; !d.Passed(mark); wait = min(2*wait, time.Millisecond) {
		time.Sleep(wait)
	}
}
