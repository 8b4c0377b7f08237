package lsm

import (
	"sync/atomic"

	"kvd/sstable"
	"kvd/wal"
)

// memtableBytesMin keeps the head node and a few entries in the smallest memtable.
const memtableBytesMin = 1 << 10

// memtableBytesMax keeps the index of a word within 32 bits.
const memtableBytesMax = 16 << 30

// memtable holds the newest writes in order, together with the log segment that can bring them
// back. It is filled by the committing goroutines, then frozen, flushed and reused.
//
// Space is reserved under the commit lock, in the order of sequence numbers; entries are inserted
// outside it, in any order. When everything up to lastSeq is visible, every reserved entry is in.
type memtable struct {
	list  skiplist
	arena *arena

	// Guarded by the commit lock while the memtable is filled, fixed once it is frozen.
	used    int64 // bytes of the arena given away
	lastSeq sstable.Seq
	entries uint64

	segment uint64    // log segment of its records
	start   wal.Pos   // position of its first record
	next    *memtable // the one filled after it; set when it is frozen

	refs atomic.Int32 // read states that can reach it
	mark scrubMark    // of its log segment
}

func (m *memtable) init(a *arena, prefix []byte) {
	m.arena = a
	m.list.init(a, prefix)
	m.used = firstOffset * 8
}

// reserve takes the space for a batch, or reports that the memtable is full. The caller holds the
// commit lock.
func (m *memtable) reserve(bytes int64) (at uint32, ok bool) {
	if m.used+bytes > int64(len(m.arena.bytes)) {
		return 0, false
	}
	at = uint32(m.used / 8)
	m.used += bytes
	return at, true
}

// apply inserts the batch's entries from word at on, as writes base, base+1, and so on.
func (m *memtable) apply(b *Batch, at uint32, base sstable.Seq) {
	ops := batchReader{data: b.data[batchHeaderBytes:]}
	for i := uint32(0); ops.next(); i++ {
		key := sstable.MakeKey(ops.key, base+sstable.Seq(i), ops.kind)
		at = m.list.insert(at, heightOf(b.seed, i), key, ops.value)
	}
}

// get finds the newest version of user that is not newer than at. The value lives in the arena.
func (m *memtable) get(user []byte, at sstable.Seq) (value []byte, kind sstable.Kind, ok bool) {
	node := m.list.seekGE(sstable.MakeKey(user, at, 0xff))
	if node == 0 {
		return nil, 0, false
	}
	key := m.list.key(node)
	if string(key.User) != string(user) {
		return nil, 0, false
	}
	return m.list.value(node), key.Kind(), true
}

// commonPrefix is the prefix that all keys of the memtable share: the next one abbreviates its
// keys after it. It does not alias the arena.
func (m *memtable) commonPrefix() []byte {
	first, last := m.list.first(), m.list.last()
	if first == 0 || first == last {
		return nil
	}
	a, b := m.list.key(first).User, m.list.key(last).User
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return append([]byte(nil), a[:n]...)
}

// memIter walks a memtable. It needs no Close; whoever uses it keeps the memtable referenced.
// Keys and values live in the arena and stay valid as long as that reference.
type memIter struct {
	list *skiplist
	node uint32 // 0 when exhausted
}

var _ sstable.Iterator = (*memIter)(nil)

func (it *memIter) at(node uint32) bool { it.node = node; return node != 0 }

func (it *memIter) First() bool { return it.at(it.list.first()) }
func (it *memIter) Last() bool  { return it.at(it.list.last()) }

func (it *memIter) SeekGE(user []byte) bool {
	return it.at(it.list.seekGE(sstable.MakeKey(user, sstable.SeqMax, 0xff)))
}

func (it *memIter) SeekLT(user []byte) bool {
	return it.at(it.list.seekLT(sstable.MakeKey(user, sstable.SeqMax, 0xff)))
}

func (it *memIter) Next() bool { return it.node != 0 && it.at(it.list.next(it.node)) }

// Prev searches from the top: links backwards would cost 4 bytes a level and another atomic
// operation on every insert, for a move that is rare.
func (it *memIter) Prev() bool {
	return it.node != 0 && it.at(it.list.seekLT(it.list.key(it.node)))
}

func (it *memIter) Key() sstable.Key { return it.list.key(it.node) }
func (it *memIter) Value() []byte    { return it.list.value(it.node) }
func (it *memIter) Err() error       { return nil }
func (it *memIter) Close() error     { return nil }
