package lsm

import "fmt"

// checkFiles verifies that the tables on disk are exactly those that the version lists, once
// background work and open iterators are done with the others.
func (db *DB) checkFiles() error {
	db.mu.Lock()
	defer db.mu.Unlock() // nothing starts while it is held
	for len(db.dead) > 0 || db.cleaning || len(db.frozen) > 0 || db.jobs > 0 {
		db.work.Wait()
	}
	nums, err := listFiles(db.opts.FS, db.dir, fileTable)
	if err != nil {
		return err
	}
	live := make(map[uint64]bool)
	for _, tables := range db.state.Load().version.tables {
		for _, t := range tables {
			live[t.meta.Num] = true
		}
	}
	for _, num := range nums {
		if !live[num] {
			return fmt.Errorf("lsm: table %d is on disk, but no version lists it", num)
		}
		delete(live, num)
	}
	if len(live) > 0 {
		return fmt.Errorf("lsm: %d tables of the version are not on disk", len(live))
	}
	return nil
}
