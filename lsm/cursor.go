package lsm

import (
	"bytes"

	"kvd/compaction"
	"kvd/sstable"
)

// cursor is what an Iter works with.
type cursor struct {
	db    *DB
	state *readState
	seq   sstable.Seq
	lower []byte
	upper []byte

	merge    sstable.Merge
	children []sstable.MergeInput
	runs     []runIter // of memtables
	lists    []listIter
	tables   []namedIter
	levels   []levelIter

	// The pair landed on. Forward it is where merge is, and key is what merge returned, valid until
	// the move after the next one. Backward merge has passed it, so key and value are copies.
	place place
	more  bool // backward: merge is on an entry
	key   []byte
	value []byte // backward only
	err   error

	copied []byte // memory for a copy of a key
}

type place uint8

const (
	placeNone     place = iota // not positioned, or past an end
	placeForward               // merge is on the pair
	placeBackward              // merge is before the versions of the pair
)

// open puts the iterators of all runs that can hold a key in bounds under the merge, newest first.
func (c *cursor) open() {
	s := c.state
	hi := c.upper
	if len(hi) == 0 {
		hi = nil
	}
	c.runs, c.lists = c.runs[:0], c.lists[:0]
	c.openMemtable(s.mem)
	for _, m := range s.frozen {
		c.openMemtable(m)
	}
	n := 0
	for _, t := range s.version.tables[0] {
		if t.meta.Overlaps(c.lower, hi) {
			if n == len(c.tables) {
				c.tables = append(c.tables, namedIter{})
			}
			c.tables[n].name = t.name
			c.tables[n].Init(t.reader, sstable.IterOptions{})
			n++
		}
	}
	levels := 0
	c.levels = grow(c.levels, compaction.NumLevels)
	for level := 1; level < compaction.NumLevels; level++ {
		if tables := s.version.tables[level]; len(tables) > 0 {
			c.levels[levels].init(tables, sstable.IterOptions{})
			levels++
		}
	}
	c.children = c.children[:0]
	for i := range c.runs {
		c.children = append(c.children, sstable.MergeInput{Iterator: &c.runs[i]})
	}
	for i := range c.lists {
		c.children = append(c.children, sstable.MergeInput{Iterator: &c.lists[i]})
	}
	for i := range c.tables[:n] {
		t := &c.tables[i]
		c.children = append(c.children, sstable.MergeInput{Iterator: t, Table: &t.TableIter})
	}
	for i := range c.levels[:levels] {
		l := &c.levels[i]
		c.children = append(c.children, sstable.MergeInput{Iterator: l, Table: &l.it})
	}
	c.merge.Init(c.children)
}

// openMemtable adds what m has that is visible at seq, which was read before.
func (c *cursor) openMemtable(m *memtable) {
	if c.seq <= m.base {
		return
	}
	r := c.db.order(m, c.seq, nil)
	if len(r.items) > 0 {
		c.runs = append(c.runs, runIter{run: r, at: -1})
	}
	if r.final && m.list.first() != 0 {
		c.lists = append(c.lists, listIter{list: &m.list})
	}
}

func grow[T any](s []T, n int) []T {
	for len(s) < n {
		s = append(s, *new(T))
	}
	return s
}

func (c *cursor) first() bool {
	if c.err != nil {
		return false
	}
	if len(c.lower) > 0 {
		return c.forward(c.merge.SeekGE(c.lower), false)
	}
	return c.forward(c.merge.First(), false)
}

func (c *cursor) last() bool {
	if c.err != nil {
		return false
	}
	if len(c.upper) > 0 {
		return c.backward(c.merge.SeekLT(c.upper))
	}
	return c.backward(c.merge.Last())
}

func (c *cursor) seekGE(key []byte) bool {
	if c.err != nil {
		return false
	}
	if bytes.Compare(key, c.lower) < 0 {
		key = c.lower
	}
	c.keep(key) // it may be what Key returned
	return c.forward(c.merge.SeekGE(c.key), false)
}

func (c *cursor) seekLT(key []byte) bool {
	if c.err != nil {
		return false
	}
	if len(c.upper) > 0 && bytes.Compare(key, c.upper) > 0 {
		key = c.upper
	}
	c.keep(key)
	return c.backward(c.merge.SeekLT(c.key))
}

// keep makes c.key a copy of key.
func (c *cursor) keep(key []byte) {
	c.copied = append(c.copied[:0], key...)
	c.key = c.copied
}

func (c *cursor) next() bool {
	switch c.place {
	case placeForward:
		return c.forward(c.merge.Next(), true)
	case placeBackward:
		return c.forward(c.merge.SeekGE(c.key), true)
	}
	return false
}

func (c *cursor) prev() bool {
	switch c.place {
	case placeForward:
		c.keep(c.key)
		return c.backward(c.merge.SeekLT(c.key))
	case placeBackward:
		return c.backward(c.more)
	}
	return false
}

// forward looks from where merge is for the first key with a visible value. If skip, the versions
// of c.key are passed over.
func (c *cursor) forward(ok, skip bool) bool {
	for ; ok; ok = c.merge.Next() {
		k := c.merge.Key()
		if k.Seq() > c.seq || skip && same(k.User, c.key) {
			if skip {
				c.keep(c.key) // the merge moves again, and its key from before is not valid longer
			}
			continue
		}
		if len(c.upper) > 0 && bytes.Compare(k.User, c.upper) >= 0 {
			break
		}
		c.key = k.User
		if k.Kind() == sstable.KindPut {
			c.place = placeForward
			return true
		}
		skip = true
	}
	return c.end()
}

// backward looks from where merge is towards the front for the last key with a visible value. It
// meets the versions of a key oldest first: the last visible one is the one that counts.
func (c *cursor) backward(ok bool) bool {
	for ok {
		k := c.merge.Key()
		if bytes.Compare(k.User, c.lower) < 0 {
			break
		}
		c.keep(k.User)
		put := false
		for ok && bytes.Equal(k.User, c.key) {
			if k.Seq() <= c.seq {
				put = k.Kind() == sstable.KindPut
				if put {
					c.value = append(c.value[:0], c.merge.Value()...)
				}
			}
			if ok = c.merge.Prev(); ok {
				k = c.merge.Key()
			}
		}
		if put && c.merge.Err() == nil {
			c.place, c.more = placeBackward, ok
			return true
		}
	}
	return c.end()
}

// end is the result of a move that did not land.
func (c *cursor) end() bool {
	c.place = placeNone
	if err := c.merge.Err(); err != nil {
		c.err = err
		c.state.version.met(err)
	}
	return false
}

// same reports whether neighbors in the order of keys are equal. Those that are not mostly end
// differently.
func same(a, b []byte) bool {
	n := len(a)
	return n == len(b) && (n == 0 || a[n-1] == b[n-1] && bytes.Equal(a, b))
}
