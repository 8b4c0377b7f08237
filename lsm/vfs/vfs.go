package vfs

import (
	"errors"
	"io"
)

// ErrLocked is what [FS.Lock] fails with (by errors.Is) when somebody else holds the lock.
var ErrLocked = errors.New("vfs: file is locked")

// FS is a file system. All methods may be called concurrently.
//
// Names are paths with slashes; a name's directory must exist. Errors match fs.ErrNotExist,
// fs.ErrExist, syscall.ENOSPC and the like by errors.Is.
type FS interface {
	// Create opens name for reading and writing. An existing file is truncated. The name is
	// durable only after SyncDir of its directory, the content only after File.Sync.
	Create(name string) (File, error)

	// Open opens an existing file for reading.
	Open(name string) (File, error)

	// OpenReadWrite opens an existing file for reading and writing, content untouched.
	OpenReadWrite(name string) (File, error)

	// Rename moves a file, replacing newname if that exists and is a file. After a loss of power
	// newname leads to what it was before or to the renamed file, never to nothing if it existed;
	// SyncDir settles which. If the two names lie in different directories, sync both, the new
	// one first.
	Rename(oldname, newname string) error

	// Link gives a file one more name, which must not exist yet.
	Link(oldname, newname string) error

	// Remove deletes a name, which may be that of an empty directory. Open handles go on working.
	// Until SyncDir the name may come back.
	Remove(name string) error

	// MkdirAll makes dir and the parents it lacks. Each is durable after SyncDir of its parent.
	MkdirAll(dir string) error

	// List returns the base names of everything in dir, sorted.
	List(dir string) ([]string, error)

	// Size returns the size of a file in bytes.
	Size(name string) (int64, error)

	// SyncDir makes durable all creations, renames, links and removals in dir that happened before
	// the call. It says nothing of the content of the files, nor of dir's own name in its parent.
	SyncDir(dir string) error

	// Lock takes the lock named name, creating the file if need be, and fails with ErrLocked if
	// any process, this one included, holds it. Closing releases it and leaves the file; so does
	// the end of the process. To lock a file that exists the right to read it may be enough.
	Lock(name string) (io.Closer, error)
}

// File is an open file. All methods may be called concurrently; after Close they fail with
// os.ErrClosed, except that moving no bytes may succeed. A file has no position: every read and
// write says its offset in bytes.
type File interface {
	// ReadAt is io.ReaderAt: fewer bytes than asked come with an error, io.EOF at the end.
	io.ReaderAt

	// WriteAt is io.WriterAt. Writing past the end grows the file, a gap reads as zeros. When it
	// fails, any part of p may have been written.
	io.WriterAt

	// Size returns the current size in bytes.
	Size() (int64, error)

	// Truncate cuts the file to size bytes or grows it with zeros.
	Truncate(size int64) error

	// Sync makes durable every WriteAt and Truncate that returned before the call: the bytes and
	// the size, not the name. Times and other attributes may lag. After a failure nothing is known
	// of what was not yet durable, and a later success does not cover it.
	Sync() error

	// Close releases the handle. It makes nothing durable.
	Close() error
}
