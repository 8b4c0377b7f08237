package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

var errNegativeOffset = errors.New("negative offset")

// memFile is a handle on a file of a Mem.
type memFile struct {
	m        *Mem
	n        *inode
	name     string
	writable bool

	closed bool // guarded by n.mu, so that no operation outlives Close
}

func (f *memFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.n.mu.RLock()
	defer f.n.mu.RUnlock()
	switch {
	case off < 0:
		return 0, f.fail("readat", errNegativeOffset)
	case f.closed:
		return 0, f.fail("read", os.ErrClosed)
	}
	n := f.n.readLocked(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	switch {
	case off < 0:
		return 0, f.fail("writeat", errNegativeOffset)
	case f.closed:
		return 0, f.fail("write", os.ErrClosed)
	case len(p) == 0:
		return 0, nil
	case !f.writable:
		return 0, f.fail("write", syscall.EBADF)
	case off > fileBytesMax-int64(len(p)):
		return 0, f.fail("write", syscall.EFBIG)
	}
	fits := f.m.space.grow(f.n.size, off, off+int64(len(p)))
	f.n.writeLocked(p[:fits], off, f.m.tick())
	if fits < len(p) {
		return fits, f.fail("write", syscall.ENOSPC)
	}
	return fits, nil
}

func (f *memFile) Size() (int64, error) {
	f.n.mu.RLock()
	defer f.n.mu.RUnlock()
	if f.closed {
		return 0, f.fail("stat", os.ErrClosed)
	}
	return f.n.size, nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	switch {
	case f.closed:
		return f.fail("truncate", os.ErrClosed)
	case size < 0 || !f.writable:
		return f.fail("truncate", syscall.EINVAL)
	case size > fileBytesMax:
		return f.fail("truncate", syscall.EFBIG)
	}
	if !f.m.space.resize(f.n.size, size) {
		return f.fail("truncate", syscall.ENOSPC)
	}
	f.n.truncateLocked(size, f.m.tick())
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if f.closed {
		return f.fail("sync", os.ErrClosed)
	}
	if f.n.syncLocked() {
		f.m.tick()
	}
	return nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.mu.Lock()
	closed := f.closed
	f.closed = true
	f.n.mu.Unlock()
	if closed {
		return f.fail("close", os.ErrClosed)
	}
	f.m.closeLocked(f.n)
	return nil
}
