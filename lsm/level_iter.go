package lsm

import (
	"bytes"

	"kvd/sstable"
)

// levelIter walks the tables of a sorted level one after the other, opening each when it gets
// there.
type levelIter struct {
	tables []*table
	opts   sstable.IterOptions
	at     int // index of the table that it walks
	it     sstable.TableIter
	open   bool // it is on tables[at]
	err    error
}

var _ sstable.Iterator = (*levelIter)(nil)

func (l *levelIter) init(tables []*table, o sstable.IterOptions) {
	l.tables, l.opts = tables, o
	l.open, l.err = false, nil
}

// enter opens table i and reports whether there is one.
func (l *levelIter) enter(i int) bool {
	if i < 0 || i >= len(l.tables) || l.err != nil {
		return false
	}
	if !l.open || l.at != i {
		l.leave()
		l.it.Init(l.tables[i].reader, l.opts)
		l.at, l.open = i, true
	}
	return l.err == nil
}

func (l *levelIter) leave() {
	if !l.open {
		return
	}
	l.open = false
	if err := l.it.Close(); err != nil && l.err == nil {
		l.err = inFile(err, l.tables[l.at].name)
	}
}

// landed passes on the result of a move in the current table, remembering why it failed.
func (l *levelIter) landed(ok bool) bool {
	if !ok {
		if err := l.it.Err(); err != nil && l.err == nil {
			l.err = inFile(err, l.tables[l.at].name)
		}
	}
	return ok
}

// forward goes to the first entry of the next table that has one.
func (l *levelIter) forward(ok bool) bool {
	for !ok && l.enter(l.at+1) {
		ok = l.landed(l.it.First())
	}
	return ok
}

// backward goes to the last entry of the nearest table before that has one.
func (l *levelIter) backward(ok bool) bool {
	for !ok && l.enter(l.at-1) {
		ok = l.landed(l.it.Last())
	}
	return ok
}

func (l *levelIter) First() bool {
	return l.enter(0) && l.forward(l.landed(l.it.First()))
}

func (l *levelIter) Last() bool {
	return l.enter(len(l.tables)-1) && l.backward(l.landed(l.it.Last()))
}

func (l *levelIter) SeekGE(user []byte) bool {
	return l.enter(find(l.tables, user)) && l.forward(l.landed(l.it.SeekGE(user)))
}

func (l *levelIter) SeekLT(user []byte) bool {
	i := find(l.tables, user)
	if i == len(l.tables) || bytes.Compare(l.tables[i].meta.Smallest.User, user) >= 0 {
		i--
	}
	return l.enter(i) && l.backward(l.landed(l.it.SeekLT(user)))
}

func (l *levelIter) Next() bool { return l.open && l.forward(l.landed(l.it.Next())) }
func (l *levelIter) Prev() bool { return l.open && l.backward(l.landed(l.it.Prev())) }

func (l *levelIter) Key() sstable.Key { return l.it.Key() }
func (l *levelIter) Value() []byte    { return l.it.Value() }
func (l *levelIter) Err() error       { return l.err }

func (l *levelIter) Close() error {
	l.leave()
	return l.err
}

// namedIter walks one table and gives its errors the name of the file.
type namedIter struct {
	sstable.TableIter
	name string
}

func (it *namedIter) Err() error { return inFile(it.TableIter.Err(), it.name) }
