package rcu

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Domain is a set of readers and what they read. Its zero value is ready, its methods may be called
// concurrently.
//
// Readers count themselves in one of many cells, so that cores seldom share a cache line. A
// reference count on what is read costs two contended atomic operations instead.
//
// The cells exist twice, for odd and for even phases; a reader uses those of the phase it found.
// The phase moves on only when the cells of the one before are empty.
type Domain struct {
	phase atomic.Uint64
	cells [2][cellCount]Cell

	mu sync.Mutex // one moves the phase
}

const (
	cellBits  = 6
	cellCount = 1 << cellBits
)

// Cell is where a reader has counted itself.
type Cell struct {
	readers atomic.Int64
	_       [56]byte // a cache line of its own
}

// Enter begins a read. Reads are short: they hold up reclamation.
func (d *Domain) Enter() *Cell {
	c := &d.cells[d.phase.Load()&1][choose()]
	c.readers.Add(1)
	return c
}

// choose gives a goroutine the same cell as a rule, by the address of its stack: the line of that
// cell stays with its core. Tried: a random cell, which another core has used last half of the
// time; with cores that share no cache a whole Get that finds nothing took twice as long.
func choose() uint64 {
	const minStackBits = 11
	var here byte
	stack := uint64(uintptr(unsafe.Pointer(&here)) >> minStackBits)
	return stack * 0x9e3779b97f4a7c15 >> (64 - cellBits)
}

// Exit ends the read that Enter began.
func (c *Cell) Exit() { c.readers.Add(-1) }

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
		empty := d.emptyLocked((phase + 1) & 1)
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

func (d *Domain) emptyLocked(set uint64) bool {
	for i := range d.cells[set] {
		if d.cells[set][i].readers.Load() != 0 {
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
