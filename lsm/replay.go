package lsm

import (
	"errors"
	"fmt"

	"kvd/lsm/vfs"
	"kvd/sstable"
	"kvd/wal"
)

// replay reads the log that the manifest needs.
func (db *DB) replay() (*replayer, error) {
	nums, err := listFiles(db.opts.FS, db.dir, fileLog)
	if err != nil {
		return nil, err
	}
	r := &replayer{db: db, last: db.lastSeq}
	defer r.close()
	ok := false
	defer func() {
		if !ok {
			r.free()
		}
	}()
	for _, num := range nums {
		if num < db.logSegment {
			continue
		}
		if err := r.open(num); err != nil {
			return nil, err
		}
	}
	if db.logSegment != 0 && (len(r.segments) == 0 || r.segments[0].Number != db.logSegment) {
		return nil, &CorruptError{
			File:   logName(db.dir, db.logSegment),
			Offset: -1,
			Reason: "missing, but the manifest needs it",
		}
	}
	result, err := wal.Recover(r.segments, db.logStart, r.apply)
	if err == nil && result.End < db.logEnd {
		err = endsEarly(db.dir, result, db.logEnd)
	}
	if err == nil {
		err = r.finish()
	}
	if err != nil {
		return nil, r.name(err)
	}
	if result.Torn {
		db.log.Warn("the end of the log was never synced and is torn: trimmed",
			"position", result.End, "bytes", result.Dropped)
	}
	db.logStart = result.End
	db.commit.lastSeq = r.last
	db.published.init(r.last)
	ok = true
	return r, nil
}

// replayer rebuilds memtables from log records.
type replayer struct {
	db       *DB
	segments []wal.Segment
	files    []vfs.File
	last     sstable.Seq
	batch    Batch          // the record being applied
	mem      *memtable      // being filled
	full     []*memtable    // read only: all that were filled
	added    []leveledTable // else: their tables, oldest first
}

func (r *replayer) open(num uint64) error {
	f, err := r.db.opts.FS.Open(logName(r.db.dir, num))
	if err != nil {
		return err
	}
	r.files = append(r.files, f)
	size, err := f.Size()
	r.segments = append(r.segments,
		wal.Segment{Number: num, R: f, Size: size, Log: r.db.databaseID})
	return err
}

func (r *replayer) close() {
	for _, f := range r.files {
		_ = f.Close() // only read from
	}
}

// free gives back what a replay that failed has taken: memory, and room on the disk.
func (r *replayer) free() {
	r.db.removeTables(r.added)
	if r.mem != nil {
		r.mem.arena.free()
	}
	for _, m := range r.full {
		m.arena.free()
	}
}

// name gives an error of the log the name of the file.
func (r *replayer) name(err error) error {
	if e, ok := errors.AsType[*wal.CorruptError](err); ok {
		return inFile(err, logName(r.db.dir, e.Segment))
	}
	return err
}

// apply inserts one record.
func (r *replayer) apply(record []byte) error {
	ops, base, count, err := openBatch(record)
	if err == nil && base != r.last+1 {
		err = fmt.Errorf("lsm: a batch at sequence %d follows sequence %d", base, r.last)
	}
	if err != nil {
		return r.damaged(err)
	}
	b := &r.batch
	*b = Batch{data: record, seed: randomUint64()}
	for ops.next() {
		b.weigh(len(ops.key), len(ops.value))
	}
	if ops.err == nil && b.count != count {
		ops.err = fmt.Errorf("lsm: a batch of %d writes says %d", b.count, count)
	}
	if ops.err != nil {
		return r.damaged(ops.err)
	}
	if r.mem == nil || !r.mem.fits(b) {
		if err := r.renew(); err != nil {
			return err
		}
	}
	at, links, _ := r.mem.reserve(b) // there is room
	r.last = base + sstable.Seq(count) - 1
	r.mem.lastSeq = r.last
	r.mem.apply(b, at, links, base)
	r.db.published.visible.Store(uint64(r.last)) // to this replay; nobody else reads yet
	return nil
}

// damaged reports a record that passed its checksum and still cannot be: something wrote it so.
func (r *replayer) damaged(err error) error {
	name := logName(r.db.dir, r.db.logSegment)
	return &CorruptError{File: name, Offset: -1, Reason: err.Error()}
}

// renew makes a memtable with room for the record. A full one becomes a table at once, so that
// replay needs the memory of one memtable whatever the length of the log; read only it is kept.
func (r *replayer) renew() (err error) {
	if err := r.finish(); err != nil {
		return err
	}
	r.mem, err = r.db.newMemtable(r.batch.nodeBytes, uint64(r.batch.count))
	if r.mem != nil {
		r.mem.base = r.last
	}
	return err
}

// finish is the end of the memtable being filled.
func (r *replayer) finish() error {
	m := r.mem
	if m == nil {
		return nil
	}
	r.mem = nil
	if r.db.opts.ReadOnly {
		r.full = append(r.full, m)
		return nil
	}
	meta, err := r.db.writeMemtable(m)
	if err != nil {
		m.arena.free()
		return err
	}
	if meta != nil {
		r.added = append(r.added, leveledTable{0, meta})
	}
	r.db.arenas.put(m.arena)
	return nil
}
