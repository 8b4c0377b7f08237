package lsm

import (
	"time"

	"kvd/sstable"
)

const (
	// idleAfter is how long no memtable has become full and no compaction has ended when memory is
	// given back: by then it is no use to have it at hand.
	idleAfter = time.Second
	// calmAfter is how long nothing has been written when the memtable is flushed and level 0 is
	// merged although they are not full: reads look into each of them, and the processors have
	// less to do. Seeks in a tree as a load in random order had left it went from 0.65 to 1.2
	// million a second with the merge alone, and to 1.5 with the flush.
	calmAfter = 100 * time.Millisecond
	// calmSteps is in how many a memtable grows. Each is an occasion to begin to look for calm.
	calmSteps = 16
)

// calm finds out that nobody writes. Writers do nothing for it but at the steps of a memtable:
// while there may be something to do when they stop, a timer looks whether there is another
// sequence number than the last time.
type calm struct {
	timer *time.Timer // nil if read only
	seen  sstable.Seq
	grown bool // the memtable, by a step at least
	found bool // nothing was written since seen; taken by the compaction that makes use of it
}

// watchCalmLocked begins to look. The caller holds mu.
func (db *DB) watchCalmLocked() {
	c := &db.calm
	c.found = false
	if c.timer == nil || db.closing {
		return
	}
	if c.grown || len(db.state.Load().version.levels[0]) > 0 {
		c.seen = db.published.seq()
		c.timer.Reset(calmAfter)
	}
}

// lookForCalm is the timer's. The merge of level 0 comes after the flush, which therefore waits
// until nothing is in the way of that: while a merge ran, or could not, each pause of a writer
// would leave one more small table. After a failure, of a full disk perhaps, there is only what
// must be.
func (db *DB) lookForCalm() {
	if !db.commit.TryLock() { // somebody writes
		db.mu.Lock()
		db.watchCalmLocked()
		db.mu.Unlock()
		return
	}
	defer db.commit.Unlock()
	if db.failure.Load() != nil {
		return
	}
	db.mu.Lock()
	if db.calm.seen != db.published.seq() || len(db.frozen) > 0 || db.jobs > 0 {
		db.watchCalmLocked()
		db.mu.Unlock()
		return
	}
	levels := &db.state.Load().version.levels
	flush := db.calm.grown && len(db.damaged) == 0 && db.retryPause == 0 &&
		db.commit.mem.entries > 0 && db.picker.FlushIdle(levels, uint64(db.commit.mem.used))
	if db.calm.found = !flush && db.retryPause == 0; db.calm.found {
		db.work.Broadcast()
	}
	db.mu.Unlock()
	if flush {
		_ = db.rotate(&Batch{}) // which has told writers if it failed
	}
}

// take tells, once, that nobody has written up to now. The caller holds mu.
func (c *calm) take(now sstable.Seq) bool {
	found := c.found && c.seen == now
	c.found = false
	return found
}

// trimMemory gives back spare arenas and table writers, and what the memtable being filled has not
// used yet.
func (db *DB) trimMemory() {
	db.arenas.empty()
	db.writers.empty()
	const step = 64 << 20 // so much at a time do commits wait for
	for from, more := int64(0), true; more; from += step {
		db.commit.Lock()
		if more = db.failure.Load() == nil; more { // not closed either: the memory is there
			m := db.commit.mem
			end := int64(len(m.arena.bytes))
			m.arena.memory.Release(max(from, m.used), min(from+step, end))
			more = from+step < end
		}
		db.commit.Unlock()
	}
}
