package vfs

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sync is fdatasync. It leaves out the modification time, which would cost one more write to the
// journal of the file system for every sync of a file that does not grow.
func (f *osFile) Sync() error {
	err := f.control("sync", unix.Fdatasync)
	if errno, ok := err.(syscall.Errno); ok {
		return &fs.PathError{Op: "sync", Path: f.file.Name(), Err: errno}
	}
	return err
}
