package lsm

import (
	"sync"

	"kvd/sstable/offheap"
)

// arena is the memory of one memtable, seen as 8-byte words for atomic links and as bytes for keys
// and values. It holds no Go pointers. It is not zeroed on reuse: whoever takes space from it
// writes all of it before publishing it.
//
// The slots of the memtable's point index come with it. They are zero between uses.
type arena struct {
	words  []uint64
	bytes  []byte // the same memory
	slots  []uint64
	memory offheap.Memory
}

// newArena makes an arena of so many bytes for so many entries at least.
func newArena(bytes int64, entries uint64) (*arena, error) {
	n := (bytes + 7) / 8
	slots := int64(slotsFor(bytes))
	for uint64(slots)/4*3 < entries {
		slots *= 2
	}
	m, err := offheap.Alloc((n+slots)*8, 1<<20)
	if err != nil {
		return nil, err
	}
	return &arena{
		words: m.Words[:n:n], bytes: m.Bytes[: n*8 : n*8], slots: m.Words[n:], memory: m,
	}, nil
}

func (a *arena) free() {
	a.memory.Free()
	*a = arena{}
}

// arenaPool keeps arenas for reuse. The first touch of fresh memory costs 1-4 us per page on
// virtual machines, 50-150 ns per memtable entry, so arenas are recycled for the life of the DB.
type arenaPool struct {
	bytes int64 // size of a pooled arena
	mu    sync.Mutex
	spare []*arena
	out   int // arenas of that size in use
}

// arenasMax bounds those in use and in reserve: one that is filled, frozenMax that wait for their
// flush, and what the cleaner has yet to free. With three, every other memtable touched fresh
// memory while flushes were behind.
const arenasMax = 3 + frozenMax

// get returns an arena of at least bytes for at least so many entries.
func (p *arenaPool) get(bytes int64, entries uint64) (*arena, error) {
	if bytes > p.bytes || entries > uint64(slotsFor(p.bytes))/4*3 {
		return newArena(max(bytes, p.bytes), entries)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.spare); n > 0 {
		a := p.spare[n-1]
		p.spare = p.spare[:n-1]
		p.out++
		return a, nil
	}
	a, err := newArena(p.bytes, 0)
	if err == nil {
		p.out++
	}
	return a, err
}

// put takes back an arena that nobody reads any more.
func (p *arenaPool) put(a *arena) {
	pooled := int64(len(a.bytes)) == (p.bytes+7)/8*8 && len(a.slots) == slotsFor(p.bytes)
	if pooled {
		clear(a.slots) // here rather than in get, where a commit waits for it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if pooled {
		p.out--
	}
	if !pooled || p.out+len(p.spare) >= arenasMax {
		a.free()
		return
	}
	p.spare = append(p.spare, a)
}

// empty gives the spare arenas back to the system.
func (p *arenaPool) empty() {
	p.mu.Lock()
	spare := p.spare
	p.spare = nil
	p.mu.Unlock()
	for _, a := range spare { // a commit may want the lock
		a.free()
	}
}
