package lsm

import (
	"kvd/sstable"
	"kvd/sstable/rcu"
)

// readState is everything a read looks at, newest first: the memtable being filled, the frozen
// ones, the tables. It is immutable; whenever one of the parts changes a new one is made current.
//
// A Get uses the current state inside an rcu section. Iterators live longer and hold a reference.
// A state that is not current goes to the cleaner, and once more with its last reference. The
// cleaner waits for the Gets inside and then, unless references are left, lets go of its parts.
type readState struct {
	mem     *memtable
	frozen  []*memtable // newest first
	version *version

	refs  rcu.Counter // iterators
	freed bool        // of the cleaner
}

// get finds the newest version of user that is not newer than at and appends its value to dst. It
// fails with sstable.ErrNotCached where it would have to read a file and must not wait.
func (s *readState) get(dst, user []byte, at sstable.Seq, wait bool) ([]byte, error) {
	hash := indexHash(user)
	value, kind, ok := s.mem.get(user, hash, at)
	for i := 0; !ok && i < len(s.frozen); i++ {
		value, kind, ok = s.frozen[i].get(user, hash, at)
	}
	if ok {
		if kind == sstable.KindDelete {
			return dst, ErrNotFound
		}
		return append(dst, value...), nil
	}
	value, kind, ok, err := s.version.get(dst, user, sstable.Hash(user), at, wait)
	if err != nil {
		return dst, err
	}
	if !ok || kind == sstable.KindDelete {
		return dst, ErrNotFound
	}
	return value, nil
}

// acquireState returns the current state with a reference, nil when the DB is closed.
func (db *DB) acquireState() *readState {
	cell := db.readers.Enter()
	s := db.state.Load()
	if s != nil {
		// s may have just been replaced. The cleaner looks at the count when it has passed the rcu
		// section that we are in: from then on references only go.
		s.refs.Add(1)
	}
	cell.Exit()
	return s
}

// releaseState gives a reference back.
func (db *DB) releaseState(s *readState) {
	s.refs.Add(-1)
	if db.state.Load() == s {
		return // whoever replaces it gives it to the cleaner
	}
	db.mu.Lock()
	if s.refs.Sum() == 0 { // whoever takes mu last sees what all have given back
		db.dead = append(db.dead, s)
		db.work.Broadcast()
	}
	db.mu.Unlock()
}

// setStateLocked makes a new state current. The caller holds mu.
func (db *DB) setStateLocked(mem *memtable, frozen []*memtable, v *version) {
	next := &readState{mem: mem, version: v, frozen: make([]*memtable, 0, len(frozen))}
	for i := len(frozen) - 1; i >= 0; i-- {
		next.frozen = append(next.frozen, frozen[i])
	}
	v.states.Add(1)
	mem.refs.Add(1)
	for _, m := range frozen {
		m.refs.Add(1)
	}
	if old := db.state.Swap(next); old != nil {
		db.older[old] = struct{}{}
		db.dead = append(db.dead, old)
	}
	db.work.Broadcast()
}

// cleanLoop frees read states that nobody uses any more, and with them memtables and tables.
func (db *DB) cleanLoop() {
	defer db.loops.Done()
	db.mu.Lock()
	defer db.mu.Unlock()
	for {
		for len(db.dead) == 0 {
			if db.stopped {
				return
			}
			db.work.Wait()
		}
		dead := db.dead
		db.dead = nil
		db.cleaning = true
		db.mu.Unlock()
		db.free(dead)
		db.mu.Lock()
		db.cleaning = false
		db.work.Broadcast()
	}
}

// free lets go of those states that have no references left. It is called by one goroutine at a
// time, without mu.
func (db *DB) free(dead []*readState) {
	db.readers.Synchronize()
	defer func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		for _, s := range dead {
			if s.freed {
				delete(db.older, s)
			}
		}
	}()
	for _, s := range dead {
		// An iterator that holds a reference brings the state here again.
		if s.freed || s.refs.Sum() != 0 {
			continue
		}
		s.freed = true
		for _, m := range append(s.frozen, s.mem) {
			if m.refs.Add(-1) == 0 {
				db.arenas.put(m.arena)
				m.drop()
				if db.idle != nil {
					db.idle.Reset(idleAfter)
				}
			}
		}
		if s.version.states.Add(-1) == 0 {
			db.freeTables(s.version)
		}
	}
}

// freeTables drops a version's tables. One that no version lists any more was removed by a durable
// edit: its file goes too.
func (db *DB) freeTables(v *version) {
	for _, tables := range v.tables {
		for _, t := range tables {
			if t.refs.Add(-1) != 0 {
				continue
			}
			db.forgetDamage(t)
			err := t.close()
			if removeErr := db.remover.remove(t.name); err == nil {
				err = removeErr
			}
			if err != nil {
				db.log.Warn("cannot remove an obsolete table", "file", t.name, "error", err)
			}
		}
	}
}
