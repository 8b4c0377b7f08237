package wal

import (
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// fakeFile is a segment file in memory that knows what of it is synced and can fail.
type fakeFile struct {
	mu     sync.Mutex
	data   []byte
	synced []byte
	writes []fakeWrite // since the last sync
	closed bool
	fail   func(op string) error // op is "write" or "sync"
}

type fakeWrite struct {
	off  int64
	data []byte
}

func (f *fakeFile) failure(op string) error {
	if f.closed {
		return errors.New("fake: use of a closed file")
	}
	if f.fail != nil {
		return f.fail(op)
	}
	return nil
}

func (f *fakeFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure("write"); err != nil {
		return 0, err
	}
	f.data = overlay(f.data, p, off)
	f.writes = append(f.writes, fakeWrite{off, slices.Clone(p)})
	return len(p), nil
}

func overlay(data, p []byte, off int64) []byte {
	if n := int(off) + len(p) - len(data); n > 0 {
		data = append(data, make([]byte, n)...)
	}
	copy(data[off:], p)
	return data
}

func (f *fakeFile) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure("sync"); err != nil {
		return err
	}
	for _, w := range f.writes {
		f.synced = overlay(f.synced, w.data, w.off)
	}
	f.writes = nil
	return nil
}

func (f *fakeFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errors.New("fake: closed twice")
	}
	f.closed = true
	return nil
}

// crash returns what a power loss leaves: all that is synced, and of the rest some sectors.
func (f *fakeFile) crash(r *rand.Rand) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	data := slices.Clone(f.synced)
	for _, w := range f.writes {
		for at := 0; at < len(w.data); {
			n := min(512-int(w.off+int64(at))%512, len(w.data)-at)
			if r.IntN(2) == 0 {
				data = overlay(data, w.data[at:at+n], w.off+int64(at))
			}
			at += n
		}
	}
	return data
}

// bytesAt is an io.ReaderAt, and a Segment by number.
type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func segmentOf(number uint64, data []byte) Segment {
	return Segment{Number: number, R: bytesAt(data), Size: int64(len(data))}
}

// newFake returns a file with a header, on top of what it held before.
func newFake(t testing.TB, h Header, before []byte) *fakeFile {
	t.Helper()
	f := &fakeFile{data: slices.Clone(before), synced: slices.Clone(before)}
	if err := WriteHeader(f, h); err != nil {
		t.Fatal(err)
	}
	return f
}

// replay collects the records of a log.
func replay(start Pos, segs ...Segment) (recs []string, res Result, err error) {
	res, err = Recover(segs, start, func(rec []byte) error {
		recs = append(recs, string(rec))
		return nil
	})
	return recs, res, err
}
