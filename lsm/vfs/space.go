package vfs

import "sync"

// space counts the bytes of all files of a Mem against its capacity.
type space struct {
	mu    sync.Mutex
	limit int64 // negative: none
	used  int64
}

// resize accounts for a file going from one size to another, or reports that it does not fit.
func (s *space) resize(from, to int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to > from && s.limit >= 0 && to-from > s.limit-s.used {
		return false
	}
	s.used += to - from
	return true
}

// restore counts the bytes of a file that is back, whether they fit or not.
func (s *space) restore(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used += bytes
}

// grow reserves what a write of [off, end) to a file of size bytes adds to it and returns how many
// bytes of the write fit.
func (s *space) grow(size, off, end int64) int {
	if end <= size {
		return int(end - off)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit >= 0 {
		end = min(end, size+max(s.limit-s.used, 0))
	}
	if end <= off { // not even the gap before it
		return 0
	}
	s.used += max(end-size, 0)
	return int(end - off)
}
