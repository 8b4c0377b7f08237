package lsm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"kvd/sstable"
	"kvd/wal"
)

// Apply makes all writes of the batch visible and durable together or not at all. The batch may be
// reused afterwards. An empty batch changes nothing; with Sync it still waits until everything
// before it is durable. Errors are those of Put.
//
// This is the hot path of writing, in one screen. Under the commit lock, which it holds for no I/O
// but when the memtable is full, a commit takes its sequence numbers, its space in the memtable and
// its place in the log buffer. The memtable is filled outside the lock, by many commits at once;
// publish restores the order. Then the commit waits for its durability class, sharing the write or
// sync with those beside it.
func (db *DB) Apply(b *Batch, d Durability) error {
	return db.ApplyContext(context.Background(), b, d)
}

// ApplyContext is Apply for a caller who gives up when ctx ends. Where commits are being slowed
// down and its turn would not come 25 ms before the deadline of ctx it returns an error that is
// ErrTooLate at once, and when ctx ends while it waits for its turn, within 20 ms: nothing was
// written. A write whose turn has come is done, whatever ctx says.
func (db *DB) ApplyContext(ctx context.Context, b *Batch, d Durability) error {
	if b.err != nil {
		return b.err
	}
	if b.count == 0 {
		return db.applyNothing(d)
	}
	if db.pace.on() {
		if err := db.awaitPace(ctx, len(b.data)); err != nil {
			return err
		}
	}
	db.lockCommit()
	if f := db.failure.Load(); f != nil {
		db.commit.Unlock()
		return f.err
	}
	at, links, ok := db.commit.mem.reserve(b)
	for !ok {
		if err := db.rotate(b); err != nil {
			db.commit.Unlock()
			return err
		}
		at, links, ok = db.commit.mem.reserve(b)
	}
	log, pos := db.commitReserved(b, at, links)
	return db.await(log, pos, d)
}

// TryApply is Apply with NoSync for a caller that must not wait for a disk: it returns false, and
// has changed nothing, while commits are being slowed down, or wait for a flush, a new memtable or
// the log. It may refuse when other commits are under way, and waits, as all do, for those before
// it to be in the memtable, and always refuses a batch of more than 8 MiB. With done, err is that
// of Apply.
//
// An Apply of an empty batch with Sync makes durable what it did.
func (db *DB) TryApply(b *Batch) (done bool, err error) {
	if b.err != nil || b.count == 0 {
		return true, db.Apply(b, NoSync)
	}
	if db.pace.on() || !db.tryLockCommit() {
		return false, nil
	}
	if f := db.failure.Load(); f != nil {
		db.commit.Unlock()
		return true, f.err
	}
	if db.wal.Load().Buffered()+len(b.data) > behindStallBytes {
		db.commit.Unlock()
		return false, nil
	}
	at, links, ok := db.commit.mem.reserve(b)
	if !ok {
		db.commit.Unlock()
		return false, nil
	}
	log, pos := db.commitReserved(b, at, links)
	return true, db.await(log, pos, NoSync)
}

// commitReserved commits a batch that has its space in the memtable. The caller holds the commit
// lock, which is released.
func (db *DB) commitReserved(b *Batch, at uint32, links bool) (*wal.Writer, wal.Pos) {
	mem, log := db.commit.mem, db.wal.Load()
	first := db.commit.lastSeq + 1
	last := db.commit.lastSeq + sstable.Seq(b.count)
	db.commit.lastSeq = last
	mem.lastSeq = last
	b.seal(first)
	pos := log.Append(b.data)
	db.commit.Unlock()

	mem.apply(b, at, links, first)
	db.published.publish(first, last)
	return log, pos
}

// lockCommit tries a few times before it queues: a mutex whose waiters have queued for 1 ms hands
// itself from one sleeping waiter to the next, which for a section this short is the slowest way.
func (db *DB) lockCommit() {
	if !db.tryLockCommit() {
		db.commit.Lock()
	}
}

func (db *DB) tryLockCommit() bool {
	for range 4 {
		if db.commit.TryLock() {
			return true
		}
		runtime.Gosched()
	}
	return false
}

// await returns when the log below pos has the durability d.
func (db *DB) await(log *wal.Writer, pos wal.Pos, d Durability) error {
	var err error
	switch d {
	case Sync:
		err = log.Sync(pos)
	case Async:
		err = log.Write(pos)
	default:
		if buffered := log.Buffered(); buffered > behindStallBytes || pos == wal.NoPos {
			err = log.Write(pos) // NoPos: the log has failed and did not take the record
		} else {
			db.behind.notice(buffered)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInDoubt, db.fail("write the log", err))
	}
	return nil
}

func (db *DB) applyNothing(d Durability) error {
	// The log first: one that replaces it after a full disk is empty, and durable to its end,
	// before what was written until then is.
	log, f := db.wal.Load(), db.failure.Load()
	switch {
	case f == nil && d == NoSync:
		return nil
	case f == nil:
		return db.await(log, log.End(), d)
	case d == NoSync || !f.passes:
		return f.err
	}
	if log = db.intactLog(); log == nil {
		return f.err
	}
	return db.await(log, log.End(), d)
}

// intactLog returns the log if a sync of it makes everything durable although writes are refused:
// what failed was not the log, and it does not wait for the entries of one that has failed.
func (db *DB) intactLog() *wal.Writer {
	db.commit.Lock()
	defer db.commit.Unlock()
	if log := db.wal.Load(); db.commit.unproven == nil && log.Err() == nil {
		return log
	}
	return nil
}

// frozenMax is how many frozen memtables may wait for their flush before commits wait too. The
// pacer slows commits down long before.
const frozenMax = 2

// rotate freezes the memtable and starts a new one with space for a batch, and a new log segment
// with it. The caller holds the commit lock.
func (db *DB) rotate(b *Batch) error {
	db.commit.mem.full.Store(true)
	db.mu.Lock()
	began := time.Time{}
	for len(db.frozen) >= frozenMax && db.failure.Load() == nil {
		if began.IsZero() {
			began = time.Now()
		}
		db.work.Wait()
	}
	db.mu.Unlock()
	if !began.IsZero() {
		db.counters.stalls.Add(1)
		db.counters.stallNanos.Add(int64(time.Since(began)))
	}
	if f := db.failure.Load(); f != nil {
		return f.err
	}
	next, err := db.segments.take()
	if err != nil {
		return db.failForNow("start a log segment", err)
	}
	mem, err := db.newMemtable(b.nodeBytes, uint64(b.count))
	if err != nil {
		db.segments.giveBack(next)
		return db.failForNow("allocate a memtable", err)
	}
	mem.segment = next.num
	mem.start = db.wal.Load().Rotate(next.file, next.header)
	db.freeze(mem)
	return nil
}

// freeze makes next the memtable being filled and hands the old one to the flush. The caller holds
// the commit lock.
func (db *DB) freeze(next *memtable) {
	db.commit.mem.full.Store(true)
	db.mu.Lock()
	db.commit.mem.next = next
	db.commit.mem.ended, db.commit.mem.end = true, next.start
	db.frozen = append(db.frozen, db.commit.mem)
	db.commit.mem = next
	db.setStateLocked(next, db.frozen, db.state.Load().version)
	db.repaceLocked()
	db.mu.Unlock()
	db.idle.Reset(idleAfter)
}

// newMemtable makes one that has room for so many bytes of nodes and so many entries.
func (db *DB) newMemtable(bytes int64, entries uint64) (*memtable, error) {
	a, err := db.arenas.get(bytes+firstOffset*8, entries)
	if err != nil {
		return nil, err
	}
	m := &memtable{base: db.commit.lastSeq}
	var prefix []byte
	if p := db.keyPrefix.Load(); p != nil {
		prefix = *p
	}
	m.init(a, prefix)
	m.mark.made(db)
	return m, nil
}

// failure is why writes are refused.
type failure struct {
	err    error
	passes bool // nothing is lost: tried again until it succeeds
}

// fail records that a promise about writes can no longer be kept, and returns what writers are
// told. A full disk ends by itself; anything else is final, because after a failed write or sync
// of the log or the manifest nobody knows what the disk holds, and a later success says nothing of
// what failed (Rebello et al., Can Applications Recover from fsync Failures?, ATC 2020).
func (db *DB) fail(doing string, err error) error {
	return db.refuse(doing, err, diskFull(err))
}

// failForNow is fail for what can be tried again whatever the cause, because memory and log still
// hold everything: making a table, a segment, a memtable.
func (db *DB) failForNow(doing string, err error) error { return db.refuse(doing, err, true) }

func (db *DB) refuse(doing string, err error, passes bool) error {
	if errors.Is(err, ErrClosed) {
		return err
	}
	f := &failure{passes: passes}
	kind := ErrReadOnly
	switch {
	case diskFull(err):
		kind = ErrDiskFull
	case passes:
		kind = ErrSuspended
	}
	f.err = fmt.Errorf("%w: cannot %s: %w", kind, doing, err)
	for {
		old := db.failure.Load()
		if old != nil && (!old.passes || f.passes) {
			return old.err // the first failure stays, but a final one replaces one that passes
		}
		if db.failure.CompareAndSwap(old, f) {
			break
		}
	}
	db.log.Error("writes are refused", "error", f.err, "for_now", f.passes)
	db.mu.Lock()
	db.work.Broadcast()
	db.mu.Unlock()
	return f.err
}

// writeBehind gives unsynced records to the operating system within behindDelay.
type writeBehind struct {
	wake chan struct{} // something is buffered
	full chan struct{} // much is buffered
	done chan struct{}
	once sync.Once
}

const (
	behindDelay      = 5 * time.Millisecond
	behindWriteBytes = 512 << 10 // buffered: written without waiting for the delay
	behindStallBytes = 8 << 20   // buffered: the committer writes itself
)

func (w *writeBehind) init() {
	w.wake, w.full = make(chan struct{}, 1), make(chan struct{}, 1)
	w.done = make(chan struct{})
}

func (w *writeBehind) notice(buffered int) {
	signal(w.wake)
	if buffered > behindWriteBytes {
		signal(w.full)
	}
}

// signal leaves a token. The length is looked at first because it costs no lock.
func signal(c chan struct{}) {
	if len(c) == 0 {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (w *writeBehind) stop() { w.once.Do(func() { close(w.done) }) }

// behindLoop is the goroutine of writeBehind.
func (db *DB) behindLoop() {
	defer db.loops.Done()
	timer := time.NewTimer(behindDelay)
	for {
		select {
		case <-db.behind.done:
			return
		case <-db.behind.wake:
		}
		timer.Reset(behindDelay)
		select {
		case <-db.behind.done:
			return
		case <-timer.C:
		case <-db.behind.full:
		}
		log := db.wal.Load()
		if err := log.Write(log.End()); err != nil {
			_ = db.fail("write the log", err) // every writer is told
		}
	}
}
