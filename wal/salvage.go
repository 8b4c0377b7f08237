package wal

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
)

// Gap is a stretch of the log of which no frame verifies.
type Gap struct {
	Segment uint64 // where it stands; where it begins if a whole segment may be missing
	Offset  int64  // in that segment
	From    Pos    // NoPos when nobody knows where the log starts
	To      Pos
}

// Salvage hands out every frame that verifies from position start on, in the order of positions: it
// does not stop at damage as Recover does, nor tell a torn tail from it. fn gets each frame, with a
// payload that is valid during the call; lost is called for what is missing, before the frame that
// follows. Segments are given in ascending order of their numbers, and only those whose header
// verifies. With start NoPos the log begins with the first frame there is. Frames at end and later
// are left out, unless end is NoPos. It returns the position after the last frame, start if there
// is none.
//
// A frame of a previous life of its file never verifies. A frame that an earlier crash left behind
// a torn one does; it is left out when a later segment begins at or before its position, because
// recovery began that segment in its place.
func Salvage(
	segments []Segment, start, end Pos,
	fn func(segment uint64, f Frame) error, lost func(Gap) error,
) (Pos, error) {
	s := salvage{segs: segments, x: start, fn: fn, lost: lost, stopped: HeaderBytes}
	limits, err := s.limits(end)
	if err != nil {
		return s.x, err
	}
	for i, limit := range limits {
		if err := s.segment(i, limit); err != nil {
			return s.x, err
		}
	}
	if end == NoPos && s.x != NoPos && s.promised > s.x {
		at := s.segs[s.at].Number // a promise is that of a frame in it
		return s.x, lost(Gap{Segment: at, Offset: s.stopped, From: s.x, To: s.promised})
	}
	return s.x, nil
}

// salvage is the state of one Salvage.
type salvage struct {
	segs []Segment
	r    Reader
	fn   func(uint64, Frame) error
	lost func(Gap) error

	x        Pos   // handed out up to here; NoPos if nothing yet
	at       int   // segment of the last frame
	stopped  int64 // offset after it
	promised Pos   // a frame says that everything below was synced
}

// limits returns for each segment the position where a later one takes over.
func (s *salvage) limits(end Pos) ([]Pos, error) {
	limits, low := make([]Pos, len(s.segs)), end
	for i := len(s.segs) - 1; i >= 0; i-- {
		limits[i] = low
		if err := s.open(i); err != nil {
			return nil, err
		}
		if s.r.Next() || s.r.Resync() {
			low = min(low, s.r.Frame().Pos)
		}
		if err := s.r.Err(); err != nil {
			return nil, err
		}
	}
	return limits, nil
}

func (s *salvage) open(i int) error {
	if err := s.r.reset(s.segs[i]); err != nil {
		return err
	}
	if s.x != NoPos {
		s.r.floor = s.x
	}
	return nil
}

// segment hands out the frames of segment i below limit.
func (s *salvage) segment(i int, limit Pos) error {
	if err := s.open(i); err != nil {
		return err
	}
	for s.r.Next() || s.r.Resync() {
		f := s.r.Frame()
		if f.Pos >= limit && (len(f.Payload) > 0 || f.Pos > limit) {
			return nil
		}
		if s.x != NoPos && f.Pos < s.x {
			continue
		}
		if g, ok := s.gap(i, f); ok {
			if err := s.lost(g); err != nil {
				return err
			}
		}
		s.promised = max(s.promised, f.Durable)
		s.x, s.at, s.stopped = f.End(), i, s.r.Offset()
		if err := s.fn(s.segs[i].Number, f); err != nil {
			return err
		}
	}
	return s.r.Err()
}

// gap returns what is missing before frame f of segment i.
func (s *salvage) gap(i int, f Frame) (g Gap, ok bool) {
	here := Gap{Segment: s.segs[i].Number, Offset: HeaderBytes, From: s.x, To: f.Pos}
	if s.x == NoPos {
		return here, f.Offset > HeaderBytes
	}
	if f.Pos == s.x {
		return g, false
	}
	if i == s.at || f.Offset > HeaderBytes && f.Pos-s.x <= Pos(f.Offset-HeaderBytes) {
		if i == s.at {
			here.Offset = s.stopped
		}
		return here, true // it had room in this segment
	}
	here.Segment, here.Offset = s.segs[s.at].Number, s.stopped
	return here, true
}

// ReadHeader returns the header of a segment file of which nothing is known, whichever segment it
// says it is. Without one that verifies it is a *CorruptError.
func ReadHeader(r io.ReaderAt, size int64) (Header, error) {
	page := make([]byte, min(HeaderBytes, max(size, 0)))
	if n, err := r.ReadAt(page, 0); n < len(page) {
		return Header{}, fmt.Errorf("wal: read a header: %w", err)
	}
	number := uint64(0)
	for at := 0; at+headerCopy <= len(page) && number == 0; at += headerTwin {
		p := page[at : at+headerCopy]
		if binary.LittleEndian.Uint64(p[headerSumAt:]) == xxhash.Sum64(p[:headerSumAt]) {
			number = binary.LittleEndian.Uint64(p[16:])
		}
	}
	var h Reader
	err := h.reset(Segment{Number: number, R: r, Size: size})
	return h.head, err
}
