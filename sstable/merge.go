package sstable

import (
	"bytes"
	"errors"
	"math"
)

// Merge is an Iterator over the entries of several Iterators in the order of Compare. No two
// children may have the same internal key.
//
// It is a loser tree (Knuth vol. 3, 5.4.1): a move costs one comparison per level. Each child's
// current key is kept with its first eight bytes as a number, and most comparisons look at the
// numbers only. For moves backward they are inverted, so that the smallest wins in both directions.
//
// A child that fails makes the merge fail: every move returns false until the next Init. Moves
// allocate nothing.
type Merge struct {
	children []mergeChild
	tree     []int32 // tree[0] is the winner, tree[i] the loser of the match at inner node i
	backward bool
	valid    bool
	err      error

	// top is the winner if it is a table and has won twice in a row, forward; else nil. A move of
	// it in its block that ends below second, the least prefix of the others, changes nothing else:
	// key and prefix of its child are then those of an entry before. With a top after each move,
	// merges of tables that take turns were a fifth slower.
	top    *TableIter
	second uint64
}

// MergeInput is a child of a Merge. Table is not nil if all that the Iterator does while it stays
// in a block is what that TableIter does: then the merge asks the TableIter itself, and for nothing
// but its next entry while that is known to be the first of all, as in most of a tree most are.
type MergeInput struct {
	Iterator
	Table *TableIter
}

type mergeChild struct {
	prefix uint64 // order of the key in the current direction; the maximum when at its end
	key    Key
	done   bool // the child is at its end in the current direction
	MergeInput
}

var _ Iterator = (*Merge)(nil)

// NewMerge returns an unpositioned merge of its, which it closes when it is closed.
func NewMerge(its ...Iterator) *Merge {
	inputs := make([]MergeInput, len(its))
	for i, it := range its {
		inputs[i].Iterator = it
	}
	m := new(Merge)
	m.Init(inputs)
	return m
}

// Init makes m an unpositioned merge of its, whatever it was before. It does not keep the slice.
func (m *Merge) Init(its []MergeInput) {
	clear(m.children)
	m.children = m.children[:0]
	for _, it := range its {
		m.children = append(m.children, mergeChild{MergeInput: it, done: true})
	}
	if cap(m.tree) < len(its) {
		m.tree = make([]int32, len(its))
	}
	m.tree = m.tree[:len(its)]
	m.valid, m.backward, m.err, m.top = false, false, nil, nil
}

// Close closes the children and returns their errors. Only Init may follow.
func (m *Merge) Close() error {
	var err error
	for i := range m.children {
		err = errors.Join(err, m.children[i].Iterator.Close())
	}
	clear(m.children)
	m.children, m.tree, m.valid, m.top = m.children[:0], m.tree[:0], false, nil
	return err
}

// Err returns the error of the first child that failed.
func (m *Merge) Err() error { return m.err }

// Key returns the key of the entry, valid until the next move; until the one after that, if all
// children are TableIters, walk TableIters one after the other, or keep their keys in place.
func (m *Merge) Key() Key {
	if t := m.top; t != nil {
		return Key{User: t.key, Trailer: t.trailer}
	}
	return m.children[m.tree[0]].key
}

// Value returns the value of the entry, valid until the next move.
func (m *Merge) Value() []byte {
	if t := m.top; t != nil {
		return t.value
	}
	return m.children[m.tree[0]].Iterator.Value()
}

// First moves to the first entry.
func (m *Merge) First() bool {
	m.start(false)
	for i := range m.children {
		m.children[i].done = !m.children[i].Iterator.First()
	}
	return m.build()
}

// Last moves to the last entry.
func (m *Merge) Last() bool {
	m.start(true)
	for i := range m.children {
		m.children[i].done = !m.children[i].Iterator.Last()
	}
	return m.build()
}

// SeekGE moves to the newest version of the first user key at or after user.
func (m *Merge) SeekGE(user []byte) bool {
	m.start(false)
	for i := range m.children {
		m.children[i].done = !m.children[i].Iterator.SeekGE(user)
	}
	return m.build()
}

// SeekLT moves to the oldest version of the last user key before user.
func (m *Merge) SeekLT(user []byte) bool {
	m.start(true)
	for i := range m.children {
		m.children[i].done = !m.children[i].Iterator.SeekLT(user)
	}
	return m.build()
}

// Next moves to the entry after this one.
func (m *Merge) Next() bool {
	if t := m.top; t != nil && t.nextInBlock() {
		if t.head < m.second {
			return true
		}
		c := &m.children[m.tree[0]]
		c.key = Key{User: t.key, Trailer: t.trailer}
		c.prefix = t.head
		return m.replay(c)
	}
	if !m.valid {
		return false
	}
	if m.backward {
		return m.turn()
	}
	c := &m.children[m.tree[0]]
	if t := c.Table; t != nil && m.top == nil && t.setNext() {
		c.key = Key{User: t.key, Trailer: t.trailer}
		c.prefix = Head(t.key)
		return m.replay(c)
	}
	c.done = !c.Iterator.Next()
	return m.refresh(c) && m.replay(c)
}

// Prev moves to the entry before this one.
func (m *Merge) Prev() bool {
	if !m.valid {
		return false
	}
	if !m.backward {
		return m.turn()
	}
	c := &m.children[m.tree[0]]
	c.done = !c.Iterator.Prev()
	return m.refresh(c) && m.replay(c)
}

func (m *Merge) start(backward bool) {
	m.backward, m.valid, m.top = backward, false, nil
}

// turn moves every child one entry the other way. Each is at the nearest entry beyond the current
// one, so that takes it to the nearest entry on the other side; a child at its end is there already
// when it goes to that end.
func (m *Merge) turn() bool {
	m.start(!m.backward)
	for i := range m.children {
		c := &m.children[i]
		switch {
		case m.backward && c.done:
			c.done = !c.Iterator.Last()
		case m.backward:
			c.done = !c.Iterator.Prev()
		case c.done:
			c.done = !c.Iterator.First()
		default:
			c.done = !c.Iterator.Next()
		}
	}
	return m.build()
}

// refresh notes where child c came to. It reports false when the child failed.
func (m *Merge) refresh(c *mergeChild) bool {
	if c.done {
		c.prefix = math.MaxUint64
		if err := c.Iterator.Err(); err != nil {
			m.err, m.valid, m.top = err, false, nil
			return false
		}
		return true
	}
	c.key = c.Iterator.Key()
	c.prefix = Head(c.key.User)
	if m.backward {
		c.prefix = ^c.prefix
	}
	return true
}

// build plays all matches after the children have been moved.
func (m *Merge) build() bool {
	if m.err != nil || len(m.children) == 0 {
		return false
	}
	for i := range m.children {
		if !m.refresh(&m.children[i]) {
			return false
		}
	}
	m.tree[0] = m.play(1)
	m.valid, m.top = !m.children[m.tree[0]].done, nil
	return m.valid
}

// play returns the winner below node and notes the losers. Node i has the children 2i and 2i+1;
// nodes from len(children) on are the leaves.
func (m *Merge) play(node int) int32 {
	if n := len(m.children); node >= n {
		return int32(node - n)
	}
	a, b := m.play(2*node), m.play(2*node+1)
	if m.less(&m.children[b], &m.children[a]) {
		a, b = b, a
	}
	m.tree[node] = b
	return a
}

// replay plays the matches of the winner c again after it was moved and refreshed.
func (m *Merge) replay(c *mergeChild) bool {
	winner, second := m.tree[0], uint64(math.MaxUint64)
	for node := (len(m.children) + int(winner)) / 2; node > 0; node /= 2 {
		l := &m.children[m.tree[node]]
		if l.prefix < c.prefix || l.prefix == c.prefix && m.tied(l, c) {
			m.tree[node], winner = winner, m.tree[node]
			c = l
		}
		second = min(second, l.prefix)
	}
	m.valid, m.top = !c.done, nil
	if winner == m.tree[0] && m.valid && !m.backward {
		m.top, m.second = c.Table, second
	}
	m.tree[0] = winner
	return m.valid
}

func (m *Merge) less(a, b *mergeChild) bool {
	return a.prefix < b.prefix || a.prefix == b.prefix && m.tied(a, b)
}

// tied is less for children with equal prefixes.
func (m *Merge) tied(a, b *mergeChild) bool {
	if a.done || b.done {
		return !a.done
	}
	c := bytes.Compare(a.key.User, b.key.User)
	if c == 0 {
		c = 1
		if a.key.Trailer > b.key.Trailer {
			c = -1
		}
	}
	return (c < 0) != m.backward
}
