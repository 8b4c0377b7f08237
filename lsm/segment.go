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

	files sync.Mutex // held over what makes, renames or removes files; before mu

	mu    sync.Mutex      // never held over I/O: a commit takes it
	ready []*segment      // ascending
	spare []spareSegment  // no longer needed, oldest first
	taken []uint64        // and not retired, ascending
	unfit map[uint64]bool // not to be reused: damage was found there
}

type spareSegment struct {
	num   uint64
	bytes int64
}

const (
	segmentsSpareMax = 2
	// segmentsReady is how many are made ahead: memtables can become full two at a time, and to
	// make one takes three syncs, behind all that flushes and compactions are writing.
	segmentsReady = 2
)

// prepare makes sure that the next n takes do not wait.
func (s *segments) prepare(n int) error {
	s.files.Lock()
	defer s.files.Unlock()
	for {
		s.mu.Lock()
		enough := len(s.ready) >= n
		s.mu.Unlock()
		if enough {
			return nil
		}
		next, err := s.make()
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.ready = append(s.ready, next)
		s.mu.Unlock()
	}
}

// take returns a segment whose header and name are durable.
func (s *segments) take() (*segment, error) {
	if next := s.takeReady(); next != nil {
		return next, nil
	}
	s.files.Lock()
	defer s.files.Unlock()
	if next := s.takeReady(); next != nil { // made while we waited
		return next, nil
	}
	next, err := s.make()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = append(s.taken, next.num)
	return next, nil
}

func (s *segments) takeReady() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 {
		return nil
	}
	next := s.ready[0]
	s.ready = slices.Delete(s.ready, 0, 1)
	s.taken = append(s.taken, next.num)
	return next
}

// giveBack returns the segment that was taken last and not written to. Without it every attempt to
// make a memtable that fails would leave a file behind.
func (s *segments) giveBack(unused *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = slices.DeleteFunc(s.taken, func(num uint64) bool { return num == unused.num })
	s.ready = slices.Insert(s.ready, 0, unused)
}

// takeSpare takes the file that was needed last: most of it is still in memory.
func (s *segments) takeSpare() (old spareSegment, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.spare)
	if n == 0 {
		return old, false
	}
	old = s.spare[n-1]
	s.spare = s.spare[:n-1]
	return old, true
}

// make makes a segment. The caller holds files.
func (s *segments) make() (*segment, error) {
	num := s.fileNum()
	name := logName(s.dir, num)
	temp := name + tempSuffix
	mark := s.names.mark()
	h := wal.Header{Segment: num, Nonce: randomUint64(), Log: s.log, PrewriteBytes: s.step}
	var f vfs.File
	var err error
	if old, ok := s.takeSpare(); ok {
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
	s.files.Lock()
	defer s.files.Unlock()
	var errs []error
	for {
		num, unfit, ok := s.oldestTaken(number)
		if !ok {
			return errors.Join(errs...)
		}
		name := logName(s.dir, num)
		size, err := s.fs.Size(name)
		if err == nil && !unfit && s.keep(spareSegment{num, size}) {
			continue
		}
		errs = append(errs, err, s.remover.remove(name))
	}
}

// oldestTaken ends the oldest segment that is not above number.
func (s *segments) oldestTaken(number uint64) (num uint64, unfit, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.taken) == 0 || s.taken[0] > number {
		return 0, false, false
	}
	num = s.taken[0]
	s.taken = s.taken[1:]
	unfit = s.unfit[num]
	delete(s.unfit, num)
	return num, unfit, true
}

func (s *segments) keep(old spareSegment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.spare) >= segmentsSpareMax {
		return false
	}
	s.spare = append(s.spare, old)
	return true
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
	var errs []error
	for _, r := range s.ready {
		errs = append(errs, r.file.Close())
	}
	s.ready = nil
	return errors.Join(errs...)
}
