package lsm

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"

	"kvd/lsm/vfs"
	"kvd/sstable"
	"kvd/wal"
)

var (
	// ErrNotFound says that the key has no value.
	ErrNotFound = errors.New("lsm: not found")
	// ErrClosed says that the DB, snapshot or iterator is closed.
	ErrClosed = errors.New("lsm: closed")
	// ErrReadOnly says that the DB takes no writes: opened so, or after a failed sync or write of
	// the log or the manifest, which makes further promises impossible. Reads go on. The cause is
	// wrapped.
	ErrReadOnly = errors.New("lsm: read only")
	// ErrInDoubt says that a write may or may not have happened, whole: it was made visible, but
	// its durability could not be had. The cause is wrapped. A write that fails without it did
	// not happen.
	ErrInDoubt = errors.New("lsm: outcome unknown")
	// ErrDiskFull says that the file system has no room. Writes fail fast until there is room, then
	// resume by themselves.
	ErrDiskFull = errors.New("lsm: disk full")
	// ErrSuspended says that a table, a memtable or a log segment could not be made, for want of
	// file handles say. Nothing is lost. Writes fail fast until it can, then resume by themselves.
	// The cause is wrapped.
	ErrSuspended = errors.New("lsm: writes suspended")
	// ErrTooLate says that writes are being slowed down, for flushes or compactions are behind, and
	// that the turn of this one would not come before its caller gives up. Nothing was written.
	ErrTooLate = errors.New("lsm: too many writes for now")
	// ErrLocked says that another process, or another DB in this one, has the directory open.
	ErrLocked = vfs.ErrLocked
	// ErrFormat says that the directory holds something that this version cannot read.
	ErrFormat = errors.New("lsm: unknown format")
)

// KeySizeError is returned for a key of no bytes or more than MaxKeyBytes, or than Max where a
// layer above allows less.
type KeySizeError struct{ Bytes, Max int }

func (e *KeySizeError) Error() string {
	return fmt.Sprintf("lsm: key of %d bytes: must be 1 to %d", e.Bytes,
		cmp.Or(e.Max, MaxKeyBytes))
}

// ValueSizeError is returned for a value of more than MaxValueBytes, or than Max where a layer
// above allows less.
type ValueSizeError struct{ Bytes, Max int }

func (e *ValueSizeError) Error() string {
	return fmt.Sprintf("lsm: value of %d bytes: must be at most %d", e.Bytes,
		cmp.Or(e.Max, MaxValueBytes))
}

// BatchSizeError is returned for a batch that encodes to more than MaxBatchBytes.
type BatchSizeError struct{ Bytes int }

func (e *BatchSizeError) Error() string {
	return fmt.Sprintf("lsm: batch of %d bytes: must be at most %d", e.Bytes, MaxBatchBytes)
}

// CorruptError says that a file does not hold what was written to it. Nothing of the damaged
// part is served.
type CorruptError struct {
	File   string // path of the damaged file
	Offset int64  // byte offset of the damaged block or frame; -1 when the whole file is meant
	Reason string
}

func (e *CorruptError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("lsm: corrupt: %s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("lsm: corrupt: %s at offset %d: %s", e.File, e.Offset, e.Reason)
}

// inFile gives the corruption errors of the layers below the name of the file they speak of.
// Other errors pass unchanged.
func inFile(err error, name string) error {
	if table, ok := errors.AsType[*sstable.CorruptError](err); ok {
		return &CorruptError{File: name, Offset: table.Offset, Reason: table.Reason}
	}
	if log, ok := errors.AsType[*wal.CorruptError](err); ok {
		return &CorruptError{File: name, Offset: log.Offset, Reason: log.Reason}
	}
	return err
}

// diskFull reports whether err is the file system's word that there is no room.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
