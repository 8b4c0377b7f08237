package lsm

import (
	"errors"
	"fmt"
	"io/fs"

	"kvd/sstable"
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

func (db *DB) checkpoint(dir string, v *version) (err error) {
	fsys := db.opts.FS
	names, err := fsys.List(dir)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err == nil && len(names) > 0 {
		return fmt.Errorf("%w: the directory is not empty", fs.ErrExist)
	} else if err != nil && !isNew {
		return err
	}
	if err := makeDir(fsys, dir); err != nil {
		return err
	}
	var linked []string
	m := manifest{fs: fsys, dir: dir, names: &directory{fs: fsys, dir: dir},
		step: db.opts.prewriteBytes(), remover: &remover{fs: fsys}}
	defer func() {
		m.abandon()
		if err != nil && !m.named { // what CURRENT may name must stay
			for _, name := range linked {
				_ = fsys.Remove(name) // so that the next try finds the directory empty
			}
			if isNew {
				_ = fsys.Remove(dir) // stays if something else is in it
			}
		}
	}()
	for _, tables := range v.tables {
		for _, t := range tables {
			if db.ctx.Err() != nil {
				return ErrClosed
			}
			name := tableName(dir, t.meta.Num)
			if err := fsys.Link(t.name, name); err != nil {
				return err
			}
			linked = append(linked, name)
		}
	}
	whole := func() *edit {
		return &edit{databaseID: db.databaseID, nextFile: db.fileNum.Load(), added: v.all(),
			lastSeq: db.tablesSeq()}
	}
	return m.append(nil, whole, db.newFileNum)
}

// tablesSeq is at least the last sequence number in any table. Bottom tables have forgotten
// theirs; the manifest remembers.
func (db *DB) tablesSeq() sstable.Seq {
	db.installing.Lock()
	defer db.installing.Unlock()
	return db.lastSeq
}
