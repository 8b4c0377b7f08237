//go:build !amd64 && !arm64

package vfs

import "golang.org/x/sys/unix"

func (f *osFile) fdatasync(fd int) error { return unix.Fdatasync(fd) }

func fsync(fd int) error { return unix.Fsync(fd) }

func syncFileRange(fd int, off, n int64, flags int) error {
	return unix.SyncFileRange(fd, off, n, flags)
}
