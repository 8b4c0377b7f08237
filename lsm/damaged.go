package lsm

import (
	"context"
	"errors"
)

// met sees to the damage that a read has found in the table, if err is that and the first of it. It
// never waits and takes no lock: a Get calls it inside its rcu section.
func (t *table) met(err error) {
	e, ok := errors.AsType[*CorruptError](err)
	if ok && t.damageMet.CompareAndSwap(false, true) {
		go t.db.readDamage(t, e)
	}
}

// met is table.met for the table that the error names.
func (v *version) met(err error) {
	e, ok := errors.AsType[*CorruptError](err)
	if !ok {
		return
	}
	for _, tables := range v.tables {
		for _, t := range tables {
			if t.name == e.File {
				t.met(err)
			}
		}
	}
}

// readDamage reports what a read has met, keeps the table out of compactions, and has the scrub
// read it now, which heals it if it can or finds that the disk has what the read did not.
func (db *DB) readDamage(t *table, e *CorruptError) {
	if !db.quarantine(t, e) || db.opts.ReadOnly {
		return
	}
	// An error is for what kept the scrub from reading the table. It comes by in its period.
	_ = db.requestScrub(&scrubRequest{ctx: context.Background(), table: t})
}

// quarantine lists a table as damaged. It reports false when there is nothing left to do: others
// have found the damage before, or no version lists the table any more.
func (db *DB) quarantine(t *table, e *CorruptError) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closing || db.damaged[t.meta.Num] != "" {
		return false
	}
	db.counters.corruptions.Add(1)
	db.log.Error("a read met damage; what is damaged is not served",
		"file", e.File, "offset", e.Offset, "reason", e.Reason)
	if !db.state.Load().has(t) {
		return false
	}
	db.damaged[t.meta.Num] = t.name
	return true
}

// forgetDamage takes a table that is gone off the list: a compaction that was under way may have
// had all of it before the damage.
func (db *DB) forgetDamage(t *table) {
	db.mu.Lock()
	defer db.mu.Unlock()
	delete(db.damaged, t.meta.Num)
}
