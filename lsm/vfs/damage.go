package vfs

import (
	"io/fs"
	"syscall"
)

// The methods in this file go behind the back of the code under test: they look at and change what
// is on the disk, at once and durably, as a failing disk or another program would.

// FlipByte damages a file: the byte at off changes by XOR, both where reads see it and where it
// would survive. A handle that is open sees it too. It fails with syscall.EINVAL past the end.
func (m *Mem) FlipByte(name string, off int64, xor byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.fileLocked(name)
	if err == nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		if off < 0 || off >= n.size {
			err = syscall.EINVAL
		}
	}
	if err != nil {
		return &fs.PathError{Op: "flip", Path: name, Err: err}
	}
	i, at := int(off/pageBytes), int(off%pageBytes)
	n.written = m.tick()
	n.ownLocked(i, at, at+1, n.written)[at] ^= xor
	var durable block
	if d := n.pages[i].durable; d != nil {
		durable = *d
	}
	durable[at] ^= xor
	n.pages[i].durable = &durable
	return nil
}

// ReadFile returns the content of a file.
func (m *Mem) ReadFile(name string) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.fileLocked(name)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	data := make([]byte, n.size)
	n.readLocked(data, 0)
	return data, nil
}

// WriteFile gives a file exactly this content, creating it if need be; content and name are durable
// at once, the directory it is in is not. Other names and handles of an existing file see the new
// content.
func (m *Mem) WriteFile(name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.createLocked(name)
	if err == nil {
		err = m.overwriteLocked(n, data)
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	d, base, _ := m.locateLocked(name) // createLocked has found it
	e := edit{d, base, entry{file: n}}
	e.apply(d.durable)
	m.supersedeLocked(len(m.pending), e)
	return nil
}

func (m *Mem) overwriteLocked(n *inode, data []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if int64(len(data)) > fileBytesMax {
		return syscall.EFBIG
	}
	if !m.space.resize(n.size, int64(len(data))) {
		return syscall.ENOSPC
	}
	now := m.tick()
	n.truncateLocked(0, now)
	n.writeLocked(data, 0, now)
	n.syncLocked()
	return nil
}
