package vfs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sync is fdatasync. It leaves out the modification time, which would cost one more write to the
// journal of the file system for every sync of a file that does not grow.
func (f *osFile) Sync() error {
	err := f.control("sync", f.fdatasync)
	if errno, ok := err.(syscall.Errno); ok {
		return &fs.PathError{Op: "sync", Path: f.file.Name(), Err: errno}
	}
	return err
}

// SyncDir is fsync: to leave anything out would have to be right for directories too.
func (system) SyncDir(dir string) error {
	f, err := openFile(dir, os.O_RDONLY)
	if err != nil {
		return err
	}
	err = f.control("sync", fsync)
	if errno, ok := err.(syscall.Errno); ok {
		err = &fs.PathError{Op: "sync", Path: dir, Err: errno}
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// StartWriting has the operating system begin to write n bytes from off on to the disk. It is a
// hint: it promises nothing, and an error will be seen by Sync.
func StartWriting(f File, off, n int64) {
	if f, ok := f.(*osFile); ok {
		_ = f.control("sync_file_range", func(fd int) error {
			return syncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
		})
	}
}

// mediumFile reads by O_DIRECT. To drop the file from the cache before and after each read instead
// (posix_fadvise) would take it from those who use it.
type mediumFile struct{ *osFile }

func openMedium(name string) (File, error) {
	f, err := openFile(name, os.O_RDONLY|unix.O_DIRECT)
	if errors.Is(err, syscall.EINVAL) { // not on this file system
		return OS.Open(name)
	}
	if err != nil {
		return nil, err
	}
	f.direct = true
	return mediumFile{f}, nil
}

// ReadAt does without O_DIRECT from where that is refused.
func (f mediumFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.osFile.ReadAt(p, off)
	if !errors.Is(err, syscall.EINVAL) {
		return n, err
	}
	err = f.control("fcntl", func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0)
		return err
	})
	if err != nil {
		return n, err
	}
	more, err := f.osFile.ReadAt(p[n:], off+int64(n))
	return n + more, err
}
