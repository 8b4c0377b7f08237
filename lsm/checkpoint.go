package lsm

import (
	"errors"
	"fmt"
	"io/fs"
)

// Checkpoint makes dir a database of its own with the contents of this one: everything written
// before the call and, of what is written meanwhile, a prefix. Tables are shared by hard links, so
// it costs next to nothing and dir must be on the same file system. dir must not exist or be
// empty. It is durable when Checkpoint returns.
func (db *DB) Checkpoint(dir string) error {
	if err := db.Flush(); err != nil {
		return err
	}
	if err := db.hold(); err != nil {
		return err
	}
	defer db.drop()
	s := db.acquireState()
	defer db.releaseState(s)
	err := db.checkpoint(dir, s.version)
	if err != nil {
		return fmt.Errorf("lsm: checkpoint to %s: %w", dir, err)
	}
	return nil
}

func (db *DB) checkpoint(dir string, v *version) error {
	fsys := db.opts.FS
	if names, err := fsys.List(dir); err == nil && len(names) > 0 {
		return fmt.Errorf("%w: the directory is not empty", fs.ErrExist)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDir(fsys, dir); err != nil {
		return err
	}
	whole := &edit{databaseID: db.databaseID, nextFile: db.fileNum.Load() + 1, added: v.all()}
	for _, tables := range v.tables {
		for _, t := range tables {
			if err := fsys.Link(t.name, tableName(dir, t.meta.Num)); err != nil {
				return err
			}
			whole.lastSeq = max(whole.lastSeq, t.meta.MaxSeq)
		}
	}
	// Bottom tables have forgotten their sequence numbers; the manifest remembers.
	db.installing.Lock()
	whole.lastSeq = max(whole.lastSeq, db.lastSeq)
	db.installing.Unlock()
	m := manifest{fs: fsys, dir: dir}
	err := m.append(nil, whole, db.newFileNum)
	m.abandon()
	return err
}
