package sstable

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"kvd/sstable/offheap"
	"kvd/sstable/rcu"
)

// Cache bounds the memory of the decoded data blocks of all tables that share it.
//
// There is no lookup here: every Reader has an array with a slot per data block, and a cached block
// is one atomic load away. A hit writes to the block only when its mark is not set yet.
//
// Its memory is one piece outside the Go heap: the collector neither scans it nor lets garbage grow
// to the same size. Blocks lie in it as in a log (cachelog.go). A new one is copied to the head; at
// the tail a block that was used since it came is copied to the head once more, and another leaves
// its slot. That is the order of a clock, and no space is ever lost between blocks of different
// sizes.
//
// Whoever reads a block is inside Readers, or has pinned it there: what was evicted is overwritten
// only when all readers have left that were inside then, and never while it is pinned.
//
// The mutex is taken to insert, which does not wait for it, and to drop, never on a hit. A Cache is
// safe for concurrent use.
type Cache struct {
	budget  int64
	scratch sync.Pool // *scratch
	readers rcu.Domain

	hits, misses rcu.Counter // each Get that reads a block writes one
	pinned       atomic.Int64
	made         time.Time
	hastyUntil   atomic.Int64 // nanoseconds after made: no miss yields before
	patient      bool         // of tests: no yield is too long

	mu        sync.Mutex
	log       cacheLog
	owners    map[uint32]*Reader // of blocks, by Reader.cacheID
	lastOwner uint32
	used      int64
	blocks    int
	evictions uint64
}

// CacheMetrics are counts since the Cache was made, and what it holds now.
type CacheMetrics struct {
	Hits, Misses, Evictions uint64
	Blocks                  int
	UsedBytes               int64 // cached blocks with all they need
	PinnedBytes             int64 // filters, indexes, slots of open tables; not in the budget
	BudgetBytes             int64
}

// NewCache returns a Cache that keeps at most budgetBytes of blocks. A block larger than an eighth
// of it is never kept; with a budget of 0 none is. Close frees its memory.
func NewCache(budgetBytes int64) *Cache {
	c := &Cache{
		budget: min(max(budgetBytes, 0), cacheBytesMax), owners: map[uint32]*Reader{},
		made: time.Now(),
	}
	c.scratch.New = func() any { return new(scratch) }
	memory, err := offheap.Alloc(c.budget/frameUnit*frameUnit, 1<<20)
	if err != nil { // no address space: everything works without a cache, and Metrics tells
		memory, c.budget = offheap.Memory{}, 0
	}
	c.log.init(memory)
	return c
}

// Close frees the memory. All Readers must have been closed before, iterators and reads included.
func (c *Cache) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log.memory.Free()
	c.log = cacheLog{}
}

// Readers is who may be reading blocks: Get must be called inside.
func (c *Cache) Readers() *rcu.Domain { return &c.readers }

// Metrics returns a moment's counts.
func (c *Cache) Metrics() CacheMetrics {
	m := CacheMetrics{
		Hits: uint64(c.hits.Sum()), Misses: uint64(c.misses.Sum()),
		PinnedBytes: c.pinned.Load(), BudgetBytes: c.budget,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.Evictions, m.Blocks, m.UsedBytes = c.evictions, c.blocks, c.used
	return m
}

// touch marks b as used. The mark is read first: a store to a line that other cores read costs them
// a miss each.
func (b *block) touch() {
	if b.used.Load() == 0 {
		b.used.Store(1)
	}
}

// block returns what a slot refers to, nil when it is empty. The caller is inside readers.
func (c *Cache) block(slot *atomic.Uint32) *block {
	s := slot.Load()
	if s == 0 {
		return nil
	}
	return c.log.frame(uint64(s-1) * frameUnit)
}

// open registers a Reader.
func (c *Cache) open(r *Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.lastOwner++; c.lastOwner == 0 || c.owners[c.lastOwner] != nil; c.lastOwner++ {
	}
	r.cacheID = c.lastOwner
	c.owners[r.cacheID] = r
}

// insert copies b, block i of r, into the cache. It does nothing when the block is there already or
// too large, the reader was closed, the mutex is taken, or there is no room that nobody reads. Two
// readers of 8 KB values, half of them cached, who waited for each other here slept for a quarter
// of their time.
//
// In the last two cases others may have to run. A reader, or who holds the mutex, is preempted
// after 10 ms, nearly always in the middle of a read, and back only when all other goroutines have
// had theirs: with 16 readers on two processors the cache would take in one miss in a hundred, and
// keep for seconds what nobody asks for any more.
func (c *Cache) insert(r *Reader, i int, b *block) {
	bytes := frameBytes(len(b.data) + len(b.table))
	if bytes > c.budget/8 || r.slots[i].Load() != 0 {
		return
	}
	if !c.mu.TryLock() || !c.insertLocked(r, i, b, bytes) {
		c.yield()
	}
}

const (
	longYield = 5 * time.Millisecond
	hastyFor  = 50 * time.Millisecond // after a yield that took long there is none
)

// yield lets others run. Those who compute without a pause take a time slice each, which a reader
// cannot give away for every miss.
func (c *Cache) yield() {
	began := time.Since(c.made)
	if began < time.Duration(c.hastyUntil.Load()) {
		return
	}
	runtime.Gosched()
	if ended := time.Since(c.made); ended > began+longYield && !c.patient {
		c.hastyUntil.Store(int64(ended + hastyFor))
	}
}

// insertLocked gives the mutex back. It reports whether there was room.
func (c *Cache) insertLocked(r *Reader, i int, b *block, bytes int64) bool {
	defer c.mu.Unlock()
	if r.closed || r.slots[i].Load() != 0 {
		return true
	}
	c.makeRoomLocked(bytes)
	at, ok := c.log.place(bytes)
	if ok {
		c.putLocked(at, bytes, b, r, uint32(i))
	}
	return ok
}

// putLocked writes b into the frame at and makes the slot refer to it.
func (c *Cache) putLocked(at uint64, bytes int64, b *block, r *Reader, i uint32) {
	f := c.log.fill(at, bytes, b)
	f.owner, f.index = r.cacheID, i
	c.used += bytes
	c.blocks++
	r.slots[i].Store(uint32(at/frameUnit) + 1)
}

// passedMax bounds how many blocks an insert passes at the tail.
const passedMax = 64

// makeRoomLocked evicts ahead of need: what it evicts now is free for a later insert, when the
// readers of this moment have left.
func (c *Cache) makeRoomLocked(bytes int64) {
	c.log.reclaim(c.readers.Passed)
	reserve := 2*c.log.batch() + bytes
	for range passedMax {
		f := c.log.oldest()
		enough := c.log.room()+c.log.limbo() >= reserve
		if f == nil || f.owner != 0 && enough {
			break
		}
		c.log.pass(f)
		if f.owner == 0 {
			continue // it was evicted already, or is no block
		}
		r, size, again := c.owners[f.owner], int64(f.size), f.used.Load() != 0
		c.removeLocked(f)
		if again && !r.closed && c.log.room() >= bytes+size {
			if at, ok := c.log.place(size); ok {
				c.putLocked(at, size, f, r, f.index)
				continue
			}
		}
		c.evictions++
	}
	if c.log.passed() >= c.log.batch() || c.log.room() < reserve {
		c.log.retire(c.readers.Mark())
	}
	if c.log.room() < bytes {
		c.log.reclaim(c.readers.Passed) // if nobody is reading
	}
}

// removeLocked takes a block out of its slot. Its frame is passed later.
func (c *Cache) removeLocked(f *block) {
	c.owners[f.owner].slots[f.index].Store(0)
	f.owner = 0
	c.used -= int64(f.size)
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
		c.dropBlock(&r.slots[i])
	}
	c.mu.Lock()
	delete(c.owners, r.cacheID)
	c.mu.Unlock()
}

func (c *Cache) dropBlock(slot *atomic.Uint32) {
	if slot.Load() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.block(slot); f != nil { // not evicted meanwhile
		c.removeLocked(f)
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
