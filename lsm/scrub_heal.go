package lsm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kvd/sstable"
)

// settle reports the damage of a file and heals it if it can:
//
//   - of the log, memory has every record that is needed: a flush makes tables of them;
//   - of the manifest and CURRENT, the version in memory is the truth: they are written anew;
//   - a table is written anew from what its open reader has, which is the filter and the index in
//     memory, the blocks in the cache, and another reading of the rest, which the cache of the
//     operating system may serve.
//
// A table that cannot be had whole stays, and so does its damage: reads that need a bad block get
// a *CorruptError, no compaction uses it, Metrics lists it until it is gone or reads well again.
func (r *scrubRun) settle(it *scrubItem, found []Damage) {
	db := r.db
	for _, d := range found {
		db.log.Error("scrub found damage", "file", d.File, "offset", d.Offset, "reason", d.Reason)
	}
	ctx := db.ctx
	if r.request != nil {
		ctx = r.request.ctx
	}
	var err error
	switch {
	case it.table != nil:
		err = db.renewTable(ctx, it.table)
	case it.mem != nil:
		db.segments.spoil(it.mem.segment)
		err = db.flush(true)
	default:
		err = db.renewManifest()
	}
	db.scrub.damages.Add(uint64(len(found)))
	if err == nil {
		db.scrub.healed.Add(uint64(len(found)))
		db.log.Warn("the damage is healed: what the file held is written anew elsewhere",
			"file", found[0].File, "places", len(found))
	} else if ctx.Err() != nil {
		db.log.Warn("the damage was not healed: the scrub was ended", "file", found[0].File)
	} else if !errors.Is(err, ErrClosed) {
		db.log.Error("the damage cannot be healed; what is damaged is not served",
			"file", found[0].File, "places", len(found), "error", err)
	}
	if r.request == nil {
		return
	}
	report := &r.request.report
	report.Found += len(found)
	for _, d := range found {
		d.Healed = err == nil
		if d.Healed {
			report.Healed++
		}
		if len(report.Damages) < scrubReportMax {
			report.Damages = append(report.Damages, d)
		}
	}
}

// renewManifest states what memory knows in a new manifest and makes that the one in force.
func (db *DB) renewManifest() error {
	db.installing.Lock()
	defer db.installing.Unlock()
	if f := db.failure.Load(); f != nil && !f.passes {
		return f.err
	}
	db.manifest.abandon()
	whole := func() *edit { return db.wholeEdit(db.state.Load().version, &edit{}) }
	if err := db.manifest.append(nil, whole, db.newFileNum); err != nil {
		if !db.manifest.named { // nothing is lost: the next edit starts a manifest too
			return fmt.Errorf("lsm: start a manifest: %w", err)
		}
		return db.fail("write the manifest", err)
	}
	return nil
}

// renewTable replaces a table by a new one of the same contents. When the old one cannot be read
// whole it is kept out of compactions. ctx ends the wait for one that has it.
func (db *DB) renewTable(ctx context.Context, t *table) error {
	defer context.AfterFunc(ctx, db.wake)()
	db.mu.Lock()
	for db.busy[t.meta.Num] && !db.closing && ctx.Err() == nil {
		db.work.Wait() // a compaction may get rid of it, or find out that it cannot
	}
	if db.busy[t.meta.Num] && !db.closing {
		db.mu.Unlock()
		return ctx.Err()
	}
	s := db.state.Load()
	if db.closing || !s.has(t) {
		closing := db.closing
		db.mu.Unlock()
		if closing {
			return ErrClosed
		}
		return nil
	}
	s = db.acquireState() // keeps the table open
	level := slices.IndexFunc(s.version.tables[:], func(tables []*table) bool {
		return slices.Contains(tables, t)
	})
	db.busy[t.meta.Num] = true
	db.jobs++
	db.mu.Unlock()

	err := db.copyTable(t, level)
	db.releaseState(s)

	db.mu.Lock()
	defer db.mu.Unlock()
	db.jobs--
	delete(db.busy, t.meta.Num)
	if delete(db.damaged, t.meta.Num); err != nil {
		db.damaged[t.meta.Num] = t.name
	}
	db.work.Broadcast()
	return err
}

// release lets compactions use a table again that was damaged and now reads well.
func (db *DB) release(t *table) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.damaged[t.meta.Num] != "" {
		delete(db.damaged, t.meta.Num)
		db.log.Warn("a damaged table reads well again", "file", t.name)
		db.work.Broadcast()
	}
}

// copyTable writes the entries of t to a new table and puts that in its place.
func (db *DB) copyTable(t *table, level int) error {
	mark := db.names.mark()
	w, err := db.createTable(level)
	if err != nil {
		return err
	}
	it := &namedIter{name: t.name}
	it.Init(t.reader, compactionInput)
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		if err = w.Add(it.Key(), it.Value()); err == nil {
			err = db.ctx.Err()
		}
	}
	if readErr := inFile(it.Close(), t.name); readErr != nil {
		err = readErr
	}
	if err != nil {
		w.Abort()
		return err
	}
	meta, err := w.Finish()
	if err == nil && !sameContents(&meta, t.meta) {
		err = &CorruptError{File: t.name, Offset: -1, Reason: "its entries are not what they were"}
	}
	if err == nil {
		err = w.Sync()
	}
	if err == nil {
		err = db.names.sync(mark)
	}
	if err != nil {
		w.Abort()
		return fmt.Errorf("lsm: write %s anew: %w", t.name, err)
	}
	return db.install(&edit{
		added:   []leveledTable{{level, &meta}},
		removed: []removedTable{{level, t.meta.Num}},
	}, nil)
}

// sameContents compares all that two descriptions say of the entries of a table.
func sameContents(a, b *sstable.Meta) bool {
	return sstable.Compare(a.Smallest, b.Smallest) == 0 &&
		sstable.Compare(a.Largest, b.Largest) == 0 &&
		a.MinSeq == b.MinSeq && a.MaxSeq == b.MaxSeq &&
		a.Entries == b.Entries && a.Tombstones == b.Tombstones && a.RawBytes == b.RawBytes
}
