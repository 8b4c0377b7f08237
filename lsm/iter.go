package lsm

import "iter"

// IterOptions bound an iterator.
type IterOptions struct {
	// Lower is the first key that the iterator may return, Upper the first that it may not. Nil or
	// empty is open. They are copied.
	Lower, Upper []byte
}

// Iter walks the pairs of one moment in key order, both ways. Moves report whether they landed on a
// pair; when one did not, Err tells whether it was the end or an error. Key and Value may be
// called after a move that landed, and what they return is valid until the next move or Close. It
// is the memory of the database itself and must not be changed.
// Moving on from an end does not land; First, Last or a seek start afresh.
//
// An Iter holds on to files and memory as of its creation: close it. It is used by one goroutine
// at a time. What it works with is pooled, the Iter is not: a second Close finds nothing to close
// and cannot hit the iterator of somebody else.
type Iter struct {
	c   *cursor // nil once closed
	err error   // after Close
}

// NewIter returns an iterator over the database as it is now. Errors wait in Err.
func (db *DB) NewIter(o IterOptions) *Iter { return db.newIter(o, nil) }

func (db *DB) newIter(o IterOptions, snap *Snapshot) *Iter {
	s := db.acquireState()
	if s == nil {
		return &Iter{err: ErrClosed}
	}
	c, ok := db.cursors.Get().(*cursor)
	if !ok {
		c = new(cursor)
	}
	c.db, c.state, c.place, c.err = db, s, placeNone, nil
	c.seq = db.published.seq() // after the state, see GetTo
	if snap != nil {
		c.seq = snap.seq
	}
	c.lower = append(c.lower[:0], o.Lower...)
	c.upper = append(c.upper[:0], o.Upper...)
	c.open()
	return &Iter{c: c}
}

// First moves to the first pair.
func (it *Iter) First() bool { return it.c != nil && it.c.first() }

// Last moves to the last pair.
func (it *Iter) Last() bool { return it.c != nil && it.c.last() }

// SeekGE moves to the first pair whose key is at or after key.
func (it *Iter) SeekGE(key []byte) bool { return it.c != nil && it.c.seekGE(key) }

// SeekLT moves to the last pair whose key is before key.
func (it *Iter) SeekLT(key []byte) bool { return it.c != nil && it.c.seekLT(key) }

// Next moves to the pair after the current one.
func (it *Iter) Next() bool { return it.c != nil && it.c.next() }

// Prev moves to the pair before the current one.
func (it *Iter) Prev() bool { return it.c != nil && it.c.prev() }

// Key returns the key of the current pair, valid until the next move. It must not be changed.
func (it *Iter) Key() []byte { return it.c.key }

// Value returns the value of the current pair, valid until the next move. It must not be changed.
func (it *Iter) Value() []byte {
	if it.c.place == placeBackward {
		return it.c.value
	}
	return it.c.merge.Value()
}

// Err returns what ended the iteration early, nil at an ordinary end.
func (it *Iter) Err() error {
	if it.c != nil {
		return it.c.err
	}
	return it.err
}

// All ranges over the pairs from the first on. Key and value are valid in the loop body only and
// must not be changed; look at Err afterwards.
func (it *Iter) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for ok := it.First(); ok && yield(it.Key(), it.Value()); {
			ok = it.Next()
		}
	}
}

// cursorKeepBytes bounds the memory that a pooled cursor holds on to.
const cursorKeepBytes = 64 << 10

// Close releases what the iterator holds and returns Err.
func (it *Iter) Close() error {
	c := it.c
	if c == nil {
		return it.err
	}
	it.c = nil
	it.err = c.close()
	return it.err
}

func (c *cursor) close() error {
	err := c.err
	if closeErr := c.merge.Close(); err == nil {
		err = closeErr
	}
	db, s := c.db, c.state
	c.state, c.key = nil, nil
	clear(c.runs) // they point into memtables
	clear(c.lists)
	for i := range c.levels {
		c.levels[i].tables = nil
	}
	if cap(c.value) > cursorKeepBytes {
		c.value = nil
	}
	db.releaseState(s)
	db.cursors.Put(c)
	return err
}
