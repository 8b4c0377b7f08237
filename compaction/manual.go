package compaction

import (
	"bytes"

	"kvd/sstable"
)

// Step is the state of a manual compaction.
type Step uint8

const (
	Ready   Step = iota // a job is returned: run and install it, then ask again
	Blocked             // tables it needs are busy: ask again when a running job has ended
	Done
)

// Manual is the plan of a compaction that was asked for: everything in a range of keys goes down,
// level by level, to the deepest level that has data, and tombstones there are rewritten away.
// What is written while it is under way is left alone, so it ends. Used by one goroutine at a time.
//
// Next may be called on any later state of the tree, with automatic jobs in between. If a job it
// returned fails, start over with a new Manual.
type Manual struct {
	lo, hi []byte      // inclusive, nil is open
	upTo   sstable.Seq // level-0 tables newer than this came later

	level  int
	bottom int    // when the level was entered
	cursor []byte // largest user key that the level is done up to, nil at its start
	end    []byte // largest user key of the level's tables in range when it was entered
}

// NewManual plans a compaction of the user keys in [lo, hi], both inclusive, nil meaning open.
// It copies the bounds.
func NewManual(l *Levels, lo, hi []byte) *Manual {
	m := &Manual{lo: bytes.Clone(lo), hi: bytes.Clone(hi)}
	for _, t := range l[0] {
		m.upTo = max(m.upTo, t.MaxSeq)
	}
	return m
}

// Next returns the next job, if the step is Ready. busy is as for Picker.Pick.
func (m *Manual) Next(l *Levels, c Config, busy func(num uint64) bool) (Job, Step) {
	c = c.WithDefaults()
	sizes := l.Sizes()
	t := c.Targets(&sizes)
	if m.level == 0 {
		if j, step := m.fromZero(l, c, &t, busy); step != Done {
			return j, step
		}
		m.enter(l, t.Base)
	}
	bottom := l.Bottom()
	if bottom > m.bottom {
		m.enter(l, m.level) // an automatic job has begun a deeper level: what is done here goes on
	}
	for ; m.level < bottom; m.enter(l, m.level+1) {
		if j, step := m.fromLevel(l, c, &t, busy); step != Done {
			return j, step
		}
	}
	if m.level == bottom && bottom > 0 {
		if j, step := m.rewrite(l, c, &t, busy); step != Done {
			return j, step
		}
		m.level++
	}
	return Job{}, Done
}

// enter begins a level: its tables of now are to be done. Later ones do not count, or the plan
// might never end.
func (m *Manual) enter(l *Levels, level int) {
	m.level, m.bottom, m.cursor, m.end = level, l.Bottom(), nil, nil
	if level >= NumLevels {
		return
	}
	if tables := l.Overlaps(level, m.lo, m.hi); len(tables) > 0 {
		m.end = bytes.Clone(tables[len(tables)-1].Largest.User)
	}
}

// fromZero merges one group of level-0 tables that share keys into the base level.
func (m *Manual) fromZero(l *Levels, c Config, t *Targets, busy func(uint64) bool) (Job, Step) {
	taken := make([]bool, len(l[0]))
	step := Done
	for seed := len(l[0]) - 1; seed >= 0; seed-- {
		table := l[0][seed]
		if taken[seed] || table.MinSeq > m.upTo || !table.Overlaps(m.lo, m.hi) {
			continue
		}
		group, lo, hi := closeOver(l[0], seed, taken)
		lower := l.Overlaps(t.Base, lo, hi)
		if anyBusy(group, busy) || anyBusy(lower, busy) {
			step = Blocked
			continue
		}
		return m.job(l, c, t, 0, t.Base, group, lower), Ready
	}
	return Job{}, step
}

// fromLevel merges the next tables after the cursor into the level below, as many as make a job of
// moderate size. A further table must begin within what the job has of the level below: with a gap
// between its inputs an output could span keys that another job, which shares no table with this
// one, is writing.
func (m *Manual) fromLevel(l *Levels, c Config, t *Targets, busy func(uint64) bool) (Job, Step) {
	tables := m.ahead(l)
	if len(tables) == 0 {
		return Job{}, Done
	}
	limit := maxJobTables * c.tableBytes(t, m.level+1)
	n, lower := 1, l.Overlaps(m.level+1, tables[0].Smallest.User, tables[0].Largest.User)
	for n < len(tables) && len(lower) > 0 &&
		bytes.Compare(tables[n].Smallest.User, lower[len(lower)-1].Largest.User) <= 0 &&
		tablesBytes(tables[:n])+tablesBytes(lower) < limit {
		n++
		lower = l.Overlaps(m.level+1, tables[0].Smallest.User, tables[n-1].Largest.User)
	}
	if anyBusy(tables[:n], busy) || anyBusy(lower, busy) {
		return Job{}, Blocked
	}
	m.cursor = bytes.Clone(tables[n-1].Largest.User)
	return m.job(l, c, t, m.level, m.level+1, tables[:n:n], lower), Ready
}

// rewrite replaces the next bottom table that holds tombstones. There may be some: a snapshot held
// them back when they arrived. One at a time, so that no output spans a gap, see fromLevel.
func (m *Manual) rewrite(l *Levels, c Config, t *Targets, busy func(uint64) bool) (Job, Step) {
	tables := m.ahead(l)
	for len(tables) > 0 && tables[0].Tombstones == 0 {
		tables = tables[1:]
	}
	if len(tables) == 0 {
		return Job{}, Done
	}
	if anyBusy(tables[:1], busy) {
		return Job{}, Blocked
	}
	m.cursor = bytes.Clone(tables[0].Largest.User)
	return m.job(l, c, t, m.level, m.level, tables[:1:1], nil), Ready
}

// ahead returns the tables of the current level in the range and after the cursor.
func (m *Manual) ahead(l *Levels) []*sstable.Meta {
	if m.end == nil {
		return nil
	}
	tables := l.Overlaps(m.level, m.lo, m.end)
	if m.cursor != nil {
		tables = tables[searchAfter(tables, m.cursor):]
	}
	return tables
}

// job makes the job; a lone table without tombstones that meets nothing is moved.
func (m *Manual) job(l *Levels, c Config, t *Targets, level, target int,
	upper, lower []*sstable.Meta) Job {
	j := makeJob(l, c, t, level, target, upper, lower)
	j.Reason = "manual"
	j.Move = level != target && len(upper) == 1 && len(lower) == 0 && upper[0].Tombstones == 0
	return j
}
