package compaction

import (
	"errors"

	"kvd/sstable"
)

var errForward = errors.New("compaction: inputs are read forward only")

// source reads neighbouring tables of one level one after the other, each opened when its turn
// comes. It moves forward only: First or SeekGE, then Next. Close may be called more than once.
type source struct {
	open   func(*sstable.Meta) (sstable.Iterator, error)
	tables []*sstable.Meta
	next   int
	it     sstable.Iterator
	err    error
}

func (s *source) First() bool { return s.start(sstable.Iterator.First) }

func (s *source) SeekGE(user []byte) bool {
	return s.start(func(it sstable.Iterator) bool { return it.SeekGE(user) })
}

// start moves to the first entry that begin finds in a table.
func (s *source) start(begin func(sstable.Iterator) bool) bool {
	if s.err = errors.Join(s.err, s.drop()); s.err != nil {
		return false
	}
	s.next = 0
	return s.advance(begin)
}

func (s *source) Next() bool {
	if s.it == nil {
		return false
	}
	if s.it.Next() {
		return true
	}
	if s.err = s.it.Err(); s.err != nil {
		return false
	}
	return s.advance(sstable.Iterator.First)
}

// advance opens tables until begin finds an entry in one.
func (s *source) advance(begin func(sstable.Iterator) bool) bool {
	for s.next < len(s.tables) {
		if s.err = s.drop(); s.err != nil {
			return false
		}
		it, err := s.open(s.tables[s.next])
		if err != nil {
			s.err = err
			return false
		}
		s.it = it
		s.next++
		if begin(it) {
			return true
		}
		if s.err = it.Err(); s.err != nil {
			return false
		}
	}
	return false
}

func (s *source) drop() error {
	if s.it == nil {
		return nil
	}
	it := s.it
	s.it = nil
	return it.Close()
}

func (s *source) Key() sstable.Key { return s.it.Key() }
func (s *source) Value() []byte    { return s.it.Value() }
func (s *source) Err() error       { return s.err }
func (s *source) Close() error     { return s.drop() }

func (s *source) Last() bool         { return s.refuse() }
func (s *source) Prev() bool         { return s.refuse() }
func (s *source) SeekLT([]byte) bool { return s.refuse() }

func (s *source) refuse() bool {
	s.err = errForward
	return false
}
