package sstable

import (
	"bytes"
	"encoding/binary"

	"github.com/golang/snappy"
)

// Blocks lie back to back, and each tells where it ends: the last end offset of a raw payload is
// its length, and a snappy stream is over when it has made as many bytes as it announced. So a
// table is walked without its index, and after a damaged stretch the next block is found by trying
// every offset. A false friend would have to match a 32-bit checksum that is seeded with its place,
// decode, and fit the order of the keys.

// walkBytes and walkFactor bound the work of looking for blocks: a value can be made to hold
// thousands of overlapping things that look like long blocks. What exceeds it is given up.
const (
	walkBytes  = 64 << 20
	walkFactor = 8
)

// nextWalked finds the next block at or after s.at.
func (s *Salvager) nextWalked() bool {
	end := s.size
	if s.dataEnd > 0 {
		end = min(end, s.dataEnd)
	}
	start := s.at
	for off := start; off+blockHeaderBytes/2+trailerBytes < end; off++ {
		if s.entries > 0 && s.found >= s.entries {
			return false // that was all
		}
		n, ok := s.tryBlock(off, end)
		if s.err != nil {
			return false
		}
		if ok {
			if off > start {
				s.startGap(start, off-start, "no block that verifies")
			}
			s.at = off + n
			return true
		}
		if s.resynced > walkBytes+walkFactor*s.size {
			break
		}
	}
	if !s.complete(start, end) {
		s.startGap(start, max(end-start, 0), "no block that verifies up to the end")
	}
	return false
}

// complete reports whether nothing is missing behind start, where the last block ended.
func (s *Salvager) complete(start, end int64) bool {
	if s.entries > 0 && (s.found >= s.entries || s.gaps == 0 && s.gap == nil) {
		return s.found >= s.entries
	}
	if s.dataEnd == 0 || s.dataEnd > s.size || end-start >= lineBytes {
		return false
	}
	p, err := s.view(start, int(end-start))
	return err == nil && len(bytes.Trim(p, "\x00")) == 0
}

// tryBlock reports whether a block stands at off and makes it the current one.
func (s *Salvager) tryBlock(off, end int64) (n int64, ok bool) {
	for _, length := range [...]func(off, end int64) int64{s.rawLength, s.snappyLength} {
		n = length(off, end)
		if s.err != nil {
			return 0, false
		}
		if n == 0 || off+n > end {
			continue
		}
		if s.open(off, n) == "" {
			return n, true
		}
		s.resynced += n
	}
	return 0, false
}

// glance is view for what decides whether there is a block before here: the window, to which the
// next offset goes back, does not move for it.
func (s *Salvager) glance(off int64, n int) ([]byte, error) {
	if s.holds(off, n) {
		return s.view(off, n)
	}
	if !s.far.holds(off, n) {
		s.resynced += farBytes
	}
	return s.far.view(off, n)
}

// rawLength returns the stored length of the raw block at off, 0 if there can be none.
func (s *Salvager) rawLength(off, end int64) int64 {
	if end-off < blockHeaderBytes+trailerBytes {
		return 0
	}
	p, err := s.view(off, blockHeaderBytes)
	if err != nil {
		s.err = err
		return 0
	}
	last, width := lastEndAt(p)
	if last == 0 || last+int64(width) > end-off {
		return 0
	}
	if p, err = s.glance(off+last, width); err != nil {
		s.err = err
		return 0
	}
	n := int64(binary.LittleEndian.Uint16(p))
	if width == 4 {
		n = int64(binary.LittleEndian.Uint32(p))
	}
	if n <= last || n > MaxBlockBytes {
		return 0
	}
	return n + trailerBytes
}

// lastEndAt returns where the last end offset of a payload stands and its width, 0 if p is not the
// header of one.
func lastEndAt(p []byte) (at int64, width int) {
	le := binary.LittleEndian
	n, prefix, flags := int64(le.Uint32(p)), int64(le.Uint16(p[4:])), p[6]
	if n == 0 || n > MaxBlockBytes/4 || flags > offsetsWide || p[7] != 0 || p[15] != 0 {
		return 0, 0
	}
	width = 2
	if flags != 0 {
		width = 4
	}
	return blockHeaderBytes + prefix + int64(width)*(n-1), width
}

// snappyLength returns the stored length of the compressed block at off, 0 if there can be none.
// It walks the elements of the stream, which are described in snappy's format_description.txt.
func (s *Salvager) snappyLength(off, end int64) int64 {
	const headMax = 10 + 5 + 8 // of stream and first element, and the start of the payload
	p, err := s.view(off, int(min(headMax, end-off)))
	if err != nil {
		s.err = err
		return 0
	}
	size, used := uvarint(p)
	if used == 0 || size < blockHeaderBytes || size > MaxBlockBytes || used == len(p) ||
		p[used]&3 != 0 {
		return 0 // a stream starts with bytes to copy literally
	}
	if literal, lead := snappyLiteral(p[used:]); literal >= 8 {
		q := p[used+lead:]
		if len(q) < 8 || q[3] != 0 || q[6] > offsetsWide || q[7] != 0 {
			return 0 // not how a payload starts
		}
	}
	limit := min(end-off, int64(snappy.MaxEncodedLen(int(size)))+trailerBytes)
	at, made := int64(used), int64(0)
	for made < int64(size) {
		if at+5+trailerBytes > limit && at+trailerBytes >= limit {
			return 0
		}
		s.resynced++
		p, err := s.glance(off+at, int(min(5, limit-at)))
		if err != nil {
			s.err = err
			return 0
		}
		stored, produced, back := snappyElement(p)
		if stored == 0 || back > made || produced > int64(size)-made {
			return 0
		}
		at, made = at+stored, made+produced
		if at+trailerBytes > limit {
			return 0
		}
	}
	return at + trailerBytes
}

// snappyLiteral returns the length of the literal whose element starts p, and where it starts.
func snappyLiteral(p []byte) (length int64, lead int) {
	n := int(p[0] >> 2)
	if n < 60 {
		return int64(n) + 1, 1
	}
	extra := n - 59
	if len(p) < 1+extra {
		return 0, 0
	}
	for i := extra; i > 0; i-- {
		length = length<<8 | int64(p[i])
	}
	return length + 1, 1 + extra
}

// snappyElement parses the element that starts p: how long it is, how many bytes it makes, and how
// far back it copies them from; 0 for a literal. stored is 0 if it is no element.
func snappyElement(p []byte) (stored, made, back int64) {
	le := binary.LittleEndian
	switch p[0] & 3 {
	case 0:
		n, lead := snappyLiteral(p)
		if lead == 0 {
			return 0, 0, 0
		}
		return int64(lead) + n, n, 0
	case 1:
		if len(p) < 2 {
			return 0, 0, 0
		}
		stored, made, back = 2, 4+int64(p[0]>>2&7), int64(p[0]>>5)<<8|int64(p[1])
	case 2:
		if len(p) < 3 {
			return 0, 0, 0
		}
		stored, made, back = 3, 1+int64(p[0]>>2), int64(le.Uint16(p[1:]))
	default:
		if len(p) < 5 {
			return 0, 0, 0
		}
		stored, made, back = 5, 1+int64(p[0]>>2), int64(le.Uint32(p[1:]))
	}
	if back == 0 {
		return 0, 0, 0
	}
	return stored, made, back
}
