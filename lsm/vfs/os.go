package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// OS is the file system of the operating system. Its errors are those of package os, unwrapped.
// File.Sync is fdatasync on Linux, which also writes the size; elsewhere it is os.File.Sync, which
// on macOS flushes the drive's cache as well.
var OS FS = system{}

type system struct{}

func (system) Create(name string) (File, error) {
	return asFile(openFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC))
}

// Open leaves reading ahead to the system. Tried and lost: to say that reads will be at random
// (posix_fadvise). Those of a tree five times the memory were no faster, and loading it a fifth
// slower, since compaction then waits for each of its reads.
func (system) Open(name string) (File, error) {
	f, err := openFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	// A directory opens for reading like a file and fails only later, at the first read.
	if info, err := f.file.Stat(); err != nil {
		_ = f.file.Close()
		return nil, err
	} else if info.IsDir() {
		_ = f.file.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	return f, nil
}

func (system) OpenReadWrite(name string) (File, error) {
	return asFile(openFile(name, os.O_RDWR))
}

func (system) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

func (system) Link(oldname, newname string) error { return os.Link(oldname, newname) }

func (system) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o755) }

func (system) List(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

func (system) Size(name string) (int64, error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return 0, &fs.PathError{Op: "stat", Path: name, Err: syscall.EISDIR}
	}
	return info.Size(), nil
}

// Lock uses flock, which belongs to the open file and not to the process: a second Lock within the
// process is refused like one from outside, and the kernel releases it however the process ends.
// It takes no right to write: who may only read the file must see too that it is locked.
func (system) Lock(name string) (io.Closer, error) {
	f, denied := openFile(name, os.O_RDWR|os.O_CREATE)
	if errors.Is(denied, fs.ErrPermission) || errors.Is(denied, syscall.EROFS) {
		f, _ = openFile(name, os.O_RDONLY)
	}
	if f == nil {
		return nil, denied
	}
	err := f.flock(unix.LOCK_EX | unix.LOCK_NB)
	if err == nil {
		return lock{f}, nil
	}
	_ = f.file.Close()
	if err == unix.EWOULDBLOCK {
		err = ErrLocked
	} else if denied != nil { // NFS locks only what it may write
		return nil, denied
	}
	return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
}

// lock is a file held by flock.
type lock struct{ f *osFile }

// Close unlocks before it closes: a child being forked at this moment still shares the open file,
// and would keep the lock until its exec.
func (l lock) Close() error {
	err := l.f.flock(unix.LOCK_UN)
	if closeErr := l.f.file.Close(); err == nil {
		err = closeErr
	}
	return err
}

// osFile is an os.File with the methods of File.
type osFile struct {
	file *os.File
	raw  syscall.RawConn
	fd   atomic.Int64 // of file; -1 once it is closed
	uses atomic.Int32 // of fd

	direct bool // opened with O_DIRECT: its reads are taken to wait for the disk

	unsynced atomic.Int64 // bytes written since the last Sync
	took     atomic.Int64 // nanoseconds, the last large or direct transfer
}

func openFile(name string, flag int) (*osFile, error) {
	f, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	of := &osFile{file: f, raw: raw}
	of.fd.Store(int64(f.Fd()))
	return of, nil
}

// asFile keeps a nil *osFile from becoming a File that is not nil.
func asFile(f *osFile, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (f *osFile) Truncate(size int64) error { return f.file.Truncate(size) }

// Close waits for those who use the descriptor: the system soon gives the number to another file.
func (f *osFile) Close() error {
	f.fd.Store(-1)
	for f.uses.Load() != 0 {
		time.Sleep(100 * time.Microsecond)
	}
	return f.file.Close()
}

func (f *osFile) Size() (int64, error) {
	info, err := f.file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) flock(how int) error {
	return f.control("flock", func(fd int) error { return unix.Flock(fd, how) })
}

// control runs a system call on the descriptor. It goes through the RawConn because that holds the
// descriptor: a concurrent Close cannot hand the number to another file meanwhile.
func (f *osFile) control(op string, call func(fd int) error) error {
	var callErr error
	err := f.raw.Control(func(fd uintptr) {
		for {
			if callErr = call(int(fd)); callErr != unix.EINTR {
				return
			}
		}
	})
	if err != nil { // the one reason there is
		return &fs.PathError{Op: op, Path: f.file.Name(), Err: os.ErrClosed}
	}
	return callErr
}
