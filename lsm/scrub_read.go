package lsm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"kvd/lsm/vfs"
)

const (
	// scrubStepBytes is what a scrub reads at a time: a millisecond of a disk's time.
	scrubStepBytes = 256 << 10
	// scrubPageBytes is the unit of reads that go past the cache of the operating system.
	scrubPageBytes = 4096
)

// scrubFile reads a file for the scrub, in steps that wait for their turn. It is an io.ReaderAt
// under the readers of tables and logs, so the scrub checks exactly what they check. The file is
// opened for each step and not kept open between them: that would keep the space of a removed
// file, and a name that leads nowhere any more would go unnoticed.
type scrubFile struct {
	r      *scrubRun
	name   string
	needed func(*readState) bool // whether the file still belongs to the database
	size   int64
	buffer []byte // for a step

	window  []byte // of the file, from offset from on; in buffer
	from    int64
	paid    bool  // the next step has been waited for
	stopped error // why nothing more is read; no damage
}

// scrubReadError is a read that failed.
type scrubReadError struct {
	offset int64
	err    error
}

func (e *scrubReadError) Error() string {
	return fmt.Sprintf("read at offset %d: %v", e.offset, e.err)
}

func (e *scrubReadError) Unwrap() error { return e.err }

// open waits for the first step and finds the size of the file.
func (f *scrubFile) open(expected int64) error {
	if err := f.r.await(min(expected, scrubStepBytes)); err != nil {
		f.stopped = err
		return err
	}
	f.paid = true
	err := f.hold(func(fsys vfs.FS) (err error) {
		f.size, err = fsys.Size(f.name)
		return err
	})
	step := min(f.size, scrubStepBytes) + scrubPageBytes - 1
	f.buffer = make([]byte, step/scrubPageBytes*scrubPageBytes)
	return err
}

// hold calls do while a state of the database keeps the file in place, if it belongs to it.
func (f *scrubFile) hold(do func(vfs.FS) error) error {
	db := f.r.db
	s := db.acquireState()
	if s == nil {
		f.stopped = ErrClosed
		return ErrClosed
	}
	defer db.releaseState(s)
	if !f.needed(s) {
		f.stopped = errScrubGone
		return errScrubGone
	}
	err := do(db.opts.FS)
	if cannotLook(err) {
		f.stopped = err
	}
	return err
}

// cannotLook tells a lack of this process from a fault of the disk.
func cannotLook(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, fs.ErrPermission)
}

// ReadAt implements io.ReaderAt.
func (f *scrubFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at < f.from || at >= f.from+int64(len(f.window)) {
			if err := f.fill(at, int64(len(p)-n)); err != nil {
				return n, err
			}
		}
		n += copy(p[n:], f.window[at-f.from:])
	}
	return n, nil
}

// fill moves the window to at, of which want bytes are asked for.
func (f *scrubFile) fill(at, want int64) error {
	after := f.from + int64(len(f.window))
	f.window = f.window[:0]
	if f.stopped != nil {
		return f.stopped
	}
	if at >= f.size {
		return io.EOF
	}
	f.from = at / scrubPageBytes * scrubPageBytes
	if f.size <= int64(len(f.buffer)) {
		f.from = 0
	}
	n := min(f.size-f.from, int64(len(f.buffer)))
	if f.from > 0 && at != after || f.from == 0 && n < f.size {
		// Not where the last read ended: nobody knows whether more will be wanted.
		n = min(n, (at+want-f.from+scrubPageBytes-1)/scrubPageBytes*scrubPageBytes)
	}
	if !f.paid {
		if f.stopped = f.r.await(n); f.stopped != nil {
			return f.stopped
		}
	}
	f.paid = false
	err := f.load(n)
	if err != nil && f.stopped == nil { // one bad sector must not hide those around it
		f.from = at / scrubPageBytes * scrubPageBytes
		err = f.load(min(at+want-f.from, f.size-f.from, int64(len(f.buffer))))
	}
	switch {
	case f.stopped != nil:
		return f.stopped
	case err != nil:
		return &scrubReadError{at, err}
	}
	return nil
}

// load reads n bytes of the file into the window.
func (f *scrubFile) load(n int64) error {
	whole := (n + scrubPageBytes - 1) / scrubPageBytes * scrubPageBytes
	return f.hold(func(fsys vfs.FS) error {
		file, err := vfs.OpenMedium(fsys, f.name)
		if err != nil {
			return err
		}
		got, err := file.ReadAt(f.buffer[:whole], f.from)
		if closeErr := file.Close(); got < int(n) && (err == nil || err == io.EOF) {
			err = io.ErrUnexpectedEOF
			if closeErr != nil {
				err = closeErr
			}
		}
		f.r.count(int64(got))
		if got < int(n) {
			return err
		}
		f.window = f.buffer[:n]
		return nil
	})
}

// count notes what has been read.
func (r *scrubRun) count(bytes int64) {
	r.done += bytes
	r.db.scrub.bytes.Add(uint64(bytes))
	if r.request != nil {
		r.request.report.Bytes += bytes
	}
}

// damage says in which place of the file err is.
func (f *scrubFile) damage(err error) Damage {
	err = inFile(err, f.name)
	if e, ok := errors.AsType[*CorruptError](err); ok {
		return Damage{File: e.File, Offset: e.Offset, Reason: e.Reason}
	}
	d := Damage{File: f.name, Offset: -1, Reason: "cannot be read: " + err.Error()}
	if e, ok := errors.AsType[*scrubReadError](err); ok {
		d.Offset, d.Reason = e.offset, "cannot be read: "+e.err.Error()
	}
	if errors.Is(err, fs.ErrNotExist) {
		d.Offset, d.Reason = -1, "the file is missing"
	}
	return d
}
