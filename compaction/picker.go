package compaction

import (
	"bytes"
	"slices"

	"kvd/sstable"
)

const (
	// pickWindow is how many tables of a level, from the cursor on, compete to be compacted next.
	// In TestSimulate, with skewed keys, 1 (plain round robin) writes 13 % more than 32, and 64 or
	// all tables save nothing more. With uniform keys round robin would write 6 % less.
	pickWindow = 32
	// maxJobTables bounds how far inputs are extended, in tables of the target level.
	maxJobTables = 25
	// maxGrandparentTables bounds the overlap of one table with the level below its own, in
	// tables of its own size: it is what compacting that table will cost later.
	maxGrandparentTables = 10
)

// Picker chooses the next job. It keeps a cursor per level so that all of a level's key range gets
// its turn, and remembers level sizes between calls; both are hints, and a new Picker makes correct
// choices from the start. Used by one goroutine at a time.
//
// Jobs that run at the same time never get in each other's way: a job is not picked if one of its
// inputs is busy, and its inputs are all tables of its source and target level that share
// keys with it. Two jobs with the same target therefore have disjoint ranges.
type Picker struct {
	config Config
	cursor [NumLevels][]byte // largest user key of the table taken last
	sizes  sizeMemo
}

// NewPicker returns a Picker for a tree kept in the given shape.
func NewPicker(c Config) *Picker { return &Picker{config: c.WithDefaults()} }

// Pick returns the most urgent job that can start now, or false when the tree is in shape or what
// is out of shape is busy. busy tells the tables that running jobs use as inputs; nil means none.
func (p *Picker) Pick(l *Levels, busy func(num uint64) bool) (Job, bool) {
	sizes := p.sizes.of(l)
	zero := float64(len(l[0]))
	targets := p.config.Targets(&sizes)
	scores := p.config.Scores(&sizes, &targets, zero)
	if busy != nil {
		// What running jobs take is as good as gone. Only levels that would be picked are
		// looked through.
		for i := range scores {
			if scores[i] >= 1 {
				n, b := busyIn(l[i], busy)
				sizes[i] -= b
				if i == 0 {
					zero -= float64(n)
				}
			}
		}
		scores = p.config.Scores(&sizes, &targets, zero)
	}
	reserved := -1
	for {
		level := 0
		for i := range scores {
			if scores[i] > scores[level] {
				level = i
			}
		}
		if scores[level] < 1 {
			return Job{}, false
		}
		scores[level] = 0
		if level == 0 {
			if j, ok := p.pickZero(l, &targets, busy); ok {
				return j, true
			}
			// Level 0 waits for tables of the base level. Let nobody else take some, or the
			// jobs of the base level could keep it waiting in turns for ever.
			reserved = targets.Base
			continue
		}
		if level == reserved {
			continue
		}
		if j, ok := p.pickTable(l, &targets, level, busy); ok {
			return j, true
		}
	}
}

// PickIdle returns a job that the tree does not call for but reads gain by, for when nobody writes:
// one that merges what there is of level 0. It may cost as much as jobs of other levels do, which
// rewrite about Multiplier bytes for each that they take down; level 0 by itself calls for one that
// rewrites about one. More is not worth it: somebody may write again.
func (p *Picker) PickIdle(l *Levels, busy func(num uint64) bool) (Job, bool) {
	sizes := p.sizes.of(l)
	targets := p.config.Targets(&sizes)
	j, ok := p.pickZero(l, &targets, busy)
	zero, base := tablesBytes(j.Inputs[0]), tablesBytes(j.Inputs[1])
	if !ok || base > uint64(p.config.Multiplier)*zero {
		return Job{}, false
	}
	j.Idle, j.Reason = true, "idle"
	return j, true
}

// pickZero picks level-0 tables to merge into the base level. A table may go down only together
// with every other that shares keys with it, directly or through others: older ones must not be
// overtaken, and leaving newer ones would only rewrite the same part of the base level twice. Of
// several such groups it takes the largest, of equals the oldest.
func (p *Picker) pickZero(l *Levels, t *Targets, busy func(uint64) bool) (Job, bool) {
	var best, bestLower []*sstable.Meta
	taken := make([]bool, len(l[0]))
	for seed := len(l[0]) - 1; seed >= 0; seed-- {
		if taken[seed] {
			continue
		}
		group, lo, hi := closeOver(l[0], seed, taken)
		if len(group) <= len(best) || anyBusy(group, busy) {
			continue
		}
		lower := l.Overlaps(t.Base, lo, hi)
		if anyBusy(lower, busy) {
			continue
		}
		best, bestLower = group, lower
	}
	if best == nil {
		return Job{}, false
	}
	j := makeJob(l, p.config, t, 0, t.Base, best, bestLower)
	j.Move = p.movable(&j)
	j.Reason = "level 0"
	return j, true
}

// closeOver returns the tables connected to tables[seed] by shared keys, in order, and the range
// of user keys they cover without a gap. It marks them in taken.
func closeOver(tables []*sstable.Meta, seed int, taken []bool) (group []*sstable.Meta,
	lo, hi []byte) {
	in := make([]bool, len(tables))
	in[seed] = true
	lo, hi = tables[seed].Smallest.User, tables[seed].Largest.User
	for grown := true; grown; {
		grown = false
		for i, m := range tables {
			if in[i] || !m.Overlaps(lo, hi) {
				continue
			}
			in[i], grown = true, true
			if bytes.Compare(m.Smallest.User, lo) < 0 {
				lo = m.Smallest.User
			}
			if bytes.Compare(m.Largest.User, hi) > 0 {
				hi = m.Largest.User
			}
		}
	}
	for i, m := range tables {
		if in[i] {
			taken[i] = true
			group = append(group, m)
		}
	}
	return group, lo, hi
}

// pickTable picks a table of the level to merge into the next one: of the pickWindow tables after
// the cursor, the one that costs the fewest bytes of the next level per byte it brings. Tombstones
// count double, as what they delete is freed too.
func (p *Picker) pickTable(l *Levels, t *Targets, level int, busy func(uint64) bool) (Job, bool) {
	tables := l[level]
	start := 0
	if p.cursor[level] != nil {
		start = searchAfter(tables, p.cursor[level])
	}
	best, bestCost := -1, 0.0
	var bestLower []*sstable.Meta
	next, at := l[level+1], 0 // at walks along with the candidates
	for n, free := 0, 0; n < len(tables) && free < pickWindow; n++ {
		i := start + n
		if i >= len(tables) {
			i -= len(tables)
		}
		m := tables[i]
		if n == 0 || i == 0 {
			at = searchLargest(next, m.Smallest.User)
		}
		for at < len(next) && bytes.Compare(next[at].Largest.User, m.Smallest.User) < 0 {
			at++
		}
		if busy != nil && busy(m.Num) {
			continue
		}
		lower := next[at:]
		lower = lower[:searchAfter(lower, m.Largest.User)]
		if anyBusy(lower, busy) {
			continue
		}
		free++
		worth := float64(m.Bytes) * (1 + float64(m.Tombstones)/float64(max(m.Entries, 1)))
		cost := float64(tablesBytes(lower)) / worth
		if best < 0 || cost < bestCost {
			best, bestCost, bestLower = i, cost, slices.Clip(lower)
		}
	}
	if best < 0 {
		return Job{}, false
	}
	limit := maxJobTables * p.config.tableBytes(t, level+1)
	upper := extend(tables, best, bestLower, next, limit, busy)
	j := makeJob(l, p.config, t, level, level+1, upper, bestLower)
	j.Move = p.movable(&j)
	j.Reason = "size"
	if level < t.Drain {
		j.Reason = "drain"
	}
	p.cursor[level] = append(p.cursor[level][:0], upper[len(upper)-1].Largest.User...)
	return j, true
}

// extend adds neighbours of tables[at] that share keys with lower, the tables of the next level
// that are going to be rewritten anyway, but with no others of that level: they come along for
// the price of their own bytes.
func extend(tables []*sstable.Meta, at int, lower, next []*sstable.Meta, limit uint64,
	busy func(uint64) bool) []*sstable.Meta {
	from, to := at, at+1
	if len(lower) == 0 {
		return tables[from:to:to]
	}
	lo, hi := lower[0].Smallest.User, lower[len(lower)-1].Largest.User
	first := searchLargest(next, lo)
	after := first + len(lower)
	size := tables[at].Bytes + tablesBytes(lower)
	fits := func(m *sstable.Meta) bool {
		if !m.Overlaps(lo, hi) || size+m.Bytes > limit || busy != nil && busy(m.Num) {
			return false
		}
		if first > 0 && bytes.Compare(m.Smallest.User, next[first-1].Largest.User) <= 0 {
			return false
		}
		if after < len(next) && bytes.Compare(m.Largest.User, next[after].Smallest.User) >= 0 {
			return false
		}
		size += m.Bytes
		return true
	}
	for to < len(tables) && fits(tables[to]) {
		to++
	}
	for from > 0 && fits(tables[from-1]) {
		from--
	}
	return tables[from:to:to]
}

// movable reports whether the job can be done without reading or writing a table: one table comes
// down into a gap of the target level. Not if that would make a table that is too costly to
// compact further, nor if rewriting it now would rid the tree of tombstones.
func (p *Picker) movable(j *Job) bool {
	if len(j.Inputs[0]) != 1 || len(j.Inputs[1]) > 0 {
		return false
	}
	deeper := false
	for _, run := range j.Below {
		deeper = deeper || len(run) > 0
	}
	if !deeper {
		return j.Inputs[0][0].Tombstones == 0
	}
	return tablesBytes(j.Below[0]) <= maxGrandparentTables*max(j.TableBytes, j.Inputs[0][0].Bytes)
}

func anyBusy(tables []*sstable.Meta, busy func(uint64) bool) bool {
	if busy == nil {
		return false
	}
	for _, m := range tables {
		if busy(m.Num) {
			return true
		}
	}
	return false
}

func busyIn(tables []*sstable.Meta, busy func(uint64) bool) (n int, size uint64) {
	for _, m := range tables {
		if busy(m.Num) {
			n++
			size += m.Bytes
		}
	}
	return n, size
}

// sizeMemo keeps the sizes of the levels seen last. A level that changed differs from its
// predecessor in one stretch, so comparing pointers from both ends and adding up only the middle
// saves the walk over all tables. It relies on the slices of a Levels never being changed.
type sizeMemo struct {
	levels Levels
	sizes  Sizes
}

func (s *sizeMemo) of(l *Levels) Sizes {
	for i := range l {
		was, is := s.levels[i], l[i]
		if len(was) == len(is) && (len(is) == 0 || &was[0] == &is[0]) {
			continue
		}
		for len(was) > 0 && len(is) > 0 && was[0] == is[0] {
			was, is = was[1:], is[1:]
		}
		for len(was) > 0 && len(is) > 0 && was[len(was)-1] == is[len(is)-1] {
			was, is = was[:len(was)-1], is[:len(is)-1]
		}
		s.sizes[i] += tablesBytes(is) - tablesBytes(was)
		s.levels[i] = l[i]
	}
	return s.sizes
}
