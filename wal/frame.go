package wal

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// A frame is what one group flush writes, on disk, little endian, at an 8-byte aligned offset:
//
//	payloadLen u32 | sum u32 | pos u64 | durable u64 | payload | zeros to a multiple of 8
//
// In memory 16 bytes of context stand before it, which are hashed but not written:
//
//	nonce u64 | file offset u64
//
// sum is the low half of xxhash64 over context and frame, padding included, with sum taken as 0.
// The payload is a run of whole records, each a minimal uvarint length and that many bytes.
const (
	contextBytes     = 16
	frameHeaderBytes = 24
	frameHeadroom    = contextBytes + frameHeaderBytes
	frameSumAt       = 4
	frameAlign       = 8
)

// MaxFrame is the largest payload of a frame in bytes; a record and its length prefix fit in one.
// Part of the format: a reader takes a longer length for damage.
const MaxFrame = 1 << 30

// frameHead is the decoded header of a frame.
type frameHead struct {
	payload int64  // length in bytes, without padding; 0 is the END frame
	sum     uint32 //
	pos     Pos    // of the first payload byte
	durable Pos    // everything below was synced before this frame was written
}

// bytes is the size of the frame in the file.
func (h frameHead) bytes() int64 {
	return frameHeaderBytes + (h.payload+frameAlign-1)&^(frameAlign-1)
}

func parseFrameHead(p []byte) frameHead {
	_ = p[frameHeaderBytes-1]
	return frameHead{
		payload: int64(binary.LittleEndian.Uint32(p)),
		sum:     binary.LittleEndian.Uint32(p[frameSumAt:]),
		pos:     Pos(binary.LittleEndian.Uint64(p[8:])),
		durable: Pos(binary.LittleEndian.Uint64(p[16:])),
	}
}

// putFrameHead fills the context and the header at the start of p, with the sum as given.
func putFrameHead(p []byte, nonce uint64, off int64, h frameHead) {
	_ = p[frameHeadroom-1]
	binary.LittleEndian.PutUint64(p, nonce)
	binary.LittleEndian.PutUint64(p[8:], uint64(off))
	binary.LittleEndian.PutUint32(p[16:], uint32(h.payload))
	binary.LittleEndian.PutUint32(p[20:], h.sum)
	binary.LittleEndian.PutUint64(p[24:], uint64(h.pos))
	binary.LittleEndian.PutUint64(p[32:], uint64(h.durable))
}

// sealFrame makes buf, which is frameHeadroom bytes and a payload, into a frame for the given
// place, padding included. The frame to write is what follows the context in the result.
func sealFrame(buf []byte, nonce uint64, off int64, pos, durable Pos) []byte {
	h := frameHead{payload: int64(len(buf) - frameHeadroom), pos: pos, durable: durable}
	for len(buf)%frameAlign != 0 {
		buf = append(buf, 0)
	}
	putFrameHead(buf, nonce, off, h)
	sum := uint32(xxhash.Sum64(buf))
	binary.LittleEndian.PutUint32(buf[contextBytes+frameSumAt:], sum)
	return buf
}

// recordBytes is the number of positions a record of n bytes takes.
func recordBytes(n int) int {
	size := n + 1
	for v := uint64(n); v >= 0x80; v >>= 7 {
		size++
	}
	return size
}

// NextRecord splits the first record off the payload of a frame. Both slices share memory with
// payload. ok is false when the payload does not start with a whole record.
func NextRecord(payload []byte) (rec, rest []byte, ok bool) {
	n, used := binary.Uvarint(payload)
	if used <= 0 || used > 1 && payload[used-1] == 0 || n > uint64(len(payload)-used) {
		return nil, nil, false
	}
	end := used + int(n)
	return payload[used:end:end], payload[end:], true
}
