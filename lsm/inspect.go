package lsm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"kvd/lsm/vfs"
	"kvd/sstable"
	"kvd/wal"
)

// This file looks into the files of a database that no process has open, for people who want to
// know what is in them or whether all of it is sound. Nothing is changed and nothing is replayed,
// so it works on a directory that Open refuses.

// Kind says what a write did. It is the tables' type under the name that users of a DB know.
type Kind = sstable.Kind

// The kinds of writes.
const (
	KindDelete = sstable.KindDelete
	KindPut    = sstable.KindPut
)

// LevelTable is a table and its place in the tree.
type LevelTable struct {
	Level int
	Meta  *sstable.Meta
}

// Layout is what the manifest in force says of a directory.
type Layout struct {
	Dir        string
	Manifest   string // path
	Edits      int
	DatabaseID uint64
	LogSegment uint64 // the oldest segment that recovery needs; 0 takes all there are
	LogStart   wal.Pos
	LogEnd     wal.Pos     // where the log of a closed database ends; 0 if it was not closed
	LastSeq    sstable.Seq // the last one in any table
	NextFile   uint64
	Tables     []LevelTable // by level, then by file number
	Logs       []string     // paths of the segments that recovery needs, in their order
	OldLogs    []string     // paths of those it does not need; they wait to be reused
}

// ManifestEdit is one record of a manifest. Numbers that the record does not change are 0.
type ManifestEdit struct {
	Number     int // in the file, from 1
	DatabaseID uint64
	LogSegment uint64
	LogStart   wal.Pos
	LogEnd     wal.Pos
	LastSeq    sstable.Seq
	NextFile   uint64
	Added      []LevelTable
	Removed    []RemovedTable
}

// RemovedTable names a table that an edit takes out of the tree.
type RemovedTable struct {
	Level int
	Num   uint64
}

// InspectLayout reads the manifest in force of dir. Damage in it is a *CorruptError.
func InspectLayout(fsys vfs.FS, dir string) (*Layout, error) {
	num, err := readCurrent(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lsm: no database in %s: %w", dir, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return layoutBy(fsys, dir, num)
}

// layoutBy is the layout by the word of that manifest.
func layoutBy(fsys vfs.FS, dir string, manifest uint64) (*Layout, error) {
	l := &Layout{Dir: dir, Manifest: manifestName(dir, manifest)}
	tables := make(map[uint64]LevelTable)
	err := InspectManifest(fsys, l.Manifest, func(e ManifestEdit) error {
		l.Edits = e.Number
		l.DatabaseID = max(l.DatabaseID, e.DatabaseID)
		l.LastSeq, l.NextFile = max(l.LastSeq, e.LastSeq), max(l.NextFile, e.NextFile)
		if e.LogSegment != 0 {
			l.LogSegment, l.LogStart = e.LogSegment, e.LogStart
		}
		l.LogEnd = e.LogEnd // of the last edit: any other comes before the log went on
		for _, r := range e.Removed {
			if t, ok := tables[r.Num]; !ok || t.Level != r.Level {
				return fmt.Errorf("%w: removes table %d, which is not there", errEdit, r.Num)
			}
			delete(tables, r.Num)
		}
		for _, t := range e.Added {
			if _, ok := tables[t.Meta.Num]; ok {
				return fmt.Errorf("%w: adds table %d twice", errEdit, t.Meta.Num)
			}
			tables[t.Meta.Num] = t
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		l.Tables = append(l.Tables, t)
	}
	slices.SortFunc(l.Tables, func(a, b LevelTable) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Meta.Num, b.Meta.Num))
	})
	logs, err := listFiles(fsys, dir, fileLog)
	for _, num := range logs {
		if num < l.LogSegment {
			l.OldLogs = append(l.OldLogs, logName(dir, num))
		} else {
			l.Logs = append(l.Logs, logName(dir, num))
		}
	}
	return l, err
}

// InspectManifest calls fn with every edit of a manifest file, in order.
func InspectManifest(fsys vfs.FS, name string, fn func(ManifestEdit) error) error {
	kind, num := parseName(filepath.Base(name))
	if kind != fileManifest {
		return fmt.Errorf("lsm: %s: not the name of a manifest", name)
	}
	number := 0
	return readManifest(fsys, filepath.Dir(name), num, func(e *edit) error {
		number++
		m := ManifestEdit{
			Number:     number,
			DatabaseID: e.databaseID,
			LogSegment: e.logSegment,
			LogStart:   e.logStart,
			LogEnd:     e.logEnd,
			LastSeq:    e.lastSeq,
			NextFile:   e.nextFile,
		}
		for _, t := range e.added {
			m.Added = append(m.Added, LevelTable{t.level, t.meta})
		}
		for _, r := range e.removed {
			m.Removed = append(m.Removed, RemovedTable{r.level, r.num})
		}
		return fn(m)
	})
}

// LogWrite is one write in a segment of the log. Key and Value are valid during the call.
type LogWrite struct {
	Offset int64 // of its frame in the file
	Seq    sstable.Seq
	Kind   Kind
	Key    []byte
	Value  []byte
}

// LogInfo is what a segment holds.
type LogInfo struct {
	Header          wal.Header
	Frames, Records int
	Writes          int
	FirstPos, End   wal.Pos     // of the records
	Durable         wal.Pos     // synced, by the word of the last frame
	FirstSeq        sstable.Seq // 0 when there is no write
	LastSeq         sstable.Seq
	StopOffset      int64  // where no further frame continues
	Stop            string // why
	// Beyond counts valid frames after StopOffset. Zero is a normal end or a torn tail. Others are
	// frames that a crash kept behind a torn one, or damage: Verify knows which.
	Beyond int
}

// InspectLog calls fn with every write of a segment file, up to where its frames end. A broken
// batch in a valid frame, or a damaged header, is a *CorruptError.
func InspectLog(fsys vfs.FS, name string, fn func(LogWrite) error) (info LogInfo, err error) {
	kind, num := parseName(filepath.Base(name))
	if kind != fileLog {
		return info, fmt.Errorf("lsm: %s: not the name of a log segment", name)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return info, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return info, err
	}
	r, err := wal.NewReader(wal.Segment{Number: num, R: f, Size: size})
	if err != nil {
		return info, inFile(err, name)
	}
	info.Header = r.Header()
	for r.Next() {
		frame := r.Frame()
		if info.Frames == 0 {
			info.FirstPos = frame.Pos
		}
		info.Frames++
		info.End, info.Durable = frame.End(), frame.Durable
		if err := info.frame(name, frame, fn); err != nil {
			return info, err
		}
	}
	info.StopOffset, info.Stop = r.Offset(), r.Stop()
	if r.Err() != nil {
		return info, r.Err()
	}
	for r.Next() || r.Resync() {
		info.Beyond++
	}
	return info, r.Err()
}

// frame takes in the records of one frame.
func (info *LogInfo) frame(name string, f wal.Frame, fn func(LogWrite) error) error {
	for p := f.Payload; len(p) > 0; {
		rec, rest, ok := wal.NextRecord(p)
		if !ok {
			return &CorruptError{name, f.Offset, "a valid frame holds a broken record"}
		}
		p = rest
		info.Records++
		ops, seq, _, err := openBatch(rec)
		for err == nil && ops.next() {
			if info.Writes == 0 {
				info.FirstSeq = seq
			}
			info.Writes++
			info.LastSeq = seq
			if err := fn(LogWrite{f.Offset, seq, ops.kind, ops.key, ops.value}); err != nil {
				return err
			}
			seq++
		}
		if err == nil {
			err = ops.err
		}
		if err != nil {
			return &CorruptError{name, f.Offset, err.Error()}
		}
	}
	return nil
}

// Table returns the layout's table of that file; nil when the tree has none.
func (l *Layout) Table(name string) *LevelTable {
	_, num := parseName(filepath.Base(name))
	for i, t := range l.Tables {
		if t.Meta.Num == num {
			return &l.Tables[i]
		}
	}
	return nil
}

// TableName returns the path of a table of the layout.
func (l *Layout) TableName(t LevelTable) string { return tableName(l.Dir, t.Meta.Num) }

// InspectTable opens a table of l for fn. A damaged table is a *CorruptError.
func (l *Layout) InspectTable(fsys vfs.FS, t LevelTable, fn func(r *sstable.Reader) error) error {
	name := l.TableName(t)
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &CorruptError{File: name, Offset: -1, Reason: "the file is missing"}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size != int64(t.Meta.Bytes) {
		return &CorruptError{name, size, fmt.Sprintf("the manifest says %d bytes", t.Meta.Bytes)}
	}
	r, err := sstable.NewReader(f, size, sstable.ID{Num: t.Meta.Num, UID: t.Meta.UID}, nil)
	if err == nil {
		defer r.Close()
		err = fn(r)
	}
	return inFile(err, name)
}

// Place is one version of a key and where it stands.
type Place struct {
	File   string
	Level  int   // of the table; -1 for a log
	Offset int64 // of the frame in the log; -1 for a table
	Seq    sstable.Seq
	Kind   Kind
	Value  []byte // valid during the call
	Old    bool   // in a segment that recovery does not need
}

// Find calls fn with every version of key that is still on disk: what a Get returns, what it
// hides, and what the log keeps of what is gone. Files that cannot be read are collected in the
// error; the rest is searched all the same.
func (l *Layout) Find(fsys vfs.FS, key []byte, fn func(Place) error) error {
	var errs []error
	for _, t := range l.Tables {
		if !t.Meta.Overlaps(key, key) {
			continue
		}
		err := l.InspectTable(fsys, t, func(r *sstable.Reader) error {
			it := r.NewIter(sstable.IterOptions{NoFill: true})
			for ok := it.SeekGE(key); ok && bytes.Equal(it.Key().User, key); ok = it.Next() {
				err := fn(Place{l.TableName(t), t.Level, -1, it.Key().Seq(), it.Key().Kind(),
					it.Value(), false})
				if err != nil {
					return errors.Join(err, it.Close())
				}
			}
			return errors.Join(it.Err(), it.Close())
		})
		errs = append(errs, err)
	}
	for i, name := range slices.Concat(l.OldLogs, l.Logs) {
		_, err := InspectLog(fsys, name, func(w LogWrite) error {
			if !bytes.Equal(w.Key, key) {
				return nil
			}
			return fn(Place{name, -1, w.Offset, w.Seq, w.Kind, w.Value, i < len(l.OldLogs)})
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Err returns the first Put or Delete that was out of bounds, which Apply would return.
func (b *Batch) Err() error { return b.err }
