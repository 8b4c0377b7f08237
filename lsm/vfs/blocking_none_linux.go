//go:build !amd64 && !arm64

package vfs

import "golang.org/x/sys/unix"

func (f *osFile) fdatasync(fd int) error { return unix.Fdatasync(fd) }

func fsync(fd int) error { return unix.Fsync(fd) }

// StartWriting has the operating system begin to write n bytes from off on to the disk. It is a
// hint: it promises nothing, and an error will be seen by Sync.
func StartWriting(f File, off, n int64) {
	if f, ok := f.(*osFile); ok {
		_ = f.control("sync_file_range", func(fd int) error {
			return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
		})
	}
}
