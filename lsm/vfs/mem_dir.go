package vfs

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fail := func(err error) error { return &fs.PathError{Op: "mkdir", Path: dir, Err: err} }
	if dir == "" {
		return fail(syscall.ENOENT)
	}
	d := m.root
	for part := range strings.SplitSeq(path.Clean("/" + filepath.ToSlash(dir))[1:], "/") {
		if part == "" { // the root
			return nil
		}
		e, ok := d.live[part]
		switch {
		case !ok:
			e.dir = newFolder()
			m.changeLocked(edit{d, part, e})
		case e.dir == nil:
			return fail(syscall.ENOTDIR)
		}
		d = e.dir
	}
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	d, err := m.folderLocked(dir)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return sortedNames(d.live), nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.folderLocked(dir)
	if err != nil {
		return &fs.PathError{Op: "sync", Path: dir, Err: err}
	}
	m.syncDirLocked(d)
	return nil
}
