package lsm

import (
	"errors"
	"fmt"

	"kvd/compaction"
)

// Check verifies the invariants of the tree against the files and returns what is violated:
//
//   - levels are in order, disjoint, and no table is newer than one above it that shares its keys;
//   - every table holds what the manifest says of it, in order, with bounds, counts and sequence
//     numbers exact and every key in the filter.
//
// It reads every table and is meant for tests and for operators who want to know.
func (db *DB) Check() error {
	if err := db.hold(); err != nil {
		return err
	}
	defer db.drop()
	s := db.acquireState()
	defer db.releaseState(s)
	if err := s.version.levels.Check(); err != nil {
		return err
	}
	var errs []error
	for _, tables := range s.version.tables {
		for _, t := range tables {
			if db.ctx.Err() != nil {
				return ErrClosed
			}
			if err := t.check(); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (t *table) check() error {
	if err := t.reader.Verify(); err != nil {
		return inFile(err, t.name)
	}
	it := &namedIter{name: t.name}
	it.Init(t.reader, compactionInput)
	err := compaction.CheckTable(t.meta, it)
	if closeErr := it.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("lsm: check %s: %w", t.name, inFile(err, t.name))
	}
	return nil
}
