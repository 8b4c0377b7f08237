package lsm

import (
	"errors"
	"io"
	"io/fs"
	"syscall"

	"kvd/lsm/vfs"
)

// source is a file of a disk that may be failing. What it cannot read is zeros, which no checksum
// takes for data: one bad sector must not cost a window of a megabyte, nor end the salvage.
type source struct {
	file vfs.File
	name string
	size int64
	bad  int64 // offset of the first page that cannot be read; -1 if none met
}

const sourcePageBytes = 4096

// mediaError reports whether a read failed because of the disk, so that trying again would not
// help. Others, such as having no more file handles, are not damage.
func mediaError(err error) bool { return errors.Is(err, syscall.EIO) }

// openSource opens a file to read what can be read of it. reason says why nothing can be: the file
// is missing, or the disk fails.
func openSource(fsys vfs.FS, name string) (f *source, reason string, err error) {
	file, err := fsys.Open(name)
	if err == nil {
		f = &source{file: file, name: name, bad: -1}
		if f.size, err = file.Size(); err != nil {
			_ = file.Close()
		}
	}
	switch {
	case err == nil:
		return f, "", nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, "the file is missing", nil
	case mediaError(err):
		return nil, err.Error(), nil
	}
	return nil, "", err
}

// ReadAt implements io.ReaderAt.
func (f *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(p, off)
	if err == nil || !mediaError(err) {
		return n, err
	}
	for at := 0; at < len(p); {
		end := min(len(p), at+sourcePageBytes-int(off+int64(at))%sourcePageBytes)
		n, err := f.file.ReadAt(p[at:end], off+int64(at))
		switch {
		case err == nil:
		case mediaError(err):
			clear(p[at:end])
			if f.bad < 0 || off+int64(at) < f.bad {
				f.bad = off + int64(at)
			}
		default:
			return at + n, err
		}
		at = end
	}
	return len(p), nil
}

// Close releases the file. It was only read.
func (f *source) Close() { _ = f.file.Close() }

var _ io.ReaderAt = (*source)(nil)
