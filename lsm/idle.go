package lsm

import (
	"time"

	"kvd/sstable"
)

const (
	// idleAfter is how long no memtable became full and no compaction ended when memory is given
	// back. A virtual machine may give it to its host, and to touch 64 MiB again then takes 220
	// ms instead of 9: writes of 8 KB beside a reader, after a pause of a second or two, were 6 to
	// 18 % fewer when this was one second.
	idleAfter = 5 * time.Second
	// calmAfter is how long nothing has been written when level 0 is merged although it is not
	// full: reads look into each of its tables, and the processors have less to do. Seeks in a tree
	// as a load in random order had left it went from 0.65 to 1.2 million a second.
	//
	// Tried and lost: to flush the memtable as well. Seeks went to 1.5 million, but somebody who
	// wrote 6 MB at a time with pauses between wrote 4.6 bytes to disk for each, not 3.3.
	calmAfter = 100 * time.Millisecond
)

// calm finds out that nobody writes. Writers do nothing for it: while there may be something to do
// when they stop, a timer looks whether there is another sequence number than the last time.
type calm struct {
	timer *time.Timer // nil if read only
	seen  sstable.Seq
	found bool // nothing was written since seen; taken by the compaction that makes use of it
}

// watchCalmLocked begins to look. The caller holds mu.
func (db *DB) watchCalmLocked() {
	c := &db.calm
	c.found = false
	if c.timer == nil || db.closing || len(db.state.Load().version.levels[0]) == 0 {
		return
	}
	c.seen = db.published.seq()
	c.timer.Reset(calmAfter)
}

// lookForCalm is the timer's. After a failure, of a full disk perhaps, there is only what must be.
func (db *DB) lookForCalm() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.calm.seen != db.published.seq() || len(db.frozen) > 0 || db.jobs > 0 {
		db.watchCalmLocked()
		return
	}
	if db.calm.found = db.retryPause == 0 && db.failure.Load() == nil; db.calm.found {
		db.work.Broadcast()
	}
}

// takeCalmLocked tells, once, that nobody has written up to now. The caller holds mu.
func (db *DB) takeCalmLocked(now sstable.Seq) bool {
	c := &db.calm
	if !c.found {
		return false
	}
	if c.found = false; c.seen == now {
		return true
	}
	db.watchCalmLocked() // somebody wrote since it was found, and may rest again
	return false
}

// trimMemory gives back spare arenas and table writers, and what the memtable being filled has not
// used yet. While somebody commits, that waits for idleAfter again: a commit may be waiting for a
// flush.
func (db *DB) trimMemory() {
	db.arenas.empty()
	db.writers.empty()
	const step = 64 << 20 // so much at a time do commits wait for
	for from, more := int64(0), true; more; from += step {
		if !db.commit.TryLock() {
			db.trimLater()
			return
		}
		if more = db.failure.Load() == nil; more { // not closed either: the memory is there
			m := db.commit.mem
			end := int64(len(m.arena.bytes))
			m.arena.memory.Release(max(from, m.used), min(from+step, end))
			more = from+step < end
		}
		db.commit.Unlock()
	}
}

func (db *DB) trimLater() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if !db.closing {
		db.idle.Reset(idleAfter)
	}
}
