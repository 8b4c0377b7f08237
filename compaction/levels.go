package compaction

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"kvd/sstable"
)

// NumLevels is the number of levels of the tree, level 0 included.
const NumLevels = 7

const bottomLevel = NumLevels - 1

// Levels is the shape of the tree: which table stands where.
//
// Level 0 holds flushed memtables, newest first; they may overlap. Levels 1 and up are sorted by
// key and disjoint in user keys: no user key stands in two tables of one level. Whatever a level
// holds of a user key is newer than all that the levels below it hold.
//
// A Levels is a value. Its slices are never changed once built (Apply makes new ones and shares
// the untouched levels), so any number of goroutines may read it.
type Levels [NumLevels][]*sstable.Meta

// Sizes is the bytes of tables in each level.
type Sizes [NumLevels]uint64

// Total returns the bytes of all levels.
func (s *Sizes) Total() uint64 {
	var n uint64
	for _, b := range s {
		n += b
	}
	return n
}

// Sizes adds up the bytes of each level.
func (l *Levels) Sizes() Sizes {
	var s Sizes
	for i := range l {
		s[i] = tablesBytes(l[i])
	}
	return s
}

// Bottom returns the deepest level that has tables, 0 for an empty tree.
func (l *Levels) Bottom() int {
	for i := bottomLevel; i > 0; i-- {
		if len(l[i]) > 0 {
			return i
		}
	}
	return 0
}

// Overlaps returns the tables of a level whose user keys intersect [lo, hi], both inclusive, nil
// meaning open, in the order of the level. Below level 0 the result is a part of the level itself:
// do not change it. O(log n) there, O(n) in level 0.
func (l *Levels) Overlaps(level int, lo, hi []byte) []*sstable.Meta {
	tables := l[level]
	if level == 0 {
		var found []*sstable.Meta
		for _, m := range tables {
			if m.Overlaps(lo, hi) {
				found = append(found, m)
			}
		}
		return found
	}
	from, to := 0, len(tables)
	if lo != nil {
		from = searchLargest(tables, lo)
	}
	if hi != nil {
		to = from + searchAfter(tables[from:], hi)
	}
	return tables[from:to:to]
}

// searchLargest returns the index of the first table that ends at or after user.
func searchLargest(tables []*sstable.Meta, user []byte) int {
	i, j := 0, len(tables)
	for i < j {
		h := int(uint(i+j) >> 1)
		if bytes.Compare(tables[h].Largest.User, user) < 0 {
			i = h + 1
		} else {
			j = h
		}
	}
	return i
}

// searchAfter returns the index of the first table that starts after user. The answer is nearly
// always close to the front, so it doubles its step from there.
func searchAfter(tables []*sstable.Meta, user []byte) int {
	i, j, step := 0, 0, 1
	for j < len(tables) && bytes.Compare(tables[j].Smallest.User, user) <= 0 {
		i = j + 1
		j += step
		step *= 2
	}
	j = min(j, len(tables))
	for i < j {
		h := int(uint(i+j) >> 1)
		if bytes.Compare(tables[h].Smallest.User, user) <= 0 {
			i = h + 1
		} else {
			j = h
		}
	}
	return i
}

// Change is a step from one Levels to the next: tables taken out of and put into each level.
// Below level 0 both lists are sorted by key.
type Change struct {
	Removed, Added [NumLevels][]*sstable.Meta
}

// Apply returns the levels after the change, sharing what did not change with l. It refuses a
// change that removes a table that is not there or leaves overlapping tables below level 0.
func (l *Levels) Apply(c *Change) (Levels, error) {
	next := *l
	for i := range next {
		if len(c.Removed[i]) == 0 && len(c.Added[i]) == 0 {
			continue
		}
		var err error
		if i == 0 {
			next[i], err = spliceRuns(l[i], c.Removed[i], c.Added[i])
		} else {
			next[i], err = spliceSorted(l[i], c.Removed[i], c.Added[i])
		}
		if err != nil {
			return *l, fmt.Errorf("compaction: change of level %d: %w", i, err)
		}
	}
	return next, nil
}

// spliceRuns is Apply for level 0.
func spliceRuns(tables, removed, added []*sstable.Meta) ([]*sstable.Meta, error) {
	out := make([]*sstable.Meta, 0, len(tables)+len(added))
	gone := 0
	for _, m := range tables {
		if containsNum(removed, m.Num) {
			gone++
		} else {
			out = append(out, m)
		}
	}
	if gone != len(removed) {
		return nil, fmt.Errorf("%d tables to remove, %d of them present", len(removed), gone)
	}
	out = append(out, added...)
	sortRuns(out)
	return out, nil
}

// spliceSorted is Apply below level 0. It copies pointers in whole stretches and looks at tables
// only around what changes.
func spliceSorted(tables, removed, added []*sstable.Meta) ([]*sstable.Meta, error) {
	out := make([]*sstable.Meta, 0, max(len(tables)+len(added)-len(removed), 0))
	put := func(stretch ...*sstable.Meta) error {
		if len(out) > 0 && len(stretch) > 0 {
			if err := checkNeighbours(out[len(out)-1], stretch[0]); err != nil {
				return err
			}
		}
		out = append(out, stretch...)
		return nil
	}
	for len(removed) > 0 || len(added) > 0 {
		takeOut := len(added) == 0 || len(removed) > 0 &&
			bytes.Compare(removed[0].Smallest.User, added[0].Smallest.User) <= 0
		next := added
		if takeOut {
			next = removed
		}
		at := searchSmallest(tables, next[0].Smallest.User)
		if err := put(tables[:at]...); err != nil {
			return nil, err
		}
		tables = tables[at:]
		if !takeOut {
			if err := put(added[0]); err != nil {
				return nil, err
			}
			added = added[1:]
			continue
		}
		if len(tables) == 0 || tables[0].Num != removed[0].Num {
			return nil, fmt.Errorf("table %d to remove is not there", removed[0].Num)
		}
		tables, removed = tables[1:], removed[1:]
	}
	if err := put(tables...); err != nil {
		return nil, err
	}
	return out, nil
}

// searchSmallest returns the index of the first table that starts at or after user, trying the
// front first: the tables of one change are neighbours.
func searchSmallest(tables []*sstable.Meta, user []byte) int {
	if len(tables) == 0 || bytes.Compare(tables[0].Smallest.User, user) >= 0 {
		return 0
	}
	i, j := 1, len(tables)
	for i < j {
		h := int(uint(i+j) >> 1)
		if bytes.Compare(tables[h].Smallest.User, user) < 0 {
			i = h + 1
		} else {
			j = h
		}
	}
	return i
}

// Sort puts every level in its order, in place. It is for whoever builds a Levels from a log of
// changes and has not shown it to anyone yet.
func (l *Levels) Sort() {
	sortRuns(l[0])
	for i := 1; i < NumLevels; i++ {
		slices.SortFunc(l[i], func(a, b *sstable.Meta) int {
			return sstable.Compare(a.Smallest, b.Smallest)
		})
	}
}

// sortRuns orders level 0, newest first. Tables of one flush (equal sequence bounds, disjoint
// keys) are ordered by number so that the order is a function of the set.
func sortRuns(tables []*sstable.Meta) {
	slices.SortFunc(tables, func(a, b *sstable.Meta) int {
		return cmp.Or(cmp.Compare(b.MaxSeq, a.MaxSeq), cmp.Compare(b.Num, a.Num))
	})
}

func containsNum(tables []*sstable.Meta, num uint64) bool {
	for _, m := range tables {
		if m.Num == num {
			return true
		}
	}
	return false
}

func tablesBytes(tables []*sstable.Meta) uint64 {
	var n uint64
	for _, m := range tables {
		n += m.Bytes
	}
	return n
}
