package lsm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"kvd/lsm/vfs"
	"kvd/sstable"
	"kvd/wal"
)

// scrubItems lists every file that the database needs; nil when it is closed.
func (db *DB) scrubItems() []scrubItem {
	s := db.acquireState()
	if s == nil {
		return nil
	}
	defer db.releaseState(s)
	var items []scrubItem
	add := func(it scrubItem) {
		it.read, it.turn = time.Duration(it.mark.read.Load()), it.mark.turn
		items = append(items, it)
	}
	for _, tables := range s.version.tables {
		for _, t := range tables {
			add(scrubItem{table: t, mark: &t.mark, bytes: int64(t.meta.Bytes)})
		}
	}
	for _, m := range append(slices.Clone(s.frozen), s.mem) {
		add(scrubItem{mem: m, mark: &m.mark, bytes: logBytes(m.start, db.logEndOf(m))})
	}
	stated := max(db.scrub.manifestBytes.Load(), 2*scrubPageBytes)
	add(scrubItem{mark: &db.scrub.manifest, bytes: stated})
	return items
}

// logBytes estimates how much is read of a log that holds so many bytes of records: their frames,
// and of a file that grows ahead of them up to what the reader reads at a time.
func logBytes(start, end wal.Pos) int64 {
	n := int64(end - start)
	return wal.HeaderBytes + min(scrubFrameFactor*n, n+1<<20)
}

// scrubFrameFactor bounds the size of frames by that of their records: a frame has at least 2 bytes
// of records and at most 31 of its own.
const scrubFrameFactor = 17

// logEndOf is the position below which the operating system has all that the segment of m holds.
func (db *DB) logEndOf(m *memtable) wal.Pos {
	// Before ended is looked at, or it could lie in the segment after. The start of m.next says the
	// same, but m may let go of it at this moment, as soon as nobody reads m.
	end := db.wal.Load().Written()
	db.mu.Lock()
	defer db.mu.Unlock()
	if m.ended {
		end = min(end, m.end)
	}
	return max(end, m.start)
}

func (it *scrubItem) name(db *DB) string {
	switch {
	case it.table != nil:
		return it.table.name
	case it.mem != nil:
		return logName(db.dir, it.mem.segment)
	}
	return manifestPrefix
}

// visit reads one file and sees to what is damaged. The error is for what kept it from doing so.
func (r *scrubRun) visit(it *scrubItem) error {
	r.current, r.done = it.mark, 0
	defer func() { r.current = nil }()
	var found []Damage
	var err error
	switch {
	case it.table != nil:
		found, err = r.readTable(it.table)
	case it.mem != nil:
		found, err = r.readLog(it.mem)
	default:
		found, err = r.readManifest()
	}
	if errors.Is(err, errScrubGone) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.request != nil {
		r.request.report.Files++
	}
	if len(found) > 0 {
		r.settle(it, found)
	} else if it.table != nil {
		r.db.release(it.table)
	}
	r.owed = max(it.bytes-r.done, 0)
	s := &r.db.scrub
	it.mark.read.Store(int64(r.db.uptime()))
	it.mark.pass.Store(s.pass.Load())
	return nil
}

// readTable reads a table whole, as if it were opened now: footer, filter, index, properties, and
// then every block.
func (r *scrubRun) readTable(t *table) ([]Damage, error) {
	f := &scrubFile{r: r, name: t.name, needed: func(s *readState) bool { return s.has(t) }}
	err := f.open(int64(t.meta.Bytes))
	if err == nil && f.size != int64(t.meta.Bytes) {
		err = &CorruptError{t.name, f.size, "size differs from the manifest's"}
	}
	var failed []error
	if err == nil {
		id := sstable.ID{Num: t.meta.Num, UID: t.meta.UID}
		var fresh *sstable.Reader
		if fresh, err = sstable.NewReader(f, f.size, id, nil); err == nil {
			failed = fresh.Failures(scrubReportMax)
			_ = fresh.Close() // it only frees memory
		}
	}
	if f.stopped != nil {
		return nil, f.stopped
	}
	if err != nil {
		failed = append(failed, err)
	}
	var found []Damage
	for _, err := range failed {
		found = append(found, f.damage(err))
	}
	return found, nil
}

// has reports whether the state lists the table.
func (s *readState) has(t *table) bool {
	for _, tables := range s.version.tables {
		if slices.Contains(tables, t) {
			return true
		}
	}
	return false
}

// readLog reads the log segment of a memtable up to what has been written of it.
func (r *scrubRun) readLog(m *memtable) ([]Damage, error) {
	db := r.db
	needed := func(s *readState) bool { return s.mem == m || slices.Contains(s.frozen, m) }
	f := &scrubFile{r: r, name: logName(db.dir, m.segment), needed: needed}
	end := db.logEndOf(m) // before the size is looked at: the log may grow
	err := f.open(logBytes(m.start, end))
	if err == nil {
		err = f.readRecords(m.segment, db.databaseID, m.start, end, nil)
	}
	if f.stopped != nil {
		return nil, f.stopped
	}
	if err == nil {
		return nil, nil
	}
	// A segment is reused or removed only after its memtable has left the state; and after a
	// failed write the log is what it is: it is not needed by the time that writes go on.
	err = cmp.Or(f.hold(func(vfs.FS) error { return nil }), err)
	if f.stopped != nil {
		return nil, f.stopped
	}
	if db.failure.Load() != nil {
		return nil, nil
	}
	return []Damage{f.damage(err)}, nil
}

// readRecords reads the frames of a log from position start to end, where one ends, and calls fn,
// if it is not nil, with every record.
func (f *scrubFile) readRecords(
	num, log uint64, start, end wal.Pos, fn func(rec []byte) error,
) error {
	// A file that grows ahead of its frames is not read to its end.
	size := min(f.size, wal.HeaderBytes+scrubFrameFactor*int64(end-start))
	r, err := wal.NewReader(wal.Segment{Number: num, R: f, Size: size, Log: log})
	if err != nil {
		return err
	}
	for pos := start; pos < end; {
		if !r.Next() {
			reason := fmt.Sprintf("the records from position %d to %d are gone: %s", pos, end,
				r.Stop())
			return cmp.Or(r.Err(), error(&CorruptError{f.name, r.Offset(), reason}))
		}
		frame := r.Frame()
		if frame.Pos != pos {
			reason := fmt.Sprintf("position %d where %d should be", frame.Pos, pos)
			return &CorruptError{f.name, frame.Offset, reason}
		}
		for p := frame.Payload; fn != nil && len(p) > 0; {
			rec, rest, ok := wal.NextRecord(p)
			if !ok {
				return &CorruptError{f.name, frame.Offset, "a record is cut short"}
			}
			if err := fn(rec); err != nil {
				return &CorruptError{f.name, frame.Offset, err.Error()}
			}
			p = rest
		}
		pos = frame.End()
	}
	return nil
}

// stated is what a manifest must say at a moment.
type stated struct {
	manifest uint64
	end      wal.Pos // of its records
	whole    []byte  // the state as one edit
}

// canonical encodes an edit that states everything, leaving out what says nothing of the data: the
// next file number grows without an edit.
func canonical(e *edit) []byte {
	e.nextFile, e.logEnd = 0, 0
	slices.SortFunc(e.added, func(a, b leveledTable) int {
		return cmp.Compare(a.meta.Num, b.meta.Num)
	})
	return e.encode(nil)
}

// state returns what the manifest in force must say; ok is false after a failed append, when
// nobody knows.
func (db *DB) stateNow() (s stated, ok bool) {
	db.installing.Lock()
	defer db.installing.Unlock()
	return db.stateLocked()
}

func (db *DB) stateLocked() (s stated, ok bool) {
	if db.manifest.w == nil || db.failure.Load() != nil {
		return s, false
	}
	whole := db.wholeEdit(db.state.Load().version, &edit{})
	return stated{db.manifest.num, db.manifest.w.End(), canonical(whole)}, true
}

// readManifest reads CURRENT and the manifest in force and compares them with what memory knows.
func (r *scrubRun) readManifest() ([]Damage, error) {
	db := r.db
	if err := r.await(scrubPageBytes); err != nil {
		return nil, err
	}
	s, ok := db.stateNow()
	if !ok && db.failure.Load() == nil {
		return nil, db.renewManifest() // it could not be started; the one before may be damaged
	}
	if !ok {
		return nil, nil
	}
	db.scrub.manifestBytes.Store(scrubPageBytes + logBytes(0, s.end))
	always := func(*readState) bool { return true }
	f := &scrubFile{r: r, name: manifestName(db.dir, s.manifest), needed: always}
	err := f.open(logBytes(0, s.end))
	if err == nil {
		err = f.compare(s)
	}
	if f.stopped != nil {
		return nil, f.stopped
	}
	var found []Damage
	db.installing.Lock()
	defer db.installing.Unlock()
	now, ok := db.stateLocked()
	if !ok {
		return nil, nil
	}
	if err != nil && now.manifest == s.manifest {
		found = append(found, f.damage(err))
	}
	c := &scrubFile{r: r, name: filepath.Join(db.dir, currentName), needed: always, paid: true}
	if err := c.compareText(currentText(now.manifest)); err != nil && c.stopped == nil {
		found = append(found, c.damage(err))
	}
	return found, c.stopped
}

// compareText reads a small file that must hold this text.
func (f *scrubFile) compareText(text string) error {
	f.buffer = make([]byte, scrubPageBytes)
	err := f.hold(func(fsys vfs.FS) (err error) {
		f.size, err = fsys.Size(f.name)
		return err
	})
	if err != nil {
		return err
	}
	got := make([]byte, min(f.size, int64(len(text))))
	if _, err := f.ReadAt(got, 0); err != nil {
		return err
	}
	if f.size != int64(len(text)) || string(got) != text {
		return &CorruptError{File: f.name, Reason: "does not say what was written"}
	}
	return nil
}

// compare replays the manifest up to where it ended when s was taken.
func (f *scrubFile) compare(s stated) error {
	var l manifestState
	if err := f.readRecords(s.manifest, 0, 0, s.end, func(rec []byte) error {
		e, err := decodeEdit(rec)
		if err == nil {
			err = l.apply(e)
		}
		return err
	}); err != nil {
		return err
	}
	if !bytes.Equal(canonical(l.whole()), s.whole) {
		return &CorruptError{f.name, -1, "does not say what it was given"}
	}
	return nil
}
