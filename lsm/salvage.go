package lsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"kvd/lsm/vfs"
	"kvd/sstable"
)

// ErrNothingSalvaged says that not one part of a directory could be read. Nothing was written.
var ErrNothingSalvaged = errors.New("lsm: nothing to salvage: no manifest, table or log verifies")

// SalvageOptions are the settings of a Salvage. The zero value works.
type SalvageOptions struct {
	// New shapes the database that is written. FS and ReadOnly are not looked at.
	New Options
	// Wrote, which may be nil, is called after each pair that was written, with the bytes of its
	// key and value.
	Wrote func(bytes int)
}

// Loss is one unit of damage and what it costs.
type Loss struct {
	File   string
	Offset int64 // in the file; -1 when the whole file is meant
	Reason string
	// The keys of what is lost lie in [From, To], both inclusive; nil is open. Of keys in it that
	// are in the new database the value may be an older one, and one that was deleted may be back.
	// From is a key and a zero byte when it is "after that key".
	From, To []byte
	Entries  uint64 // writes that are lost; 0 if nobody knows
	// The sequence numbers of what is lost lie in [FirstSeq, LastSeq]. LastSeq is 0 if nobody
	// knows, and for a table of which all have been forgotten.
	FirstSeq, LastSeq sstable.Seq
	// MayBeOld is at most how many keys of the new database this makes doubtful: in the range, and
	// not known to be newer than what is lost.
	MayBeOld uint64
}

// SalvageReport says what a Salvage has done.
type SalvageReport struct {
	// Manifest is the file that told which tables are live. It is empty when no manifest could
	// tell: then all tables and log segments that are there were used.
	Manifest string
	Tables   int // of which anything was read
	Segments int // of the log, likewise
	Entries  uint64
	Records  int    // batches taken from the log
	Keys     uint64 // in the new database
	// Losses are what is missing, or doubtful. Without any the new database has exactly the
	// contents of the old one.
	Losses []Loss
	// LostEntries is how many entries of tables are known to be lost, including those of losses
	// whose own Entries are 0.
	LostEntries uint64
	// Notes are damage that cost nothing, and files that were left aside.
	Notes []CorruptError
}

// Salvage writes everything that still verifies in dir into a new database in to, and says what is
// lost. It is for a directory that Open refuses or that Verify finds damaged; of a sound one it
// makes a copy with the same contents. dir is only read, never changed, and must not be open
// elsewhere. to must not exist or be empty, and not lie in dir; the database appears there, durable
// and verified, when everything else is done, and is prepared beside it, in to with the suffix
// ".partial".
//
// Of each table every data block that verifies is used, with or without index, filter and footer;
// of the log every frame, also those beyond damage, so that a batch is there whole or not at all.
// What cannot be read is in Losses: an older version of a key may show there, or a key that was
// deleted. Without a readable manifest that holds for everything, because tables that a compaction
// replaced cannot be told from live ones.
//
// A read of dir that fails with EIO counts as damage. Other errors end the salvage: ErrLocked,
// ErrFormat for a database of another version, fs.ErrNotExist when there is no database,
// fs.ErrExist when to is taken, ErrDiskFull, ErrNothingSalvaged (with a report), the error of ctx.
// Then to is as it was.
func Salvage(
	ctx context.Context, fsys vfs.FS, dir, to string, o SalvageOptions,
) (*SalvageReport, error) {
	s := &salvage{ctx: ctx, fs: fsys, dir: filepath.Clean(dir), wrote: o.Wrote}
	if s.wrote == nil {
		s.wrote = func(int) {}
	}
	err := s.run(filepath.Clean(to), o.New)
	for i := range s.report.Losses {
		l := &s.report.Losses[i]
		l.MayBeOld = min(l.MayBeOld, s.report.Keys)
	}
	if err == nil || errors.Is(err, ErrNothingSalvaged) {
		return &s.report, err
	}
	return nil, fmt.Errorf("lsm: salvage %s to %s: %w", dir, to, err)
}

// partialSuffix is that of the directory in which a salvage prepares the new database: one that is
// not complete must not be taken for one.
const partialSuffix = ".partial"

// salvage is the work of one Salvage.
type salvage struct {
	ctx    context.Context
	fs     vfs.FS
	dir    string
	wrote  func(int)
	report SalvageReport

	catalog catalog
	newest  sstable.Seq // at least what the tables reach to: older records of the log are in them

	db    *DB   // the new database
	batch Batch // not yet written
}

func (s *salvage) run(to string, o Options) error {
	exists, err := s.checkTarget(to)
	if err != nil {
		return err
	}
	lock, err := lockToRead(s.fs, s.dir)
	if err != nil {
		return err
	}
	if lock != nil {
		defer lock.Close()
	}
	if err := s.readCatalog(); err != nil {
		return err
	}
	partial := to + partialSuffix
	o.FS, o.ReadOnly = s.fs, false
	err = s.write(partial, o)
	if err == nil {
		err = s.verify(partial)
	}
	if err == nil && exists {
		err = s.fs.Remove(to) // it is empty
	}
	if err == nil {
		err = s.fs.Rename(partial, to)
		if err != nil && exists {
			_ = s.fs.MkdirAll(to) // as it was
		}
	}
	if err != nil {
		s.removePartial(partial)
		return err
	}
	return s.fs.SyncDir(filepath.Dir(to))
}

// within reports whether name is dir or lies in it.
func within(dir, name string) (bool, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	if name, err = filepath.Abs(name); err != nil {
		return false, err
	}
	rel, err := filepath.Rel(dir, name)
	return err == nil && filepath.IsLocal(rel), nil // without a way there it is elsewhere
}

// checkTarget demands that nothing is in the way of the new database.
func (s *salvage) checkTarget(to string) (exists bool, err error) {
	inside, err := within(s.dir, to)
	if err != nil {
		return false, err
	}
	if inside {
		return false, fmt.Errorf("%w: the new directory lies in the damaged one", fs.ErrInvalid)
	}
	names, err := s.fs.List(to)
	if err == nil && len(names) > 0 {
		return true, fmt.Errorf("%w: %s is not empty", fs.ErrExist, to)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	exists = err == nil
	_, err = s.fs.List(to + partialSuffix)
	if err == nil {
		return exists, fmt.Errorf("%w: %s is what a salvage left that did not finish: remove it",
			fs.ErrExist, to+partialSuffix)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return exists, err
	}
	return exists, nil
}

// write makes the new database: the tables first, then the log on top of them, because what is in
// the log is newer.
func (s *salvage) write(partial string, o Options) (err error) {
	if err := makeDir(s.fs, partial); err != nil {
		return err
	}
	if s.db, err = Open(partial, o); err != nil {
		return err
	}
	defer func() {
		if closeErr := s.db.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := s.writeTables(); err != nil {
		return err
	}
	if err := s.writeLog(); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return err
	}
	if s.report.Tables+s.report.Segments == 0 && !s.catalog.sound {
		return ErrNothingSalvaged
	}
	if err := s.db.Flush(); err != nil {
		return err
	}
	return s.count()
}

// batchTargetBytes is how much is gathered for one write to the new database.
const batchTargetBytes = 1 << 20

// put adds a pair to the batch.
func (s *salvage) put(key, value []byte) error {
	s.batch.Put(key, value)
	s.wrote(len(key) + len(value))
	if s.batch.Bytes() < batchTargetBytes {
		return nil
	}
	return s.flush()
}

// flush writes the batch. NoSync, because nothing counts before the end of the salvage.
func (s *salvage) flush() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.batch.Len() == 0 {
		return nil
	}
	if err := s.db.Apply(&s.batch, NoSync); err != nil {
		return err
	}
	s.batch.Reset()
	return nil
}

// count counts the keys of the new database, reading all of it.
func (s *salvage) count() error {
	it := s.db.NewIter(IterOptions{})
	for ok := it.First(); ok; ok = it.Next() {
		if s.report.Keys++; s.report.Keys%1024 == 0 && s.ctx.Err() != nil {
			break
		}
	}
	err := it.Err()
	if closeErr := it.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = s.ctx.Err()
	}
	return err
}

// verify reads the new database once more, as it is on the disk.
func (s *salvage) verify(partial string) error {
	v, err := Verify(s.fs, partial, nil)
	if err == nil && len(v.Damages) > 0 {
		err = fmt.Errorf("the new database does not verify: %w", errors.Join(v.Damages...))
	}
	return err
}

// removePartial gives up what was prepared, as far as the file system lets it.
func (s *salvage) removePartial(partial string) {
	names, err := s.fs.List(partial)
	if err != nil {
		return
	}
	for _, base := range names {
		_ = s.fs.Remove(filepath.Join(partial, base)) // the error that led here is the one to tell
	}
	_ = s.fs.Remove(partial)
}

func (s *salvage) lose(l Loss) { s.report.Losses = append(s.report.Losses, l) }

func (s *salvage) note(file string, offset int64, reason string) {
	s.report.Notes = append(s.report.Notes, CorruptError{file, offset, reason})
}
