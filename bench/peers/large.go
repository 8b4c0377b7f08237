package main

import (
	"fmt"
	"syscall"
	"time"

	"kvd/bench"
)

// longestSettle bounds the wait for background work after writing more than memory holds.
const longestSettle = time.Hour

// largeReads are the rows that read a tree larger than memory.
var largeReads = []struct {
	row     string
	readers int
}{{rowLargeRead1, 1}, {rowLargeRead16, 16}, {rowLargeRead64, 64}}

// stageLarge loads a tree that memory does not hold, reads it and overwrites it. No step goes
// through the whole tree but the load, and what a block takes to read is what is measured.
func (s *session) stageLarge(open opener) error {
	return s.fresh(open, s.base, "large", func(t store, dir string) error {
		if err := s.loadLarge(t, dir, rowLargeLoad); err != nil {
			return err
		}
		if err := s.readLarge(t); err != nil {
			return err
		}
		s.fact(factRSS, residentMegabytes())
		if !s.wants(sustainedRows(rowLargeOverwrite)...) {
			return nil
		}
		return s.overwriteLarge(t, dir, rowLargeOverwrite)
	})
}

// loadLarge puts every key in random order and waits for the end of background work. An empty row
// is none.
func (s *session) loadLarge(t store, dir, row string) error {
	whole := true
	all, err := s.amplify(dir, "load", func() (outcome, error) {
		o, err := s.write(t, 1, s.shuffled(), 1, s.Cap)
		if err != nil || o.ops == s.keys {
			return o, err
		}
		whole = false
		s.note("the load was cut off after %v, the rest was loaded in bulk", s.Cap)
		err = s.rest(t, s.shuffled(), 1, o.ops)
		o.ops = s.keys
		return o, err
	})
	if err != nil {
		return err
	}
	if whole && row != "" {
		s.showRate(row, all)
	}
	return s.verify(t, s.shuffled(), s.keys, 1, 1)
}

// readLarge fills the caches with a cell of random reads and measures by numbers of readers.
func (s *session) readLarge(t store) error {
	if !s.wants(rowLargeRead1, rowLargeRead16, rowLargeRead64) {
		return nil
	}
	if _, err := s.readFor(t, 16, s.Cell, 1, 1, false, readUniform); err != nil {
		return err
	}
	for _, c := range largeReads {
		if !s.wants(c.row) {
			continue
		}
		o, err := s.readFor(t, c.readers, s.Cell, 1, 1, false, readUniform)
		if err != nil {
			return fmt.Errorf("%s: %w", c.row, err)
		}
		s.showRate(c.row, o)
	}
	return nil
}

func (s *session) overwriteLarge(t store, dir, row string) error {
	o, err := s.amplify(dir, "overwrite", func() (outcome, error) {
		unwatch := s.watch()
		o, err := s.overwriteFor(t, 2, s.Sustain)
		for _, w := range o.slow {
			s.emit(record{Name: watchSlow, Value: w.from, Took: w.seconds()})
		}
		unwatch()
		if err != nil {
			return o.outcome, err
		}
		s.showRate(row, o.outcome)
		s.showSteady(row, o)
		return o.outcome, nil
	})
	if err != nil {
		return err
	}
	s.showRate(row+quietSuffix, o)
	return s.verify(t, s.shuffled(), s.keys, 1, 2)
}

// amplify runs fn, which writes, and waits until background work is over. It tells how many bytes
// went to the device for each byte of key and value that fn wrote, and how many lie there for each
// of all pairs. The outcome includes the background work.
func (s *session) amplify(dir, what string, fn func() (outcome, error)) (outcome, error) {
	written := writtenBytes()
	o, err := fn()
	if err != nil {
		return o, err
	}
	used := usedNow()
	took, ok := settle(dir, longestSettle)
	if !ok {
		s.note("still busy %v after the %s", took, what)
	}
	o.took += took
	o.used = o.used.plus(usedNow().minus(used))
	pair := float64(bench.DefaultKeyBytes + s.ValueBytes)
	s.fact(what+settleSuffix, took.Seconds())
	s.fact(what+writeSuffix, float64(writtenBytes()-written)/(pair*float64(max(o.ops, 1))))
	s.fact(what+spaceSuffix, float64(diskBytes(dir))/(pair*float64(s.keys)))
	syscall.Sync() // what reads next shall not compete with dirty pages
	return o, nil
}

// writtenBytes is what this process and the children it has waited for sent to the device so far.
// Pages of files that were deleted before they got there do not count.
func writtenBytes() int64 {
	return int64(number(field("/proc/self/io", "write_bytes")) -
		number(field("/proc/self/io", "cancelled_write_bytes")))
}
