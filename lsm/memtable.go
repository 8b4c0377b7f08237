package lsm

import (
	"bytes"
	"runtime"
	"sync"
	"sync/atomic"

	"kvd/lsm/procs"
	"kvd/sstable"
	"kvd/wal"
)

// memtableBytesMin keeps the head node and a few entries in the smallest memtable.
const memtableBytesMin = 1 << 10

// memtableBytesMax keeps the index of a word within 32 bits.
const memtableBytesMax = 16 << 30

// memtable holds the newest writes, together with the log segment that can bring them back. It is
// filled by the committing goroutines, then frozen, flushed and reused.
//
// Space is reserved under the commit lock, in the order of sequence numbers; entries are inserted
// outside it, in any order. When everything up to lastSeq is visible, every reserved entry is in.
//
// Reads of one key go through index, which has every entry. The order of keys is made only when
// somebody asks for it: order sorts what there is into run. Only when that happens again and again
// with few entries in between are new ones linked into list as well. Most memtables are asked once,
// by their flush: to sort takes 45 ns an entry (BenchmarkMemtableOrder), to keep a skip list from
// the start 900 (BenchmarkMemtablePut): without it random writes went from 0.67 to 1.7 million a
// second. The price is that an iterator after many writes waits for the sort, 20 ms for a memtable
// of 64 MiB.
type memtable struct {
	arena *arena
	index pointIndex
	run   atomic.Pointer[memRun] // nil until the order was asked for
	list  skiplist               // what a final run does not have
	base  sstable.Seq            // every entry is newer; fixed

	// Guarded by the commit lock until the memtable is full, fixed from then on.
	used    int64 // bytes of the arena given away
	lastSeq sstable.Seq
	entries uint64
	links   bool // new entries go into list

	full     atomic.Bool  // takes no more
	ordering sync.Mutex   // one sorts
	awaited  atomic.Int32 // who waits for that to read: the sort of a flush does not yield then

	segment uint64    // log segment of its records
	start   wal.Pos   // position of its first record
	next    *memtable // the one filled after it; set when it is frozen, until drop

	// Guarded by DB.mu.
	ended bool    // it was frozen
	end   wal.Pos // of the records of its log segment, once it has ended

	refs atomic.Int32 // read states that can reach it
	mark scrubMark    // of its log segment
}

// init makes m an empty memtable in a. Keys in its list are abbreviated after prefix.
func (m *memtable) init(a *arena, prefix []byte) {
	m.arena = a
	m.index.init(a)
	m.list.init(a, prefix)
	m.used = firstOffset * 8
}

// reserve takes the space for a batch, or reports that the memtable is full; links says whether it
// has to be in the list. The caller holds the commit lock.
func (m *memtable) reserve(b *Batch) (at uint32, links, ok bool) {
	if !m.fits(b) {
		return 0, false, false
	}
	at = uint32(m.used / 8)
	m.used += m.bytesOf(b)
	m.entries += uint64(b.count)
	return at, m.links, true
}

func (m *memtable) fits(b *Batch) bool {
	return m.used+m.bytesOf(b) <= int64(len(m.arena.bytes)) &&
		m.entries+uint64(b.count) <= m.index.entriesMax() && !m.full.Load()
}

func (m *memtable) bytesOf(b *Batch) int64 {
	if m.links {
		return b.nodeBytes + b.towerBytes
	}
	return b.nodeBytes
}

// apply inserts the batch's entries from word at on, as writes base, base+1, and so on.
func (m *memtable) apply(b *Batch, at uint32, links bool, base sstable.Seq) {
	ops := batchReader{data: b.data[batchHeaderBytes:]}
	height := 0
	for i := uint32(0); ops.next(); i++ {
		if links {
			height = heightOf(b.seed, i)
		}
		key := sstable.MakeKey(ops.key, base+sstable.Seq(i), ops.kind)
		end := m.arena.writeNode(at, height, key, ops.value)
		if links {
			m.list.insert(at, height)
		}
		m.index.insert(at, indexHash(ops.key))
		at = end
	}
}

// get finds the newest version of user, whose indexHash is given, that is not newer than at. The
// value lives in the arena.
func (m *memtable) get(user []byte, hash uint64, at sstable.Seq) (
	value []byte, kind sstable.Kind, ok bool,
) {
	if at <= m.base { // nothing to find: an empty one cost reads two cache misses
		return nil, 0, false
	}
	node := m.index.find(user, hash, uint64(at)<<8|0xff)
	if node == 0 {
		return nil, 0, false
	}
	return m.arena.value(node), sstable.Kind(m.arena.words[node+1]), true
}

// order returns a run that has, with what is in the list by then, every entry up to seq, which is
// visible. Commits do not wait for it. y is that of a flush, nil for who waits for it to read.
func (db *DB) order(m *memtable, seq sstable.Seq, y *procs.Yielder) *memRun {
	if r := m.run.Load(); r.covers(seq) {
		return r
	}
	if y == nil {
		m.awaited.Add(1)
		defer m.awaited.Add(-1)
	}
	m.ordering.Lock()
	defer m.ordering.Unlock()
	r := m.run.Load()
	if r.covers(seq) {
		return r
	}
	locked := false
	for !locked && !m.full.Load() {
		// Not Lock: a commit that waits for a flush holds the lock for long. Its memtable is full.
		if locked = db.commit.TryLock(); !locked {
			runtime.Gosched()
		}
	}
	end, last, entries := m.used/8, m.lastSeq, int(m.entries)
	final := !locked // a full one takes nothing more
	if locked {
		final = r != nil && entries-len(r.items) < entries/resortShare
		m.links = final
		db.commit.Unlock()
	}
	db.published.wait(last) // all of it is in
	r = newMemRun(m.arena, firstOffset, uint32(end), entries, !locked,
		&sortStep{yielder: y, awaited: &m.awaited})
	r.last, r.final = last, final
	if len(r.items) > 0 {
		prefix := bytes.Clone(r.prefix)
		db.keyPrefix.Store(&prefix)
	}
	m.run.Store(r)
	return r
}

// resortShare bounds what sorting over and over costs: a memtable that has grown by less than this
// share since the last time keeps its order from now on.
const resortShare = 4

// drop lets go of everything. Whoever still knows of a memtable that nobody reads must not keep the
// memory, nor all memtables that came after it.
func (m *memtable) drop() {
	if r := m.run.Swap(nil); r != nil {
		r.free()
	}
	m.arena, m.index, m.list.arena, m.next = nil, pointIndex{}, nil, nil
}

// listIter walks the list of a memtable. It needs no Close; whoever uses it keeps the memtable
// referenced. Keys and values live in the arena and stay valid as long as that reference.
type listIter struct {
	list *skiplist
	node uint32 // 0 when exhausted
}

var _ sstable.Iterator = (*listIter)(nil)

func (it *listIter) at(node uint32) bool { it.node = node; return node != 0 }

func (it *listIter) First() bool { return it.at(it.list.first()) }
func (it *listIter) Last() bool  { return it.at(it.list.last()) }

func (it *listIter) SeekGE(user []byte) bool {
	return it.at(it.list.seekGE(sstable.MakeKey(user, sstable.SeqMax, 0xff)))
}

func (it *listIter) SeekLT(user []byte) bool {
	return it.at(it.list.seekLT(sstable.MakeKey(user, sstable.SeqMax, 0xff)))
}

func (it *listIter) Next() bool { return it.node != 0 && it.at(it.list.next(it.node)) }

// Prev searches from the top: links backwards would cost 4 bytes a level and another atomic
// operation on every insert, for a move that is rare.
func (it *listIter) Prev() bool {
	return it.node != 0 && it.at(it.list.seekLT(it.list.arena.key(it.node)))
}

func (it *listIter) Key() sstable.Key { return it.list.arena.key(it.node) }
func (it *listIter) Value() []byte    { return it.list.arena.value(it.node) }
func (it *listIter) Err() error       { return nil }
func (it *listIter) Close() error     { return nil }
