package lsm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kvd/compaction"
	"kvd/sstable"
	"kvd/sstable/rcu"
	"kvd/wal"
)

// DB is an open database. Its methods may be called concurrently, Close included; after Close they
// return ErrClosed.
//
// Locks are taken in this order: commit, installing, mu.
type DB struct {
	// Fixed after Open.
	dir        string
	opts       Options
	log        *slog.Logger
	lock       io.Closer
	cache      *sstable.Cache
	databaseID uint64
	names      *directory // of dir

	// With their own synchronization.
	readers   *rcu.Domain               // who may see a state, or a cached block
	state     atomic.Pointer[readState] // nil once closed
	published publisher
	wal       atomic.Pointer[wal.Writer] // replaced only after a full disk
	segments  segments
	remover   remover
	arenas    arenaPool
	idle      *time.Timer             // nil if read only
	fileNum   atomic.Uint64           // next file number
	failure   atomic.Pointer[failure] // why writes are refused; nil while they are not
	behind    writeBehind
	pace      pacer
	keyPrefix atomic.Pointer[[]byte] // common to the keys of the memtable sorted last
	batches   sync.Pool              // of *Batch, for Put and Delete
	cursors   sync.Pool              // of *cursor
	writers   writerPool             // for flushes and compactions
	counters  counters
	scrub     scrubber
	loops     sync.WaitGroup

	// The commit lock: order of sequence numbers, of log records, of space in the memtable.
	commit struct {
		sync.Mutex
		mem     *memtable
		lastSeq sstable.Seq

		// The file of a log that began behind one that failed, until the manifest says that what
		// was before is not needed. Till then it stays empty: any frame would vouch for that.
		unproven io.Closer
	}

	// Held over writing an edit and making its version current, so that versions follow one
	// another in the order of the manifest.
	installing sync.Mutex
	manifest   manifest
	logSegment uint64 // oldest segment that is needed, and where it starts
	logStart   wal.Pos
	logEnd     wal.Pos        // where the log of a database that was closed must end
	lastSeq    sstable.Seq    // of all tables
	unsettled  []leveledTable // tables of edits that failed and may be in force all the same

	mu         sync.Mutex
	work       sync.Cond // something of the below has changed
	frozen     []*memtable
	older      map[*readState]struct{} // not current, not freed
	dead       []*readState            // for the cleaner to look at; may be held or freed already
	making     map[uint64]struct{}     // tables begun that no version lists yet
	cleaning   bool
	snapshots  []*Snapshot // oldest first
	calm       calm
	picker     *compaction.Picker
	busy       map[uint64]bool     // tables in a compaction
	damaged    map[uint64]string   // tables that no compaction may use; number -> file
	jobs       int                 // compactions running
	merges     map[*merge]struct{} // of these, those that merge tables
	workers    int                 // goroutines that merge for compactLoops
	workersMax int                 // by compaction.Workers
	held       int                 // calls running that Close waits for
	retryAfter time.Time           // no compaction before; set when one has failed
	retryPause time.Duration       // the last pause after one that failed; 0 after one that did not
	closing    bool
	stopped    bool // closing, and no loop makes new garbage

	// Ended by Close.
	done   chan struct{}
	ctx    context.Context // of compactions
	cancel context.CancelFunc
}

// Put sets the value of key. Key and value are copied. The error is nil once the pair has the
// durability asked for. An error that is ErrInDoubt says that the write may or may not be there,
// but never in part; any other, such as *KeySizeError, that nothing was written.
func (db *DB) Put(key, value []byte, d Durability) error {
	b := db.batch()
	b.Put(key, value)
	err := db.Apply(b, d)
	db.batches.Put(b)
	return err
}

// Delete removes the value of key, if it has one. Errors are those of Put.
func (db *DB) Delete(key []byte, d Durability) error {
	b := db.batch()
	b.Delete(key)
	err := db.Apply(b, d)
	db.batches.Put(b)
	return err
}

// batchKeepBytes bounds the memory that a pooled batch holds on to.
const batchKeepBytes = 64 << 10

func (db *DB) batch() *Batch {
	b, ok := db.batches.Get().(*Batch)
	if !ok || cap(b.data) > batchKeepBytes {
		b = new(Batch)
	}
	b.Reset()
	return b
}

// newFileNum returns a number that no file of this database has had.
func (db *DB) newFileNum() uint64 { return db.fileNum.Add(1) - 1 }

// newUID returns the identity of a new table.
func (db *DB) newUID() uint64 { return randomUint64() }

func randomUint64() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: documented so since Go 1.24
	return binary.LittleEndian.Uint64(b[:])
}

func sortedUint(nums []uint64) []uint64 {
	slices.Sort(nums)
	return nums
}

// Close stops the background work, syncs the log and releases the directory. Everything written
// is there at the next Open, NoSync writes too. Iterators and snapshots should be closed before; an
// error says how many are not. From now on snapshots fail, and iterators may, for want of what is
// not in memory. A second Close returns ErrClosed.
func (db *DB) Close() error {
	db.commit.Lock()
	db.mu.Lock()
	if db.closing {
		db.mu.Unlock()
		db.commit.Unlock()
		return ErrClosed
	}
	db.closing = true
	close(db.done)
	db.cancel()
	if db.idle != nil {
		db.idle.Stop()
		db.calm.timer.Stop()
	}
	db.work.Broadcast()
	db.mu.Unlock()
	var errs []error
	var sealed wal.Pos
	broken := db.failure.Load()
	if broken != nil && !db.opts.ReadOnly {
		errs = append(errs, broken.err) // what was not synced by then may be lost
	}
	db.failure.Store(&failure{err: ErrClosed})
	last, unproven := db.commit.lastSeq, db.commit.unproven
	db.commit.Unlock()

	db.published.wait(last)
	db.behind.stop()
	if unproven != nil {
		errs = append(errs, unproven.Close()) // without the END frame of an orderly close
	} else if w := db.wal.Load(); w != nil {
		if err := w.Close(); err == nil {
			sealed = w.End()
		} else if broken == nil {
			errs = append(errs, fmt.Errorf("lsm: close the log: %w", err))
		}
	}
	db.awaitIdle()
	db.sealLog(sealed)
	errs = append(errs, db.segments.close())
	errs = append(errs, db.closeFiles()...)
	if db.lock != nil { // who only reads may have none
		errs = append(errs, db.lock.Close())
	}
	return errors.Join(errs...)
}

// sealLog has the manifest say where the log of the closed database ends. The log's own END frame
// vouches for everything before it, but not for itself: a log that lost its last frames, or its
// last segment, would look like one that ends earlier.
func (db *DB) sealLog(end wal.Pos) {
	db.installing.Lock()
	defer db.installing.Unlock()
	if end > 0 {
		e := &edit{logEnd: end}
		whole := func() *edit { return db.wholeEdit(db.state.Load().version, e) }
		if err := db.manifest.append(e, whole, db.newFileNum); err != nil {
			db.log.Warn("the manifest does not vouch for the end of the log", "error", err)
		}
	}
	db.manifest.abandon()
}

// awaitIdle ends the background loops: first those that change the tree, then the cleaner.
func (db *DB) awaitIdle() {
	db.mu.Lock()
	for db.jobs > 0 || db.held > 0 {
		db.work.Wait()
	}
	db.stopped = true
	db.work.Broadcast()
	db.mu.Unlock()
	db.loops.Wait()
}

// hold makes Close wait until drop, for a call that uses a state for long; nothing is held once
// Close has begun.
func (db *DB) hold() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closing {
		return ErrClosed
	}
	db.held++
	return nil
}

func (db *DB) drop() {
	db.mu.Lock()
	db.held--
	db.work.Broadcast()
	db.mu.Unlock()
}

// closeFiles closes the tables and frees the memtables.
func (db *DB) closeFiles() (errs []error) {
	// The last state must not be among the dead: free would remove its tables as obsolete. An
	// iterator that is closed from here on may append it, and nobody looks any more.
	db.mu.Lock()
	last, dead := db.state.Swap(nil), db.dead
	db.dead = nil
	db.mu.Unlock()
	db.free(dead) // waits for the readers, those of last too
	db.mu.Lock()
	defer db.mu.Unlock()
	iterators, open := last.refs.Sum(), make(map[*table]bool)
	db.older[last] = struct{}{}
	for s := range db.older {
		if s != last {
			iterators += s.refs.Sum()
		}
		for _, tables := range s.version.tables {
			for _, t := range tables {
				open[t] = true
			}
		}
	}
	if n := len(db.snapshots); iterators > 0 || n > 0 {
		errs = append(errs, fmt.Errorf("lsm: closed with %d iterators and %d snapshots open",
			iterators, n))
	}
	for t := range open {
		if iterators > 0 {
			errs = append(errs, t.file.Close())
		} else {
			errs = append(errs, t.close())
		}
	}
	if iterators > 0 {
		return errs // what they read stays mapped: a leak is better than a fault
	}
	for s := range db.older { // one may be there that is being released just now
		for _, m := range append(s.frozen, s.mem) {
			if m.refs.Add(-1) == 0 {
				m.arena.free()
				m.drop()
			}
		}
	}
	db.arenas.empty()
	db.cache.Close()
	return errs
}
