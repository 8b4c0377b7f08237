package lsm

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"kvd/compaction"
)

// Check verifies the invariants of the tree against the files and returns what is violated:
//
//   - tables of level 0 that share keys come newest first, those of each level below are sorted and
//     disjoint, and none stands twice; levels are not compared with one another;
//   - every table holds what the manifest says of it, in order, with bounds, counts and sequence
//     numbers exact and every key in the filter;
//   - the files of the directory are those in use, read by an iterator, being written, kept for
//     reuse or known to have resisted removal: none is missing and none forgotten;
//   - the counts of references that decide when a table is removed are what they should be.
//
// It reads every table and is meant for tests and for operators who want to know. Everything else
// may go on meanwhile; flushes and compactions wait while the directory is listed.
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
	errs := []error{db.checkFiles(s.version)}
	for _, tables := range s.version.tables {
		for _, t := range tables {
			if db.ctx.Err() != nil {
				return ErrClosed
			}
			errs = append(errs, t.check())
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

// checkFiles compares the directory with what the DB knows of it. The tables of v, which the
// caller holds, must be there.
func (db *DB) checkFiles(v *version) error {
	db.installing.Lock()
	defer db.installing.Unlock()
	known := &knownFiles{tables: make(map[uint64]bool)}
	if err := db.knownTables(known); err != nil {
		return err
	}
	// From here on: no edit, no new manifest, no segment retired for one.
	s := &db.segments
	s.files.Lock() // no segment made or retired
	defer s.files.Unlock()
	s.mu.Lock() // nor taken; one that is from here on was ready
	needed := db.neededSegments()
	known.segments = slices.Clone(s.taken)
	for _, spare := range s.spare {
		known.segments = append(known.segments, spare.num)
	}
	for _, r := range s.ready {
		known.segments = append(known.segments, r.num)
	}
	taken := slices.Clone(s.taken)
	s.mu.Unlock()
	names, err := db.opts.FS.List(db.dir)
	if err != nil {
		return err
	}
	on := make(map[string]bool)
	for _, base := range names {
		on[base] = true
	}
	for _, level := range v.tables {
		for _, t := range level {
			if !on[filepath.Base(t.name)] {
				return fmt.Errorf("lsm: %s is listed by the version, but missing", t.name)
			}
		}
	}
	if db.opts.ReadOnly {
		return nil // what a crash left is removed by the next Open that may
	}
	return errors.Join(db.checkLog(known, needed, taken, on), db.checkForgotten(known, names))
}

// knownFiles is what the directory may hold at one moment.
type knownFiles struct {
	tables   map[uint64]bool // listed by a version that somebody reads, or being made
	next     uint64          // tables from here on came later
	segments []uint64        // all there are: taken, ready and spare
}

// knownTables also checks the counts of references. The caller holds installing, which is let go
// while it waits: the cleaner may wait for a reader, and flushes would wait with it. While they
// follow each other without a pause, Check may have to wait again. Tables that are made from now on
// have higher numbers, and files go before what is known of them does.
func (db *DB) knownTables(known *knownFiles) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	for db.cleaning || db.releasingLocked() {
		db.installing.Unlock()
		for db.cleaning || db.releasingLocked() {
			db.work.Wait()
		}
		db.mu.Unlock()
		db.installing.Lock() // always before mu
		db.mu.Lock()
	}
	counts := stateCounts{
		versions: make(map[*version]int32),
		tables:   make(map[*table]int32),
		mems:     make(map[*memtable]int32),
	}
	counts.add(db.state.Load())
	for s := range db.older {
		counts.add(s)
	}
	for num := range db.making {
		known.tables[num] = true
	}
	for t := range counts.tables {
		known.tables[t.meta.Num] = true
	}
	known.next = db.fileNum.Load()
	return counts.check()
}

// neededSegments returns the segments of the memtables.
func (db *DB) neededSegments() []uint64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	s := db.state.Load()
	needed := []uint64{s.mem.segment}
	for _, m := range s.frozen {
		needed = append(needed, m.segment)
	}
	return needed
}

// releasingLocked reports whether the last reference to a state is gone and the state is not with
// the cleaner yet: whoever released it is on the way to mu.
func (db *DB) releasingLocked() bool {
	for s := range db.older {
		if s.refs.Sum() == 0 && !slices.Contains(db.dead, s) {
			return true
		}
	}
	return false
}

// stateCounts is how often the read states refer to their parts.
type stateCounts struct {
	versions map[*version]int32
	tables   map[*table]int32 // by how many versions
	mems     map[*memtable]int32
}

func (c *stateCounts) add(s *readState) {
	for _, m := range append(slices.Clone(s.frozen), s.mem) {
		c.mems[m]++
	}
	if c.versions[s.version]++; c.versions[s.version] > 1 {
		return
	}
	for _, tables := range s.version.tables {
		for _, t := range tables {
			c.tables[t]++
		}
	}
}

func (c *stateCounts) check() error {
	for v, n := range c.versions {
		if got := v.states.Load(); got != n {
			return fmt.Errorf("lsm: a version counts %d read states, but %d hold it", got, n)
		}
	}
	for t, n := range c.tables {
		if got := t.refs.Load(); got != n {
			return fmt.Errorf("lsm: %s counts %d versions, but %d list it", t.name, got, n)
		}
	}
	for m, n := range c.mems {
		if got := m.refs.Load(); got != n {
			return fmt.Errorf("lsm: a memtable counts %d read states, but %d reach it", got, n)
		}
	}
	return nil
}

// unretiredMax is how many segments may be taken that no memtable of the current state has: one
// that a commit has taken for its next memtable, one whose memtable a flush has just written.
const unretiredMax = 2

// checkLog compares the segments: what the memtables need, what was handed out, what is there.
func (db *DB) checkLog(
	known *knownFiles, needed, taken []uint64, on map[string]bool,
) error {
	for _, num := range needed {
		if !slices.Contains(taken, num) {
			return fmt.Errorf("lsm: log segment %d is needed, but was retired", num)
		}
	}
	if extra := len(taken) - len(needed); extra > unretiredMax && db.failure.Load() == nil {
		return fmt.Errorf("lsm: %d log segments are needed no more, but were not retired", extra)
	}
	for _, num := range known.segments {
		if name := logName(db.dir, num); !on[filepath.Base(name)] {
			return fmt.Errorf("lsm: %s is missing", name)
		}
	}
	return nil
}

// checkForgotten looks for files that nobody knows of. The caller holds installing.
func (db *DB) checkForgotten(known *knownFiles, names []string) error {
	left := db.remover.leftovers()
	settled := db.manifest.w != nil // else a manifest that failed may be there, and its CURRENT.tmp
	var errs []error
	for _, base := range names {
		name := filepath.Join(db.dir, base)
		kind, num := parseName(base)
		forgotten := false
		switch kind {
		case fileTable:
			forgotten = num < known.next && !known.tables[num]
		case fileLog:
			forgotten = !slices.Contains(known.segments, num)
		case fileManifest:
			forgotten = settled && num != db.manifest.num
		case fileTemp:
			forgotten = settled || base != currentName+tempSuffix
		}
		if _, ok := left[name]; forgotten && !ok {
			errs = append(errs, fmt.Errorf("lsm: %s is there, but nobody needs it", name))
		}
	}
	if settled && !slices.Contains(names, filepath.Base(manifestName(db.dir, db.manifest.num))) {
		errs = append(errs, fmt.Errorf("lsm: manifest %d is missing", db.manifest.num))
	}
	return errors.Join(errs...)
}
