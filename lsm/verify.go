package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"kvd/compaction"
	"kvd/lsm/vfs"
	"kvd/sstable"
	"kvd/wal"
)

// Verification is what Verify has found.
type Verification struct {
	Tables     int // sound ones, as TableBytes and Entries
	TableBytes uint64
	Entries    uint64
	Segments   int
	Records    int
	LastSeq    sstable.Seq
	TornBytes  int64 // never synced and lost in a crash: no damage
	// Damages has an error for each damage, with its file: mostly a *CorruptError, else what
	// reading the file failed with. Of one file there are at most damagesMax.
	Damages []error
	// Leftovers are the files of a database that this one does not need: old segments of the log,
	// tables and manifests out of use, what a crash left unfinished. Open removes them.
	Leftovers []string
}

// damagesMax bounds the damages told of one file.
const damagesMax = 16

// Verify reads everything in dir that a database consists of and checks it: CURRENT and the
// manifest, every block of every table against checksums, order, filter and what the manifest says
// of it, each level for overlaps, every frame and batch of the log that is needed. It goes
// on after damage, so Damages is all of it; when the manifest cannot be read, every file is
// checked by itself. The error is for what keeps it from looking at all, such as ErrLocked, or that
// there is no database. seen, which may be nil, is called for each table and segment before it is
// read.
func Verify(fsys vfs.FS, dir string, seen func(name string)) (Verification, error) {
	c := &checker{fs: fsys, dir: dir, seen: seen}
	lock, err := lockToRead(fsys, dir)
	if err != nil {
		return c.v, fmt.Errorf("lsm: %w", err)
	}
	if lock != nil {
		defer lock.Close()
	}
	if seen == nil {
		c.seen = func(string) {}
	}
	if c.names, err = fsys.List(dir); err != nil {
		return c.v, err
	}
	l, err := c.layout()
	if err != nil {
		return c.v, err
	}
	if l == nil {
		c.filesAlone()
		return c.v, nil
	}
	c.leftovers(l)
	var levels compaction.Levels
	for _, t := range l.Tables {
		c.table(t.Meta.Num, t.Meta)
		levels[t.Level] = append(levels[t.Level], t.Meta)
	}
	levels.Sort()
	if err := levels.Check(); err != nil {
		c.damage(l.Manifest, &CorruptError{l.Manifest, -1, err.Error()})
	}
	c.log(l)
	return c.v, nil
}

// checker is the work of one Verify.
type checker struct {
	fs    vfs.FS
	dir   string
	names []string // in dir
	seen  func(string)
	v     Verification
}

// damage notes what is wrong with a file, one error for each place, and sees to it that the error
// names the file.
func (c *checker) damage(name string, err error) {
	if err == nil {
		return
	}
	err = inFile(err, name)
	corrupt, ok := errors.AsType[*CorruptError](err)
	if !ok && !strings.Contains(err.Error(), name) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	for _, known := range c.v.Damages {
		e, both := errors.AsType[*CorruptError](known)
		if both = both && ok; both && e.File == corrupt.File && e.Offset == corrupt.Offset ||
			known.Error() == err.Error() {
			return
		}
	}
	c.v.Damages = append(c.v.Damages, err)
}

// layout finds out which files there should be. It is nil when no manifest says so.
func (c *checker) layout() (*Layout, error) {
	current := filepath.Join(c.dir, currentName)
	num, err := readCurrent(c.fs, c.dir)
	switch {
	case err == nil:
		return c.manifest(num), nil
	case errors.Is(err, fs.ErrNotExist):
		has := dataAmong(c.names)
		if has == "" {
			return nil, fmt.Errorf("lsm: no database in %s: %w", c.dir, fs.ErrNotExist)
		}
		err = missingCurrent(c.dir, has)
	case errors.Is(err, errFamily) && len(c.numbers(fileManifest)) > 0:
		err = &CorruptError{current, 0, "does not begin as this file does"}
	case errors.Is(err, ErrFormat):
		return nil, err
	}
	c.damage(current, err)
	// Without CURRENT the latest manifest that can be read is most likely the one in force.
	nums := c.numbers(fileManifest)
	for _, num := range slices.Backward(nums) {
		if l := c.manifest(num); l != nil {
			return l, nil
		}
	}
	return nil, nil
}

// numbers returns the numbers of the files of one kind, ascending.
func (c *checker) numbers(want fileKind) (nums []uint64) {
	for _, base := range c.names {
		if kind, num := parseName(base); kind == want {
			nums = append(nums, num)
		}
	}
	return sortedUint(nums)
}

// manifest checks a manifest and returns what it says, nil if it is damaged.
func (c *checker) manifest(num uint64) *Layout {
	name := manifestName(c.dir, num)
	l, err := layoutBy(c.fs, c.dir, num)
	c.damage(name, err)
	f, openErr := c.open(name, num)
	if openErr != nil {
		if err == nil || !errors.Is(openErr, fs.ErrNotExist) {
			c.damage(name, openErr)
		}
		return nil
	}
	defer f.close()
	c.damage(name, wal.VerifyHeader(f.segment))
	if err != nil {
		c.gaps([]logFile{f}, &Layout{}, false) // it starts at position 0
		return nil
	}
	return l
}

// leftovers lists the files that nothing needs.
func (c *checker) leftovers(l *Layout) {
	for _, base := range c.names {
		kind, num := parseName(base)
		name := filepath.Join(c.dir, base)
		switch {
		case kind == fileTable && l.Table(name) == nil, kind == fileTemp,
			kind == fileLog && num < l.LogSegment,
			kind == fileManifest && name != l.Manifest:
			c.v.Leftovers = append(c.v.Leftovers, name)
		}
	}
}

// filesAlone checks each table and each segment by what it says of itself.
func (c *checker) filesAlone() {
	for _, num := range c.numbers(fileTable) {
		c.table(num, nil)
	}
	for _, num := range c.numbers(fileLog) {
		name := logName(c.dir, num)
		c.seen(name)
		f, err := c.open(name, num)
		if err != nil {
			c.damage(name, err)
			continue
		}
		c.v.Segments++
		c.damage(name, wal.VerifyHeader(f.segment))
		c.gaps([]logFile{f}, nil, true)
		f.close()
	}
}

// table checks one table against its description, nil when there is none.
func (c *checker) table(num uint64, m *sstable.Meta) {
	name := tableName(c.dir, num)
	c.seen(name)
	f, err := c.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = &CorruptError{name, -1, "the file is missing"}
	}
	if err != nil {
		c.damage(name, err)
		return
	}
	defer f.Close()
	r, err := openVerified(f, name, num, m)
	if err != nil {
		c.damage(name, err)
		return
	}
	defer r.Close()
	failed := r.Failures(damagesMax)
	if len(failed) == 0 && m != nil {
		it := r.NewIter(compactionInput)
		err := compaction.CheckTable(m, it)
		if err != nil && it.Err() == nil {
			err = &CorruptError{name, -1, err.Error()}
		}
		if closeErr := it.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	for _, err := range failed {
		c.damage(name, err)
	}
	if len(failed) == 0 {
		p := r.Properties()
		c.v.Tables++
		c.v.TableBytes += p.Bytes
		c.v.Entries += p.Entries
	}
}

// openVerified opens a table, by its own word when there is no other.
func openVerified(f vfs.File, name string, num uint64, m *sstable.Meta) (*sstable.Reader, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	var id sstable.ID
	if m != nil {
		id = sstable.ID{Num: m.Num, UID: m.UID}
		if size != int64(m.Bytes) {
			return nil, &CorruptError{name, min(size, int64(m.Bytes)),
				fmt.Sprintf("it has %d bytes, the manifest says %d", size, m.Bytes)}
		}
	} else {
		if id, err = sstable.ReadID(f, size); err != nil {
			return nil, err
		}
		if id.Num != num {
			return nil, &CorruptError{name, -1, fmt.Sprintf("this is table %d", id.Num)}
		}
	}
	return sstable.NewReader(f, size, id, nil)
}
