package lsm

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"

	"kvd/compaction"
	"kvd/lsm/vfs"
	"kvd/sstable"
)

// table is one open SSTable. Versions share it and count themselves; when the last one goes, the
// cleaner closes the file and removes it.
type table struct {
	meta   *sstable.Meta
	name   string
	file   vfs.File
	reader *sstable.Reader
	refs   atomic.Int32 // versions that list it
	mark   scrubMark

	db        *DB
	damageMet atomic.Bool // by a read, since Open
}

// get is sstable.Reader.Get with the file's name in the error, or TryGet.
func (t *table) get(dst, user []byte, hash uint64, at sstable.Seq, wait bool) (
	value []byte, kind sstable.Kind, ok bool, err error,
) {
	if !wait {
		value, kind, _, ok, err = t.reader.TryGet(dst, user, hash, at)
	} else {
		value, kind, _, ok, err = t.reader.Get(dst, user, hash, at)
	}
	if err != nil && err != sstable.ErrNotCached {
		err = inFile(err, t.name)
		t.met(err)
	}
	return value, kind, ok, err
}

func (t *table) covers(user []byte) bool {
	return bytes.Compare(t.meta.Smallest.User, user) <= 0 &&
		bytes.Compare(user, t.meta.Largest.User) <= 0
}

// version is an immutable list of the tables of one moment: what the picker sees (levels) and what
// readers use (tables), index by index the same.
type version struct {
	levels compaction.Levels
	tables [compaction.NumLevels][]*table
	states atomic.Int32 // read states that hold it
}

// with returns the version after e, sharing the levels that e leaves alone. tables has every table
// that v or e lists, by number. The new version holds a reference to each of its tables.
func (v *version) with(e *edit, tables map[uint64]*table) (*version, error) {
	var change compaction.Change
	for _, r := range e.removed {
		t := tables[r.num]
		if t == nil {
			return nil, fmt.Errorf("%w: removes table %d, which is not there", errEdit, r.num)
		}
		change.Removed[r.level] = append(change.Removed[r.level], t.meta)
	}
	for _, a := range e.added {
		if tables[a.meta.Num] == nil {
			return nil, fmt.Errorf("%w: table %d is not open", errEdit, a.meta.Num)
		}
		change.Added[a.level] = append(change.Added[a.level], a.meta)
	}
	for level := 1; level < compaction.NumLevels; level++ {
		sortByKey(change.Removed[level])
		sortByKey(change.Added[level])
	}
	levels, err := v.levels.Apply(&change)
	if err != nil {
		return nil, err
	}
	next := &version{levels: levels, tables: v.tables}
	for level, metas := range levels {
		if len(change.Removed[level])+len(change.Added[level]) > 0 {
			next.tables[level] = make([]*table, len(metas))
			for i, m := range metas {
				next.tables[level][i] = tables[m.Num]
			}
		}
		for _, t := range next.tables[level] {
			t.refs.Add(1)
		}
	}
	return next, nil
}

func sortByKey(metas []*sstable.Meta) {
	slices.SortFunc(metas, func(a, b *sstable.Meta) int {
		return sstable.Compare(a.Smallest, b.Smallest)
	})
}

// find returns the index of the first table of a sorted level whose keys end at or after user.
func find(tables []*table, user []byte) int {
	lo, hi := 0, len(tables)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if bytes.Compare(tables[mid].meta.Largest.User, user) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// get finds the newest version of user that is not newer than at. Runs are asked newest first, so
// the first answer is the answer.
func (v *version) get(dst, user []byte, hash uint64, at sstable.Seq, wait bool) (
	value []byte, kind sstable.Kind, ok bool, err error,
) {
	for _, t := range v.tables[0] {
		if !t.covers(user) {
			continue
		}
		if value, kind, ok, err = t.get(dst, user, hash, at, wait); ok || err != nil {
			return value, kind, ok, err
		}
	}
	for level := 1; level < compaction.NumLevels; level++ {
		tables := v.tables[level]
		if i := find(tables, user); i < len(tables) && tables[i].covers(user) {
			if value, kind, ok, err = tables[i].get(dst, user, hash, at, wait); ok || err != nil {
				return value, kind, ok, err
			}
		}
	}
	return dst, 0, false, nil
}

// lacks returns those of added that the version does not list on any level.
func (v *version) lacks(added []leveledTable) []leveledTable {
	return slices.DeleteFunc(slices.Clone(added), func(a leveledTable) bool {
		for _, tables := range v.tables {
			if slices.ContainsFunc(tables, func(t *table) bool {
				return t.meta.Num == a.meta.Num
			}) {
				return true
			}
		}
		return false
	})
}

// unref gives up a version that never became current.
func (v *version) unref() {
	for _, tables := range v.tables {
		for _, t := range tables {
			t.refs.Add(-1)
		}
	}
}

// all returns the edit that lists every table.
func (v *version) all() []leveledTable {
	var added []leveledTable
	for level, metas := range v.levels {
		for _, m := range metas {
			added = append(added, leveledTable{level, m})
		}
	}
	return added
}
