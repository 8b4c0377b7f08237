package vfs

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// OpKind is the kind of an operation on a Fault: a method of FS, or one of a File or of a lock.
type OpKind uint8

const (
	OpCreate OpKind = iota
	OpOpen
	OpOpenReadWrite
	OpRename
	OpLink
	OpRemove
	OpMkdirAll
	OpList
	OpSize // of a name
	OpSyncDir
	OpLock
	OpUnlock // Close of a lock
	OpReadAt
	OpWriteAt
	OpFileSize // of an open file
	OpTruncate
	OpSync
	OpClose

	opKinds // how many there are
)

var opNames = [opKinds]string{"Create", "Open", "OpenReadWrite", "Rename", "Link", "Remove",
	"MkdirAll", "List", "Size", "SyncDir", "Lock", "Unlock", "ReadAt", "WriteAt", "FileSize",
	"Truncate", "Sync", "Close"}

func (k OpKind) String() string {
	if k < opKinds {
		return opNames[k]
	}
	return fmt.Sprintf("OpKind(%d)", uint8(k))
}

// Writes reports whether the operation may change what is on the disk or what of it is durable.
func (k OpKind) Writes() bool {
	switch k {
	case OpCreate, OpRename, OpLink, OpRemove, OpMkdirAll, OpSyncDir, OpLock,
		OpWriteAt, OpTruncate, OpSync:
		return true
	}
	return false
}

// Op describes an operation that is about to happen.
type Op struct {
	Kind    OpKind
	Name    string // the file or directory; the old name of a Rename or Link
	NewName string // of a Rename or Link
	Off     int64  // of a ReadAt or WriteAt, in bytes
	Len     int64  // of a ReadAt or WriteAt; the size of a Truncate
	N       uint64 // the how many-th operation on this Fault, from 1
}

// String prints the operation as in "#12 WriteAt 000001.wal [512,1024)".
func (o Op) String() string {
	s := fmt.Sprintf("#%d %s %s", o.N, o.Kind, o.Name)
	switch o.Kind {
	case OpRename, OpLink:
		s += " " + o.NewName
	case OpReadAt, OpWriteAt:
		s += fmt.Sprintf(" [%d,%d)", o.Off, o.Off+o.Len)
	case OpTruncate:
		s += fmt.Sprintf(" %d", o.Len)
	}
	return s
}

// ShortError asks a Fault to do a part of an operation; see ShortWrite.
type ShortError struct {
	Bytes int   // how many bytes to transfer first
	Err   error // what to fail with then
}

func (e *ShortError) Error() string {
	return fmt.Sprintf("vfs: to be cut short at %d bytes: %v", e.Bytes, e.Err)
}

// Unwrap returns Err.
func (e *ShortError) Unwrap() error { return e.Err }

// ShortWrite is what an inject function returns to have a WriteAt write its first n bytes and then
// fail with err, or a ReadAt read so many. Every other operation just fails with err.
func ShortWrite(n int, err error) error { return &ShortError{Bytes: n, Err: err} }

// Fault is a file system that passes everything on to another one, unless a test wants it to fail.
// It is as safe for concurrent use as the other one is and adds no locking.
type Fault struct {
	fs     FS
	inject func(Op) error
	ops    atomic.Uint64
}

// NewFault wraps fs. Before every operation inject is called, concurrently if the operations are;
// if it returns an error the operation fails with that and is not carried out. An operation is
// anything done to the file system, to a file, or to a lock. Closing is the exception: the handle
// is given back all the same, as the kernel does when close fails, so that a test can demand that
// nothing leaks. A nil inject lets everything pass.
func NewFault(fs FS, inject func(Op) error) *Fault { return &Fault{fs: fs, inject: inject} }

// Ops returns how many operations there have been: the N of the last.
func (f *Fault) Ops() uint64 { return f.ops.Load() }

// before counts an operation and asks whether it should fail; how many of its bytes to transfer
// even so is 0 but for a ShortWrite.
func (f *Fault) before(o Op) (short int, err error) {
	o.N = f.ops.Add(1)
	if f.inject == nil {
		return 0, nil
	}
	err = f.inject(o)
	if err == nil {
		return 0, nil
	}
	var e *ShortError
	if errors.As(err, &e) {
		return int(min(int64(max(e.Bytes, 0)), o.Len)), e.Err
	}
	if lost, ok := errors.AsType[*lostSync](err); ok && o.Kind != OpSync && o.Kind != OpSyncDir {
		err = lost.err
	}
	return 0, err
}

// Create implements FS.
func (f *Fault) Create(name string) (File, error) {
	return f.openAs(Op{Kind: OpCreate, Name: name}, f.fs.Create)
}

// Open implements FS.
func (f *Fault) Open(name string) (File, error) {
	return f.openAs(Op{Kind: OpOpen, Name: name}, f.fs.Open)
}

// OpenReadWrite implements FS.
func (f *Fault) OpenReadWrite(name string) (File, error) {
	return f.openAs(Op{Kind: OpOpenReadWrite, Name: name}, f.fs.OpenReadWrite)
}

func (f *Fault) openAs(o Op, open func(string) (File, error)) (File, error) {
	if _, err := f.before(o); err != nil {
		return nil, err
	}
	file, err := open(o.Name)
	if err != nil {
		return nil, err
	}
	return &faultFile{f: f, file: file, name: o.Name}, nil
}

// Rename implements FS.
func (f *Fault) Rename(oldname, newname string) error {
	if _, err := f.before(Op{Kind: OpRename, Name: oldname, NewName: newname}); err != nil {
		return err
	}
	return f.fs.Rename(oldname, newname)
}

// Link implements FS.
func (f *Fault) Link(oldname, newname string) error {
	if _, err := f.before(Op{Kind: OpLink, Name: oldname, NewName: newname}); err != nil {
		return err
	}
	return f.fs.Link(oldname, newname)
}

// Remove implements FS.
func (f *Fault) Remove(name string) error {
	if _, err := f.before(Op{Kind: OpRemove, Name: name}); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

// MkdirAll implements FS.
func (f *Fault) MkdirAll(dir string) error {
	if _, err := f.before(Op{Kind: OpMkdirAll, Name: dir}); err != nil {
		return err
	}
	return f.fs.MkdirAll(dir)
}

// List implements FS.
func (f *Fault) List(dir string) ([]string, error) {
	if _, err := f.before(Op{Kind: OpList, Name: dir}); err != nil {
		return nil, err
	}
	return f.fs.List(dir)
}

// Size implements FS.
func (f *Fault) Size(name string) (int64, error) {
	if _, err := f.before(Op{Kind: OpSize, Name: name}); err != nil {
		return 0, err
	}
	return f.fs.Size(name)
}

// SyncDir implements FS.
func (f *Fault) SyncDir(dir string) error {
	if _, err := f.before(Op{Kind: OpSyncDir, Name: dir}); err != nil {
		return loseNames(f.fs, dir, err)
	}
	return f.fs.SyncDir(dir)
}

// Lock implements FS.
func (f *Fault) Lock(name string) (io.Closer, error) {
	if _, err := f.before(Op{Kind: OpLock, Name: name}); err != nil {
		return nil, err
	}
	l, err := f.fs.Lock(name)
	if err != nil {
		return nil, err
	}
	return &faultLock{f: f, lock: l, name: name}, nil
}
