package lsm

import (
	"errors"
	"slices"
	"sync"

	"kvd/lsm/vfs"
	"kvd/wal"
)

// segment is a log file that is ready to take records.
type segment struct {
	num    uint64
	file   vfs.File
	header wal.Header
}

// segments prepares log files ahead of their use and reuses old ones: a file whose blocks are
// allocated and written is synced faster than one that grows, and preparing takes several syncs
// that no writer should wait for.
//
// Invariant: a file with a segment's name has a durable header with that segment's number. The
// header is written and synced under a temporary name, so a damaged header is always damage.
type segments struct {
	fs      vfs.FS
	dir     string
	names   *directory
	fileNum func() uint64
	log     uint64 // the identity of the database
	step    int64  // in which they grow ahead of syncs
	remover *remover

	mu    sync.Mutex // also held while preparing: at most one segment is being prepared
	ready *segment
	spare []spareSegment  // no longer needed, oldest first
	taken []uint64        // and not retired, ascending
	unfit map[uint64]bool // not to be reused: damage was found there
}

type spareSegment struct {
	num   uint64
	bytes int64
}

const segmentsSpareMax = 2

// prepare makes sure that the next take does not wait.
func (s *segments) prepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready != nil {
		return nil
	}
	next, err := s.makeLocked()
	s.ready = next
	return err
}

// take returns a segment whose header and name are durable.
func (s *segments) take() (*segment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.ready
	s.ready = nil
	if next == nil {
		var err error
		if next, err = s.makeLocked(); err != nil {
			return nil, err
		}
	}
	s.taken = append(s.taken, next.num)
	return next, nil
}

// giveBack returns the segment that was taken last and not written to. Without it every attempt to
// make a memtable that fails would leave a file behind.
func (s *segments) giveBack(unused *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = slices.DeleteFunc(s.taken, func(num uint64) bool { return num == unused.num })
	if s.ready == nil {
		s.ready = unused
		return
	}
	_ = unused.file.Close() // nothing was written
	_ = s.remover.remove(logName(s.dir, unused.num))
}

func (s *segments) makeLocked() (*segment, error) {
	num := s.fileNum()
	name := logName(s.dir, num)
	temp := name + tempSuffix
	mark := s.names.mark()
	h := wal.Header{Segment: num, Nonce: randomUint64(), Log: s.log, PrewriteBytes: s.step}
	var f vfs.File
	var err error
	if n := len(s.spare); n > 0 {
		old := s.spare[n-1]
		s.spare = s.spare[:n-1]
		if err = s.fs.Rename(logName(s.dir, old.num), temp); err == nil {
			f, err = s.fs.OpenReadWrite(temp)
		}
		if err != nil {
			_ = s.remover.remove(logName(s.dir, old.num)) // it has one of the two names
		}
		h.Prewritten = old.bytes
	} else {
		f, err = s.fs.Create(temp)
	}
	if err != nil {
		_ = s.remover.remove(temp)
		return nil, err
	}
	err = wal.WriteHeader(f, h)
	if err == nil {
		err = s.fs.Rename(temp, name)
	}
	if err == nil {
		err = s.names.sync(mark)
	}
	if err != nil {
		_ = f.Close() // the first error is the one to tell
		_ = s.remover.remove(temp)
		_ = s.remover.remove(name) // it has one of the two names
		return nil, err
	}
	return &segment{num: num, file: f, header: h}, nil
}

// retire takes the segments up to number, whose records are all in durable tables, for reuse or
// removal. An older one that the log could not release at its time goes with them.
func (s *segments) retire(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for len(s.taken) > 0 && s.taken[0] <= number {
		num := s.taken[0]
		s.taken = s.taken[1:]
		name := logName(s.dir, num)
		unfit := s.unfit[num]
		delete(s.unfit, num)
		size, err := s.fs.Size(name)
		if err == nil && len(s.spare) < segmentsSpareMax && !unfit {
			s.spare = append(s.spare, spareSegment{num, size})
			continue
		}
		errs = append(errs, err, s.remover.remove(name))
	}
	return errors.Join(errs...)
}

// spoil has a segment removed instead of reused once it is not needed.
func (s *segments) spoil(num uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unfit == nil {
		s.unfit = make(map[uint64]bool)
	}
	s.unfit[num] = true
}

func (s *segments) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready == nil {
		return nil
	}
	err := s.ready.file.Close()
	s.ready = nil
	return err
}
