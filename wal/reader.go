package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Segment is a segment file to read.
type Segment struct {
	Number uint64
	R      io.ReaderAt
	Size   int64 // of the file, bytes; a file that turns out shorter is a read error
	// Log is the log that it must belong to, see Header; 0 takes any. Frames of another log verify,
	// so whoever replays a log says which.
	Log uint64
}

// Frame is one frame of a segment. Payload is valid until the reader moves.
type Frame struct {
	Offset  int64 // of the frame in the file
	Pos     Pos   // of the first payload byte
	Durable Pos   // everything below was synced before this frame was written
	Payload []byte
}

// End returns the position after the frame.
func (f Frame) End() Pos { return f.Pos + Pos(len(f.Payload)) }

const (
	readBytes = 1 << 20 // how much is read at a time

	// A resync hashes whatever looks like the header of a frame. A header that lies about its
	// length makes that long, and a client could put many of them into a value. So the work has a
	// limit, resyncBytes and resyncFactor times what is left of the file, beyond which only frames
	// of up to resyncSmallBytes are still tried.
	resyncBytes      = 64 << 20
	resyncFactor     = 4
	resyncSmallBytes = 4 << 10

	// resyncSpan bounds the positions believed in where the position of what stood before is not
	// known. It is far more than a log holds, and far less than what random bytes amount to.
	resyncSpan = Pos(1) << 40
)

// Reader reads a segment frame by frame. It verifies everything and believes nothing that does not
// verify: no length makes it allocate more than the file holds of verified bytes. Not safe for
// concurrent use.
type Reader struct {
	seg   Segment
	head  Header
	off   int64 // where the next frame stands
	pos   Pos   // what its position must be; NoPos if any
	floor Pos   // lowest position a resync believes in while pos is NoPos
	frame Frame
	ended bool   // the END frame was read
	stop  string // why there is no next frame
	err   error

	win    []byte // the file from winOff on
	winOff int64
	large  []byte // payload of a frame that exceeds the window
	digest xxhash.Digest
}

// NewReader returns a reader at the first frame of a segment. A segment without a valid header is a
// *CorruptError.
func NewReader(s Segment) (*Reader, error) {
	r := new(Reader)
	if err := r.reset(s); err != nil {
		return nil, err
	}
	return r, nil
}

// reset makes r a reader of s, keeping its memory.
func (r *Reader) reset(s Segment) error {
	*r = Reader{seg: s, off: HeaderBytes, pos: NoPos, win: r.win[:0], large: r.large}
	page, err := r.view(0, min(HeaderBytes, max(s.Size, 0)))
	if err != nil {
		return err
	}
	r.head, err = parseHeader(page, s)
	return err
}

// Header returns the header of the segment.
func (r *Reader) Header() Header { return r.head }

// Frame returns the frame that the last Next or Resync found.
func (r *Reader) Frame() Frame { return r.frame }

// Offset returns where the frame after that one stands, or would.
func (r *Reader) Offset() int64 { return r.off }

// Stop says in words why Next found no frame.
func (r *Reader) Stop() string { return r.stop }

// Err returns the read error that made Next or Resync return false, nil at the end of the frames.
func (r *Reader) Err() error { return r.err }

// Next moves to the next frame: one that stands right after the last one in the file and in the
// stream. It returns false if there is none, see Stop, or if reading failed, see Err.
func (r *Reader) Next() bool {
	if r.ended || r.err != nil {
		return false
	}
	if r.off+frameHeaderBytes > r.seg.Size {
		r.stop = "end of file"
		return false
	}
	p, err := r.view(r.off, frameHeaderBytes)
	if err != nil {
		r.err = err
		return false
	}
	h := parseFrameHead(p)
	switch {
	case h == frameHead{}:
		r.stop = "nothing written"
		return false
	case r.pos != NoPos && h.pos != r.pos:
		r.stop = "no frame"
		return false
	case !r.fits(h, r.off):
		r.stop = "not a frame header"
		return false
	}
	return r.accept(h, r.off)
}

// fits reports whether h, at off, can be the header of a frame.
func (r *Reader) fits(h frameHead, off int64) bool {
	return h.payload <= MaxFrame && h.bytes() <= r.seg.Size-off && h.durable <= h.pos &&
		h.pos+Pos(h.payload) >= h.pos && h.pos != NoPos
}

// accept makes the frame at off the current one if its sum is right.
func (r *Reader) accept(h frameHead, off int64) bool {
	ok, err := r.verify(h, off)
	if err == nil && ok {
		r.frame = Frame{Offset: off, Pos: h.pos, Durable: h.durable}
		r.frame.Payload, err = r.payload(h, off)
	}
	if err != nil {
		r.err = err
		return false
	}
	if !ok {
		r.stop = "the checksum does not match"
		return false
	}
	r.off = off + h.bytes()
	r.pos = r.frame.End()
	r.ended = h.payload == 0
	if r.ended {
		r.stop = "END frame"
	}
	return true
}

// verify checks the sum of a frame that fits, in steps of the window.
func (r *Reader) verify(h frameHead, off int64) (bool, error) {
	var head [frameHeadroom]byte
	sum := h.sum
	h.sum = 0
	putFrameHead(head[:], r.head.Nonce, off, h)
	r.digest.Reset()
	_, _ = r.digest.Write(head[:]) // never fails
	for at, end := off+frameHeaderBytes, off+h.bytes(); at < end; {
		n := min(end-at, readBytes)
		p, err := r.view(at, n)
		if err != nil {
			return false, err
		}
		_, _ = r.digest.Write(p)
		at += n
		if at == end {
			for _, b := range p[n-(h.bytes()-frameHeaderBytes-h.payload):] {
				if b != 0 {
					return false, nil
				}
			}
		}
	}
	return uint32(r.digest.Sum64()) == sum, nil
}

// payload returns the payload of a frame that verified.
func (r *Reader) payload(h frameHead, off int64) ([]byte, error) {
	off += frameHeaderBytes
	if h.payload <= readBytes {
		return r.view(off, h.payload)
	}
	r.large = slices.Grow(r.large[:0], int(h.payload))[:h.payload]
	return r.large, r.read(r.large, off)
}

// view returns n bytes of the file at off, at most readBytes. They are valid until the next call.
func (r *Reader) view(off, n int64) ([]byte, error) {
	if off < r.winOff || off+n > r.winOff+int64(len(r.win)) {
		size := int(min(readBytes, r.seg.Size-off))
		r.win = slices.Grow(r.win[:0], size)[:size]
		r.winOff = off
		if err := r.read(r.win, off); err != nil {
			r.win = r.win[:0]
			return nil, err
		}
	}
	at := off - r.winOff
	return r.win[at : at+n : at+n], nil
}

// read fills p from off. That the file ends within p is an error: its size was known.
func (r *Reader) read(p []byte, off int64) error {
	n, err := r.seg.R.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("wal: read segment %d at offset %d: %w", r.seg.Number, off, err)
}

// Resync looks for the next valid frame beyond the place where Next stopped, at any offset, and
// moves to it. It believes only in positions that what stands between can account for.
func (r *Reader) Resync() bool {
	if r.ended || r.err != nil {
		return false
	}
	low, start := r.pos, r.off
	if low == NoPos {
		low = r.floor
	}
	budget := resyncBytes + resyncFactor*max(r.seg.Size-start, 0)
	for off := start + frameAlign; off+frameHeaderBytes <= r.seg.Size; off += frameAlign {
		p, err := r.view(off, frameHeaderBytes)
		if err != nil {
			r.err = err
			return false
		}
		span := Pos(off - start)
		if r.pos == NoPos {
			span = resyncSpan
		}
		if Pos(binary.LittleEndian.Uint64(p[8:]))-low > span {
			continue // most of what is no header ends here
		}
		h := parseFrameHead(p)
		if h == (frameHead{}) || !r.fits(h, off) {
			continue
		}
		if budget -= h.payload; budget < 0 && h.payload > resyncSmallBytes {
			continue
		}
		if r.accept(h, off) {
			return true
		}
		if r.err != nil {
			return false
		}
	}
	r.stop = "end of file"
	return false
}
