package sstable

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	blockOverheadBytes = int64(unsafe.Sizeof(block{}))
	hitStripes         = 32
	maxPassed          = 64 // blocks that the hand passes in one step
)

// Cache bounds the memory of the decoded data blocks of all tables that share it.
//
// There is no lookup here: every Reader has an array with a slot per data block, and a cached block
// is one atomic load away. The Cache keeps the blocks in a ring and sweeps it like a clock when it
// is over budget: a block that was used since the hand last passed is passed once more, another
// leaves its slot. Whoever still holds an evicted block may go on reading it, the collector frees
// it later.
//
// A hit writes to the block only when its mark is not set yet. The mutex is taken to insert and to
// drop, never on a hit. A Cache is safe for concurrent use.
type Cache struct {
	budget  int64
	scratch sync.Pool // *scratch

	hits   [hitStripes]stripe
	misses atomic.Uint64
	pinned atomic.Int64

	mu        sync.Mutex
	hand      *block // the ring; nil when empty
	used      int64
	blocks    int
	evictions uint64
}

// stripe is a counter with a cache line to itself.
type stripe struct {
	n atomic.Uint64
	_ [56]byte
}

// CacheMetrics are counts since the Cache was made, and what it holds now.
type CacheMetrics struct {
	Hits, Misses, Evictions uint64
	Blocks                  int
	UsedBytes               int64 // cached blocks with all they need
	PinnedBytes             int64 // filters, indexes, slots of open tables; not in the budget
	BudgetBytes             int64
}

// NewCache returns a Cache that keeps at most budgetBytes of blocks. A block larger than a quarter
// of it is never kept; with a budget of 0 none is.
func NewCache(budgetBytes int64) *Cache {
	c := &Cache{budget: max(budgetBytes, 0)}
	c.scratch.New = func() any { return new(scratch) }
	return c
}

// Metrics returns a moment's counts.
func (c *Cache) Metrics() CacheMetrics {
	m := CacheMetrics{
		Misses: c.misses.Load(), PinnedBytes: c.pinned.Load(), BudgetBytes: c.budget,
	}
	for i := range c.hits {
		m.Hits += c.hits[i].n.Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.Evictions, m.Blocks, m.UsedBytes = c.evictions, c.blocks, c.used
	return m
}

// hit counts a hit; h, a key's hash, spreads callers over the stripes. One counter for all would be
// the only line that every Get of every core writes; so it is 1 % of a Get.
func (c *Cache) hit(h uint64) { c.hits[h%hitStripes].n.Add(1) }

// touch marks b as used. The mark is read first: a store to a line that other cores read costs them
// a miss each.
func (b *block) touch() {
	if b.used.Load() == 0 {
		b.used.Store(1)
	}
}

// admits reports whether a block with a payload and a table of so many bytes is worth keeping.
func (c *Cache) admits(bytes int) bool { return int64(bytes)+blockOverheadBytes <= c.budget/4 }

// insert puts b in its slot and evicts until the budget holds. It does nothing when another caller
// was faster or the reader was closed.
func (c *Cache) insert(r *Reader, slot *atomic.Pointer[block], b *block) {
	b.bytes = int64(cap(b.data)) + blockOverheadBytes
	b.slot = slot
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.closed || !slot.CompareAndSwap(nil, b) {
		return
	}
	if c.hand == nil {
		b.next, b.prev = b, b
		c.hand = b
	} else { // behind the hand: a full turn until it is looked at
		b.next, b.prev = c.hand, c.hand.prev
		b.prev.next, b.next.prev = b, b
	}
	c.used += b.bytes
	c.blocks++
	for c.used > c.budget {
		c.sweepLocked()
	}
}

// sweepLocked evicts the next block that was not used since the hand last passed. When all of many
// were, it takes the next: a turn over the whole ring would hold everybody up for milliseconds.
func (c *Cache) sweepLocked() {
	for range maxPassed {
		if c.hand.used.Load() == 0 {
			break
		}
		c.hand.used.Store(0)
		c.hand = c.hand.next
	}
	c.evictions++
	c.removeLocked(c.hand)
}

// removeLocked takes b out of the ring and of its slot.
func (c *Cache) removeLocked(b *block) {
	b.slot.Store(nil)
	if b.next == b {
		c.hand = nil
	} else {
		b.prev.next, b.next.prev = b.next, b.prev
		if c.hand == b {
			c.hand = b.next
		}
	}
	b.next, b.prev, b.slot = nil, nil, nil
	c.used -= b.bytes
	c.blocks--
}

// drop evicts all blocks of r and keeps later ones out. It is a no-op the second time. The mutex is
// taken block by block, so that closing a large table holds up nobody.
func (c *Cache) drop(r *Reader) {
	c.mu.Lock()
	closed := r.closed
	r.closed = true
	c.mu.Unlock()
	if closed {
		return
	}
	c.pinned.Add(-r.pinnedBytes)
	for i := range r.slots {
		if r.slots[i].Load() == nil {
			continue
		}
		c.mu.Lock()
		if b := r.slots[i].Load(); b != nil { // not evicted meanwhile
			c.removeLocked(b)
		}
		c.mu.Unlock()
	}
}

// scratch is the memory for a block that is used once.
type scratch struct {
	stored, plain, table []byte
	block                block
}

// maxScratchBytes is the largest buffer that is kept for another use.
const maxScratchBytes = 1 << 20

// trim lets go of what a huge entry left behind.
func (s *scratch) trim() {
	for _, p := range [...]*[]byte{&s.stored, &s.plain, &s.table} {
		if cap(*p) > maxScratchBytes {
			*p = nil
		}
	}
	s.block.data, s.block.table = nil, nil
}

// resize returns a slice of n bytes of any content, p's memory if it is large enough.
func resize(p []byte, n int) []byte {
	if cap(p) < n {
		return make([]byte, n, n+n/4)
	}
	return p[:n]
}
