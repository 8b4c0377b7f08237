package lsm

import (
	"bytes"
	"iter"

	"kvd/compaction"
	"kvd/sstable"
)

// IterOptions bound an iterator.
type IterOptions struct {
	// Lower is the first key that the iterator may return, Upper the first that it may not. Nil is
	// open. They are copied.
	Lower, Upper []byte
}

// Iter walks the pairs of one moment in key order, both ways. Moves report whether they landed on a
// pair; when one did not, Err tells whether it was the end or an error. Key and Value may be
// called after a move that landed, and what they return is valid until the next move or Close.
// Moving on in the direction that ended stays at the end; any other move is a fresh start from
// there only after First, Last or a seek.
//
// An Iter holds on to files and memory as of its creation: close it. It is used by one goroutine
// at a time.
type Iter struct {
	db    *DB
	state *readState
	seq   sstable.Seq
	lower []byte
	upper []byte

	merge    sstable.Merge
	children []sstable.Iterator
	mems     []memIter
	tables   []namedIter
	levels   []levelIter

	// The pair landed on. Forward it is where merge is. Backward merge has passed it, so key and
	// value are copies.
	place place
	more  bool   // backward: merge is on an entry
	key   []byte // forward: copy of the key, to skip its older versions
	value []byte // backward only
	err   error
}

type place uint8

const (
	placeNone     place = iota // not positioned, or past an end
	placeForward               // merge is on the pair
	placeBackward              // merge is before the versions of the pair
)

// NewIter returns an iterator over the database as it is now. Errors wait in Err.
func (db *DB) NewIter(o IterOptions) *Iter { return db.newIter(o, nil) }

func (db *DB) newIter(o IterOptions, snap *Snapshot) *Iter {
	s := db.acquireState()
	if s == nil {
		return &Iter{err: ErrClosed}
	}
	it, ok := db.iters.Get().(*Iter)
	if !ok {
		it = new(Iter)
	}
	it.db, it.state, it.place, it.err = db, s, placeNone, nil
	it.seq = db.published.seq() // after the state, see GetTo
	if snap != nil {
		it.seq = snap.seq
	}
	it.lower = append(it.lower[:0], o.Lower...)
	it.upper = append(it.upper[:0], o.Upper...)
	it.open()
	return it
}

// open puts the iterators of all runs that can hold a key in bounds under the merge, newest first.
func (it *Iter) open() {
	s := it.state
	hi := it.upper
	if len(hi) == 0 {
		hi = nil
	}
	it.mems = append(it.mems[:0], memIter{list: &s.mem.list})
	for _, m := range s.frozen {
		it.mems = append(it.mems, memIter{list: &m.list})
	}
	n := 0
	for _, t := range s.version.tables[0] {
		if t.meta.Overlaps(it.lower, hi) {
			if n == len(it.tables) {
				it.tables = append(it.tables, namedIter{})
			}
			it.tables[n].name = t.name
			it.tables[n].Init(t.reader, sstable.IterOptions{})
			n++
		}
	}
	levels := 0
	it.levels = grow(it.levels, compaction.NumLevels)
	for level := 1; level < compaction.NumLevels; level++ {
		if tables := s.version.tables[level]; len(tables) > 0 {
			it.levels[levels].init(tables, sstable.IterOptions{})
			levels++
		}
	}
	it.children = it.children[:0]
	for i := range it.mems {
		it.children = append(it.children, &it.mems[i])
	}
	for i := range it.tables[:n] {
		it.children = append(it.children, &it.tables[i])
	}
	for i := range it.levels[:levels] {
		it.children = append(it.children, &it.levels[i])
	}
	it.merge.Init(it.children)
}

func grow[T any](s []T, n int) []T {
	for len(s) < n {
		s = append(s, *new(T))
	}
	return s
}

// First moves to the first pair.
func (it *Iter) First() bool {
	if it.err != nil {
		return false
	}
	if len(it.lower) > 0 {
		return it.forward(it.merge.SeekGE(it.lower), false)
	}
	return it.forward(it.merge.First(), false)
}

// Last moves to the last pair.
func (it *Iter) Last() bool {
	if it.err != nil {
		return false
	}
	if len(it.upper) > 0 {
		return it.backward(it.merge.SeekLT(it.upper))
	}
	return it.backward(it.merge.Last())
}

// SeekGE moves to the first pair whose key is at or after key.
func (it *Iter) SeekGE(key []byte) bool {
	if it.err != nil {
		return false
	}
	if bytes.Compare(key, it.lower) < 0 {
		key = it.lower
	}
	return it.forward(it.merge.SeekGE(key), false)
}

// SeekLT moves to the last pair whose key is before key.
func (it *Iter) SeekLT(key []byte) bool {
	if it.err != nil {
		return false
	}
	if len(it.upper) > 0 && bytes.Compare(key, it.upper) > 0 {
		key = it.upper
	}
	return it.backward(it.merge.SeekLT(key))
}

// Next moves to the pair after the current one.
func (it *Iter) Next() bool {
	switch it.place {
	case placeForward:
		return it.forward(it.merge.Next(), true)
	case placeBackward:
		return it.forward(it.merge.SeekGE(it.key), true)
	}
	return false
}

// Prev moves to the pair before the current one.
func (it *Iter) Prev() bool {
	switch it.place {
	case placeForward:
		return it.backward(it.merge.SeekLT(it.key))
	case placeBackward:
		return it.backward(it.more)
	}
	return false
}

// forward looks from where merge is for the first key with a visible value. If skip, the versions
// of it.key are passed over.
func (it *Iter) forward(ok, skip bool) bool {
	for ; ok; ok = it.merge.Next() {
		k := it.merge.Key()
		if k.Seq() > it.seq || skip && bytes.Equal(k.User, it.key) {
			continue
		}
		if len(it.upper) > 0 && bytes.Compare(k.User, it.upper) >= 0 {
			break
		}
		it.key = append(it.key[:0], k.User...)
		if k.Kind() == sstable.KindPut {
			it.place = placeForward
			return true
		}
		skip = true
	}
	return it.end()
}

// backward looks from where merge is towards the front for the last key with a visible value. It
// meets the versions of a key oldest first: the last visible one is the one that counts.
func (it *Iter) backward(ok bool) bool {
	for ok {
		k := it.merge.Key()
		if bytes.Compare(k.User, it.lower) < 0 {
			break
		}
		it.key = append(it.key[:0], k.User...)
		put := false
		for ok && bytes.Equal(k.User, it.key) {
			if k.Seq() <= it.seq {
				put = k.Kind() == sstable.KindPut
				if put {
					it.value = append(it.value[:0], it.merge.Value()...)
				}
			}
			if ok = it.merge.Prev(); ok {
				k = it.merge.Key()
			}
		}
		if put && it.merge.Err() == nil {
			it.place, it.more = placeBackward, ok
			return true
		}
	}
	return it.end()
}

// end is the result of a move that did not land.
func (it *Iter) end() bool {
	it.place = placeNone
	if err := it.merge.Err(); err != nil {
		it.err = err
	}
	return false
}

// Key returns the key of the current pair. It is valid until the next move.
func (it *Iter) Key() []byte { return it.key }

// Value returns the value of the current pair. It is valid until the next move.
func (it *Iter) Value() []byte {
	if it.place == placeBackward {
		return it.value
	}
	return it.merge.Value()
}

// Err returns what ended the iteration early, nil at an ordinary end.
func (it *Iter) Err() error { return it.err }

// All ranges over the pairs from the first on. Key and value are valid in the loop body only;
// look at Err afterwards.
func (it *Iter) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for ok := it.First(); ok && yield(it.Key(), it.Value()); {
			ok = it.Next()
		}
	}
}

// iterKeepBytes bounds the memory that a pooled iterator holds on to.
const iterKeepBytes = 64 << 10

// Close releases what the iterator holds and returns Err. The iterator must not be used again.
func (it *Iter) Close() error {
	if it.state == nil {
		return it.err
	}
	err := it.err
	if closeErr := it.merge.Close(); err == nil {
		err = closeErr
	}
	db, s := it.db, it.state
	it.state = nil
	clear(it.mems) // they point into memtables
	for i := range it.levels {
		it.levels[i].tables = nil
	}
	if cap(it.value) > iterKeepBytes {
		it.value = nil
	}
	db.releaseState(s)
	db.iters.Put(it)
	return err
}
