package vfs

import (
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// Mem is a file system in memory that knows what of it is durable; the package comment has the
// model. It behaves like a Unix file system, down to the error values, with these differences:
// relative names start at the root, names are cleaned as text before they are looked up, a file is
// at most 16 GiB, and there are no permissions.
//
// All methods may be called concurrently. Reads of one file run in parallel.
type Mem struct {
	space space         // has its own mutex, the last one taken
	clock atomic.Uint64 // counts the changes of what is on the disk or of what of it is durable

	// Guarded by mu, which is taken before the mutex of an inode. Whoever changes the content of a
	// file holds it for reading, so that Crash sees one moment of the whole disk.
	mu      sync.RWMutex
	root    *folder
	pending []*change // not yet durable, oldest first
	lost    bool      // some of them were given up by a sync that failed
	open    int
}

// NewMem returns an empty file system with no limit on its size.
func NewMem() *Mem {
	return &Mem{root: newFolder(), space: space{limit: -1}}
}

// Version counts the operations that changed what is on the disk or what of it is durable. While it
// stands still, Crash of one mode and seed leaves the same disk.
func (m *Mem) Version() uint64 { return m.clock.Load() }

// tick returns the time of a change.
func (m *Mem) tick() uint64 { return m.clock.Add(1) }

// SetCapacity limits the sum of the sizes of all files to a number of bytes; negative means no
// limit, as at first. What would grow a file past the limit writes the part that fits and fails
// with syscall.ENOSPC, until files are removed or cut or the limit is raised. A removed file counts
// until its last handle is closed. Names are free, and so is overwriting.
func (m *Mem) SetCapacity(bytes int64) {
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	m.space.limit = bytes
}

// UsedBytes returns the sum of the sizes of all files, as SetCapacity counts it.
func (m *Mem) UsedBytes() int64 {
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	return m.space.used
}

// OpenFiles returns the number of files and locks that are not closed.
func (m *Mem) OpenFiles() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.open
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.createLocked(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m.space.resize(n.size, 0)
	n.truncateLocked(0, m.tick())
	return m.openLocked(n, name, true), nil
}

// createLocked returns the file of that name, a new one if there is none.
func (m *Mem) createLocked(name string) (*inode, error) {
	d, base, err := m.locateLocked(name)
	if err != nil {
		return nil, err
	}
	e, ok := d.live[base]
	switch {
	case base == "" || e.dir != nil:
		return nil, syscall.EISDIR
	case !ok:
		e.file = &inode{}
		m.changeLocked(edit{d, base, e})
	}
	return e.file, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.openExisting(name, false) }

// OpenReadWrite implements FS.
func (m *Mem) OpenReadWrite(name string) (File, error) { return m.openExisting(name, true) }

func (m *Mem) openExisting(name string, writable bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.fileLocked(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return m.openLocked(n, name, writable), nil
}

func (m *Mem) openLocked(n *inode, name string, writable bool) *memFile {
	m.open++
	n.handles++
	return &memFile{m: m, n: n, name: name, writable: writable}
}

// closeLocked gives a handle back.
func (m *Mem) closeLocked(n *inode) {
	m.open--
	n.handles--
	m.releaseLocked(n)
}

// releaseLocked stops counting the bytes of a file that nothing leads to any more. Its content is
// kept as long as a loss of power could bring its name back.
func (m *Mem) releaseLocked(n *inode) {
	if n.links == 0 && n.handles == 0 {
		n.mu.RLock()
		defer n.mu.RUnlock()
		m.space.resize(n.size, 0)
	}
}

// Rename implements FS.
func (m *Mem) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.renameLocked(oldname, newname); err != nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
	}
	return nil
}

func (m *Mem) renameLocked(oldname, newname string) error {
	from, oldbase, err := m.locateLocked(oldname)
	if err != nil {
		return err
	}
	to, newbase, err := m.locateLocked(newname)
	if err != nil {
		return err
	}
	e, ok := from.live[oldbase]
	switch {
	case oldbase == "":
		return syscall.EBUSY
	case !ok:
		return syscall.ENOENT
	}
	was, exists := to.live[newbase]
	switch {
	case newbase == "" || was.dir != nil:
		return syscall.EEXIST
	case exists && was == e: // two names of one file: Unix does nothing
		return nil
	case e.dir != nil && e.dir.holds(to):
		return syscall.EINVAL
	case exists && e.dir != nil:
		return syscall.ENOTDIR
	}
	m.changeLocked(edit{to, newbase, e}, edit{from, oldbase, entry{}})
	return nil
}

// Link implements FS.
func (m *Mem) Link(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.linkLocked(oldname, newname); err != nil {
		return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: err}
	}
	return nil
}

func (m *Mem) linkLocked(oldname, newname string) error {
	e, err := m.lookupLocked(oldname)
	if err != nil {
		return err
	}
	d, base, err := m.locateLocked(newname)
	if err != nil {
		return err
	}
	if _, exists := d.live[base]; exists || base == "" {
		return syscall.EEXIST
	}
	if e.dir != nil {
		return syscall.EPERM
	}
	m.changeLocked(edit{d, base, e})
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.locateLocked(name)
	if err == nil {
		e, ok := d.live[base]
		switch {
		case base == "":
			err = syscall.EBUSY
		case !ok:
			err = syscall.ENOENT
		case e.dir != nil && len(e.dir.live) > 0:
			err = syscall.ENOTEMPTY
		}
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	m.changeLocked(edit{d, base, entry{}})
	return nil
}

// Size implements FS.
func (m *Mem) Size(name string) (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.fileLocked(name)
	if err != nil {
		return 0, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.size, nil
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.createLocked(name)
	switch {
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	case n.locked:
		return nil, &fs.PathError{Op: "lock", Path: name, Err: ErrLocked}
	}
	n.locked = true
	m.open++
	n.handles++
	return &memLock{m: m, n: n, name: name}, nil
}

// memLock is a held lock.
type memLock struct {
	m    *Mem
	n    *inode
	name string

	closed bool // guarded by m.mu
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.closed {
		return &fs.PathError{Op: "unlock", Path: l.name, Err: os.ErrClosed}
	}
	l.closed, l.n.locked = true, false
	l.m.closeLocked(l.n)
	return nil
}
