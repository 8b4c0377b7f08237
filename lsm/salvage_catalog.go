package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"kvd/sstable"
	"kvd/wal"
)

// catalog is what the manifests tell of a database, as far as they can be read.
type catalog struct {
	// sound: one manifest tells it all. Else edits are missing, and a table that is on disk is used
	// unless an edit says that it was replaced.
	sound bool
	live  map[uint64]leveledTable
	dead  map[uint64]bool

	databaseID uint64 // 0 if nobody knows
	logSegment uint64
	logStart   wal.Pos
	logEnd     wal.Pos
	lastSeq    sstable.Seq

	tables []*salvageTable
	logs   []uint64
}

// salvageTable is a table to read.
type salvageTable struct {
	id     sstable.ID
	meta   *sstable.Meta // nil if nobody knows
	name   string        // of the file; of the file that should be, if it is missing
	level  int           // -1 if nobody knows
	from   []byte        // bounds; nil is open
	to     []byte
	gone   string // why nothing can be read; empty if something can
	losses int
	found  uint64
}

// edit takes in the next edit. whole says that it is the first of its manifest, which states
// everything.
func (c *catalog) edit(e *edit, whole bool) {
	for _, r := range e.removed {
		delete(c.live, r.num)
		c.dead[r.num] = true
	}
	if whole {
		for num := range c.live {
			c.dead[num] = true
		}
		clear(c.live)
	}
	for _, a := range e.added {
		c.live[a.meta.Num] = a
		delete(c.dead, a.meta.Num) // moved to another level
	}
	if e.logSegment >= c.logSegment && e.logSegment != 0 {
		c.logSegment, c.logStart = e.logSegment, e.logStart
	}
	if e.databaseID != 0 {
		c.databaseID = e.databaseID
	}
	c.logEnd = e.logEnd
	c.lastSeq = max(c.lastSeq, e.lastSeq)
}

// dirFiles are the files of the source.
type dirFiles struct {
	tables, logs, manifests []uint64
	on                      map[uint64]bool // tables
}

func (s *salvage) listSource() (f dirFiles, err error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return f, err
	}
	f.on = make(map[uint64]bool)
	current := false
	for _, base := range names {
		switch kind, num := parseName(base); kind {
		case fileTable:
			f.tables, f.on[num] = append(f.tables, num), true
		case fileLog:
			f.logs = append(f.logs, num)
		case fileManifest:
			f.manifests = append(f.manifests, num)
		case fileTemp:
			s.note(filepath.Join(s.dir, base), -1, "an unfinished file: left aside")
		default:
			current = current || base == currentName
			if base != currentName && base != lockName {
				s.note(filepath.Join(s.dir, base), -1, "no file of the engine: left aside")
			}
		}
	}
	for _, nums := range [][]uint64{f.tables, f.logs, f.manifests} {
		slices.Sort(nums)
	}
	if !current && len(f.tables)+len(f.logs)+len(f.manifests) == 0 {
		return f, fmt.Errorf("no database there: %w", fs.ErrNotExist)
	}
	return f, nil
}

// readCatalog finds out what to read.
func (s *salvage) readCatalog() error {
	files, err := s.listSource()
	if err != nil {
		return err
	}
	if err := s.readManifests(files); err != nil {
		return err
	}
	c := &s.catalog
	if c.sound && s.behind(files) {
		// Its last edits are missing, and look as if they had never been synced.
		c.sound = false
		s.doubt(s.report.Manifest, "it lists a file that is gone, while there are tables that it "+
			"does not list: its last edits may be missing")
	}
	if err := s.findTables(files); err != nil {
		return err
	}
	s.newest = c.lastSeq
	for _, t := range c.tables {
		if t.meta != nil && t.gone == "" {
			s.newest = max(s.newest, t.meta.MaxSeq)
		}
	}
	c.logs = files.logs
	return nil
}

// allKeys is a MayBeOld that is cut to the number of keys in the end.
const allKeys = ^uint64(0)

// doubt lists that the set of tables is a guess.
func (s *salvage) doubt(file, reason string) {
	s.report.Manifest = ""
	reason += "; all tables and log segments that no readable edit calls replaced were used, so " +
		"deleted keys may be back and values may be old"
	s.lose(Loss{File: file, Offset: -1, Reason: reason, MayBeOld: allKeys})
}

// readManifests fills the catalog: from the manifest in force, else from the newest one, else from
// every edit that verifies in any of them.
func (s *salvage) readManifests(files dirFiles) error {
	current := filepath.Join(s.dir, currentName)
	num, err := readCurrent(s.fs, s.dir)
	if errors.Is(err, ErrFormat) && s.otherVersion(current) {
		return err
	}
	if err != nil && !damaging(err) {
		return err
	}
	inForce := err == nil
	if !inForce && len(files.manifests) > 0 {
		num = files.manifests[len(files.manifests)-1]
		s.note(current, -1, "cannot be read ("+reasonOf(err)+"): the newest manifest is taken "+
			"to be in force")
	}
	if inForce || len(files.manifests) > 0 {
		if err = s.readSound(num); err == nil {
			return nil
		}
		if !damaging(err) {
			return err
		}
	}
	reason := reasonOf(err)
	if !inForce && len(files.manifests) == 0 {
		reason = "there is no manifest, and CURRENT cannot be read (" + reason + ")"
	}
	if err := s.readPieces(files); err != nil {
		return err
	}
	name := current
	if inForce || len(files.manifests) > 0 {
		name = manifestName(s.dir, num)
	}
	s.doubt(name, reason)
	return nil
}

// otherVersion reports whether CURRENT is sound and names a format of this family.
func (s *salvage) otherVersion(name string) bool {
	line, err := readSmall(s.fs, name)
	return err == nil && strings.HasPrefix(line, formatFamily)
}

// damaging reports whether an error of reading the source means damage, and not, say, that there
// are no more file handles.
func damaging(err error) bool {
	_, corrupt := errors.AsType[*CorruptError](err)
	return corrupt || mediaError(err) || errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, ErrFormat) || errors.Is(err, wal.ErrVersion)
}

func reasonOf(err error) string {
	if e, ok := errors.AsType[*CorruptError](err); ok {
		return e.Reason
	}
	return err.Error()
}

func (c *catalog) reset() {
	*c = catalog{live: make(map[uint64]leveledTable), dead: make(map[uint64]bool)}
}

// readSound reads a manifest as Open does.
func (s *salvage) readSound(num uint64) error {
	c, first := &s.catalog, true
	c.reset()
	err := readManifest(s.fs, s.dir, num, func(e *edit) error {
		for _, r := range e.removed {
			if t, ok := c.live[r.num]; !ok || t.level != r.level {
				return fmt.Errorf("%w: removes table %d, which is not there", errEdit, r.num)
			}
		}
		c.edit(e, first)
		first = false
		return nil
	})
	c.sound = err == nil
	if err == nil {
		s.report.Manifest = manifestName(s.dir, num)
	}
	return err
}

// readPieces takes in every edit that verifies, of all manifests, oldest first.
func (s *salvage) readPieces(files dirFiles) error {
	s.catalog.reset()
	for _, num := range files.manifests {
		f, reason, err := openSource(s.fs, manifestName(s.dir, num))
		if err != nil {
			return err
		}
		if reason != "" {
			continue // the loss of the whole is listed
		}
		err = s.readPiecesOf(f, num)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *salvage) readPiecesOf(f *source, num uint64) error {
	r, err := wal.NewReader(wal.Segment{Number: num, R: f, Size: f.size})
	if _, ok := errors.AsType[*wal.CorruptError](err); ok || errors.Is(err, wal.ErrVersion) {
		return nil
	}
	if err != nil {
		return err
	}
	for r.Next() || r.Resync() {
		frame := r.Frame()
		whole := frame.Pos == 0
		for p := frame.Payload; len(p) > 0; {
			rec, rest, ok := wal.NextRecord(p)
			if !ok {
				break
			}
			if e, err := decodeEdit(rec); err == nil {
				s.catalog.edit(e, whole)
			}
			p, whole = rest, false
		}
	}
	return r.Err()
}

// behind reports whether files are gone that the manifest needs while there are tables that it does
// not know.
func (s *salvage) behind(files dirFiles) bool {
	c := &s.catalog
	gone := c.logSegment != 0 && !slices.Contains(files.logs, c.logSegment)
	for num := range c.live {
		gone = gone || !files.on[num]
	}
	if !gone {
		return false
	}
	return slices.ContainsFunc(files.tables, func(num uint64) bool {
		_, live := c.live[num]
		return !live && !c.dead[num]
	})
}

// findTables makes the list of tables to read and finds the file of each: by name, or by identity
// if files were renamed.
func (s *salvage) findTables(files dirFiles) error {
	c := &s.catalog
	named, byID := make(map[uint64]sstable.ID), make(map[sstable.ID]uint64)
	for _, num := range files.tables {
		id, err := s.readID(num)
		if err != nil {
			return err
		}
		if id != (sstable.ID{}) {
			named[num], byID[id] = id, num
		}
	}
	used := make(map[uint64]bool)
	for _, a := range c.live {
		t := &salvageTable{id: sstable.ID{Num: a.meta.Num, UID: a.meta.UID}, meta: a.meta,
			level: a.level, from: a.meta.Smallest.User, to: a.meta.Largest.User}
		num := a.meta.Num
		if named[num] != t.id { // nor when damage hides who it is
			if other, ok := byID[t.id]; ok {
				s.note(tableName(s.dir, other), -1, fmt.Sprintf("this is table %d: used as such",
					num))
				num = other
			}
		}
		t.name, used[num] = tableName(s.dir, num), true
		if !files.on[num] {
			t.gone = "the file is missing"
		}
		c.tables = append(c.tables, t)
	}
	for _, num := range files.tables {
		if used[num] {
			continue
		}
		dead := c.sound || c.dead[num]
		if id, ok := named[num]; ok && !dead {
			dead = c.dead[id.Num]
		}
		if dead {
			s.note(tableName(s.dir, num), -1, "the manifest does not need it: left aside")
			continue
		}
		if err := s.addUnlisted(num, named[num]); err != nil {
			return err
		}
	}
	slices.SortFunc(c.tables, func(a, b *salvageTable) int {
		return bytes.Compare(a.from, b.from) // nil is first
	})
	return nil
}

// readID returns what the footer of a table file says it is, nothing if that is damaged.
func (s *salvage) readID(num uint64) (id sstable.ID, err error) {
	f, reason, err := openSource(s.fs, tableName(s.dir, num))
	if err != nil || reason != "" {
		return id, err
	}
	defer f.Close()
	id, err = sstable.ReadID(f, f.size)
	if _, ok := errors.AsType[*sstable.CorruptError](err); ok {
		return sstable.ID{}, nil
	}
	return id, err
}

// addUnlisted adds a table that no edit tells of. What is known of it is its own word.
func (s *salvage) addUnlisted(num uint64, id sstable.ID) error {
	t := &salvageTable{id: id, name: tableName(s.dir, num), level: -1}
	if id.Num == 0 {
		t.id.Num = num
	}
	s.catalog.tables = append(s.catalog.tables, t)
	f, reason, err := openSource(s.fs, t.name)
	if err != nil || reason != "" {
		t.gone = reason
		return err
	}
	defer f.Close()
	r, err := sstable.NewSalvager(f, f.size, t.id, nil, func(sstable.Lost) {})
	if e, ok := errors.AsType[*sstable.CorruptError](err); ok {
		t.gone = e.Reason
		return nil
	}
	if err != nil {
		return err
	}
	if m, ok := r.Meta(); ok {
		t.id, t.meta = sstable.ID{Num: m.Num, UID: m.UID}, &m
		t.from, t.to = m.Smallest.User, m.Largest.User
	}
	return nil
}
