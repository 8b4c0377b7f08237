package netquic

import (
	"io"
	"time"
)

const (
	readBufferBytes   = 64 << 10  // what one read of a busy lane takes
	firstBufferBytes  = 8 << 10   // what an idle lane holds
	retainBufferBytes = 256 << 10 // a buffer grown beyond this for a large frame is given back
)

// frameReader cuts a lane into frames. One goroutine uses it.
//
// Invariant: the buffer is never larger than twice the bytes that have arrived of the frame being
// read, or readBufferBytes: a length field reserves nothing.
type frameReader struct {
	src      io.Reader
	side     side
	maxBytes int

	buf  []byte
	r, w int // unread bytes are buf[r:w]
	need int // size of the frame at buf[r:], when known to be incomplete
}

func newFrameReader(src io.Reader, s side, maxBytes int) *frameReader {
	return &frameReader{src: src, side: s, maxBytes: maxBytes, buf: make([]byte, firstBufferBytes)}
}

// fill reads once and returns the number of bytes that arrived. Frames returned before are
// overwritten.
func (r *frameReader) fill() (int, error) {
	full := r.w == len(r.buf)
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	switch {
	case r.w == 0 && len(r.buf) > retainBufferBytes:
		r.buf = make([]byte, readBufferBytes)
	case full && len(r.buf) < readBufferBytes:
		r.resize(readBufferBytes) // a read filled it whole: the lane is busy
	case r.w == len(r.buf):
		r.resize(min(2*len(r.buf), max(r.need, readBufferBytes)))
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return n, nil // an error comes again with the next read
	}
	return 0, err
}

func (r *frameReader) resize(n int) {
	b := make([]byte, n)
	copy(b, r.buf[:r.w])
	r.buf = b
}

// next returns the next whole frame of the buffer; ok is false when more bytes must be read first.
func (r *frameReader) next() (f frame, ok bool, err error) {
	if r.r == r.w {
		return f, false, nil
	}
	f, n, need, err := parseFrame(r.buf[r.r:r.w], r.side, r.maxBytes)
	r.r += n
	r.need = need
	return f, n > 0, err
}

// partial returns how many bytes of an incomplete frame are held.
func (r *frameReader) partial() int { return r.w - r.r }

// slowFrame is a timer that runs while a frame is incomplete: it gives it the limit from its first
// byte, and again for every 64 KiB of it that arrive. A timer of its own, because a read deadline
// would cost an allocation and two locks per read.
type slowFrame struct {
	timer *time.Timer
	limit time.Duration
	armed bool
	kept  int // bytes of the incomplete frame when the timer was last set
}

// whole notes that a frame is complete: what is behind it is new, and this end may be slow now.
func (s *slowFrame) whole() {
	if s.armed {
		s.timer.Stop()
		s.armed = false
	}
}

// rest notes that n bytes of an incomplete frame are held.
func (s *slowFrame) rest(n int) {
	switch {
	case n == 0:
		s.whole()
	case !s.armed || n < s.kept || n >= s.kept+readBufferBytes:
		s.timer.Reset(s.limit)
		s.armed = true
		s.kept = n
	}
}
