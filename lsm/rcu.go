package lsm

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// rcu lets a Get use what the current read state points to without touching a shared counter:
// read-copy-update with counted readers (McKenney's sleepable RCU). A reader is inside from enter
// to exit; whoever has unlinked something calls synchronize, after which no reader that could have
// seen it is inside.
//
// Readers count themselves in one of many cells, chosen at random, so that cores do not share a
// cache line. A reference count on the read state costs two contended atomic operations for each
// Get instead.
type rcu struct {
	phase atomic.Uint32
	cells [2][rcuCells]rcuCell

	mu sync.Mutex // one synchronize at a time
}

const rcuCells = 64

type rcuCell struct {
	readers atomic.Int64
	_       [56]byte // a cache line of its own
}

// enter begins a read; the result goes to exit. Reads are short: they hold up reclamation.
func (r *rcu) enter() *rcuCell {
	c := &r.cells[r.phase.Load()&1][rand.Uint32()%rcuCells]
	c.readers.Add(1)
	return c
}

func (c *rcuCell) exit() { c.readers.Add(-1) }

// synchronize returns when every reader that was inside at the call has left. It flips the phase
// twice: a reader that chose its cell before the first flip and counted itself after the cells
// were seen empty is waited for by the second.
func (r *rcu) synchronize() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range 2 {
		old := r.phase.Load() & 1
		r.phase.Store(old ^ 1)
		for i := range r.cells[old] {
			for wait := time.Microsecond; r.cells[old][i].readers.Load() != 0; wait *= 2 {
				time.Sleep(min(wait, time.Millisecond))
			}
		}
	}
}
