package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"kvd/lsm/procs"
	"kvd/sstable"
	"kvd/wal"
)

// flushYieldBytes is how much a flush does between offers to run something else; the scheduler
// would take the processor away only after 10 ms, which a read beside it would feel. Beside
// goroutines that do not yield it takes turns with them (procs.Yielder).
const flushYieldBytes = 64 << 10

// retryMin and retryMax bound the pause between attempts while the disk is full.
const (
	retryMin = 50 * time.Millisecond
	retryMax = time.Second
)

// flushLoop turns frozen memtables into tables of level 0, oldest first, and ends the state of a
// full disk when there is room.
func (db *DB) flushLoop() {
	defer db.loops.Done()
	pause := retryMin
	for db.awaitFlush() {
		var err error
		if f := db.failure.Load(); f != nil && f.passes {
			err = db.heal()
		} else {
			err = db.flushAndPrepare()
		}
		if err == nil {
			pause = retryMin
			continue
		}
		// Writers are told. That entries are lost no other attempt will change; the log has them.
		_ = db.refuse("flush a memtable", err, !errors.Is(err, errEntriesLost))
		select {
		case <-db.done:
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
}

// awaitFlush returns true when there is something to do, false when the DB is closing.
func (db *DB) awaitFlush() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	for {
		f := db.failure.Load()
		if db.closing {
			return false
		}
		if f != nil && f.passes || f == nil && len(db.frozen) > 0 {
			return true
		}
		db.work.Wait()
	}
}

// flushAndPrepare is flushOldest, and has log segments ready before memtables are full. When it
// cannot, the commit that needs the segment tries again and reports the error. To make a segment
// takes three syncs: on a busy disk as long as a flush, and one after the other they let writers
// stand still.
func (db *DB) flushAndPrepare() error {
	var preparing sync.WaitGroup
	preparing.Go(func() {
		if err := db.segments.prepare(segmentsReady); err != nil {
			db.log.Warn("cannot prepare a log segment", "error", err)
		}
	})
	defer preparing.Wait()
	return db.flushOldest()
}

// flushOldest writes the oldest frozen memtable as a table and installs it; its log segment is
// not needed any more.
func (db *DB) flushOldest() error {
	procs.Begin()
	defer procs.End()
	db.mu.Lock()
	if len(db.frozen) == 0 {
		db.mu.Unlock()
		return nil
	}
	m, began := db.frozen[0], time.Now()
	db.pace.flushBegan = began
	db.mu.Unlock()
	db.published.wait(m.lastSeq) // all its entries are in

	large := 2*m.used > int64(len(m.arena.bytes))
	e := &edit{logSegment: m.next.segment, logStart: m.next.start, lastSeq: m.lastSeq}
	meta, err := db.writeMemtable(m)
	if err != nil {
		return err
	}
	if meta != nil {
		e.added = []leveledTable{{0, meta}}
	}
	if err := db.install(e, m); err != nil {
		return err
	}
	db.mu.Lock()
	if meta != nil {
		db.counters.flushed.Add(meta.Bytes)
		if large { // with less it is mostly syncs
			db.pace.flushedLocked(meta.RawBytes, time.Since(began))
		}
	}
	db.repaceLocked()
	db.mu.Unlock()
	db.retireSegments(m.segment)
	return nil
}

func (db *DB) retireSegments(number uint64) {
	log := db.wal.Load()
	err := log.Release(number)
	if failed := log.Err(); failed != nil && !errors.Is(failed, wal.ErrClosed) {
		_ = db.fail("write the log", failed) // before a writer is the one to find out
	}
	if err == nil {
		err = db.segments.retire(number)
	}
	if err != nil && !errors.Is(err, wal.ErrClosed) { // Close may come before this
		db.log.Warn("cannot reuse a log segment", "segment", number, "error", err)
	}
}

// errEntriesLost says that memory is damaged.
var errEntriesLost = errors.New("entries of the memtable are lost")

// writeMemtable writes a memtable as a table and returns its description, nil when it is empty.
// Versions that no reader can want are left out. That the memtable gives back as many entries as
// were committed to it is checked, as for compactions: what is lost here would be lost for good.
func (db *DB) writeMemtable(m *memtable) (*sstable.Meta, error) {
	db.mu.Lock()
	snapshots := db.snapshotSeqsLocked()
	db.mu.Unlock()
	if m.entries == 0 {
		return nil, nil
	}
	var yielder procs.Yielder
	var it sstable.Iterator = &runIter{run: db.order(m, m.lastSeq, &yielder)}
	if m.list.first() != 0 {
		it = sstable.NewMerge(it, &listIter{list: &m.list})
	}
	mark := db.names.mark()
	w, err := db.createTable(0)
	if err != nil {
		return nil, err
	}
	read, err := copyNewest(w, it, snapshots, &yielder)
	if err == nil && read != m.entries {
		err = fmt.Errorf("%w: %d of %d are left", errEntriesLost, read, m.entries)
	}
	if err != nil {
		w.Abort()
		return nil, err
	}
	meta, err := w.Finish()
	if err == nil {
		err = w.Sync()
	}
	if err == nil {
		err = db.names.sync(mark)
	}
	if err != nil {
		w.Abort()
		return nil, err
	}
	return &meta, nil
}

// copyNewest adds everything of it: of each user key the newest version, and the
// newest that each snapshot sees. It returns how many entries it met.
func copyNewest(
	w *tableWriter, it sstable.Iterator, snapshots []sstable.Seq, yielder *procs.Yielder,
) (read uint64, err error) {
	var user []byte
	stripe, credit := 0, flushYieldBytes
	for ok, first := it.First(), true; ok; ok = it.Next() {
		read++
		k := it.Key()
		at, _ := slices.BinarySearch(snapshots, k.Seq()) // snapshots older than the version
		if credit -= len(k.User) + 8; credit < 0 {
			credit = flushYieldBytes
			yielder.Yield()
		}
		if !first && at == stripe && bytes.Equal(k.User, user) {
			continue
		}
		user, stripe, first = k.User, at, false // the arena outlives the loop
		value := it.Value()
		if err := w.Add(k, value); err != nil {
			return read, err
		}
		credit -= len(value)
	}
	return read, nil
}

// Flush writes all that is in memory to tables and returns when they are durable.
func (db *DB) Flush() error { return db.flush(false) }

// flush is Flush. Afterwards no log segment that there was before is needed, if renew is set; else
// the last one stays when nothing was written since.
func (db *DB) flush(renew bool) error {
	db.commit.Lock()
	if f := db.failure.Load(); f != nil {
		db.commit.Unlock()
		return f.err
	}
	last := db.commit.lastSeq
	if db.commit.mem.entries > 0 || renew {
		if err := db.rotate(&Batch{}); err != nil {
			db.commit.Unlock()
			return err
		}
	}
	db.commit.Unlock()

	db.mu.Lock()
	defer db.mu.Unlock()
	for len(db.frozen) > 0 && db.frozen[0].lastSeq <= last {
		if f := db.failure.Load(); f != nil {
			return f.err
		}
		db.work.Wait()
	}
	return nil
}

// heal ends the state of a full disk: what is in memory goes into tables, because the log may miss
// some of it, and only when the manifest says that the old log is not needed does a new one take
// records. Until then writes are refused, so a crash at any point finds either the old log, torn at
// worst above what was acknowledged, or the tables.
func (db *DB) heal() error {
	db.commit.Lock()
	if f := db.failure.Load(); !f.passes {
		db.commit.Unlock()
		return f.err // closed, or failed for good: the log is not ours any more
	}
	if err := db.replaceLog(); err != nil {
		db.commit.Unlock()
		return err
	}
	db.commit.Unlock()
	for {
		db.mu.Lock()
		n := len(db.frozen)
		db.mu.Unlock()
		if n == 0 {
			break
		}
		if err := db.flushOldest(); err != nil {
			return err
		}
	}
	if err := db.segments.prepare(segmentsReady); err != nil {
		return err // there is no room yet: the next memtables would find no log
	}
	db.commit.Lock()
	db.commit.unproven = nil
	db.commit.Unlock()
	old := db.failure.Load()
	if old != nil && old.passes && db.failure.CompareAndSwap(old, nil) {
		db.log.Info("the disk has room again, writes go on")
		// The log may have failed since replaceLog looked. Whoever met that left the failure that
		// was there in place, and it is gone now.
		if err := db.wal.Load().Err(); err != nil {
			return db.fail("write the log", err)
		}
	}
	return nil
}

// replaceLog freezes the memtable and starts a new log, if the present one has failed. The caller
// holds the commit lock.
func (db *DB) replaceLog() error {
	log := db.wal.Load()
	if log.Err() == nil {
		return nil
	}
	next, err := db.segments.take()
	if err != nil {
		return err
	}
	mem, err := db.newMemtable(0, 0)
	if err != nil {
		db.segments.giveBack(next)
		return err
	}
	_ = log.Close() // it has failed: closing only closes its files
	mem.segment, mem.start = next.num, log.End()
	db.commit.unproven = next.file
	db.wal.Store(wal.NewWriter(next.file, next.header, mem.start))
	db.freeze(mem)
	return nil
}
