package sstable

import (
	"encoding/binary"
)

// blockWriter gathers the entries of one data block. Keys and values are copied into one buffer as
// they come, because the common prefix that is cut from every key is known only at the end.
type blockWriter struct {
	staged  []byte // key, value, key, value, ...
	entries []stagedEntry
	prefix  int // common prefix of all keys
	minSeq  uint64
	maxSeq  uint64
}

type stagedEntry struct {
	trailer   uint64
	key, full uint32 // length of the key, and of key and value
}

func (b *blockWriter) reset() {
	b.staged, b.entries = b.staged[:0], b.entries[:0]
}

// sizeWith bounds the payload from above as it would be with one more entry of full bytes, whose
// key shares common bytes with the key before it.
func (b *blockWriter) sizeWith(trailer uint64, full, common int) int {
	seq := trailer >> 8
	n, prefix := len(b.entries)+1, min(b.prefix, common)
	delta := uvarintLen((max(b.maxSeq, seq) - min(b.minSeq, seq)) << 3)
	return blockHeaderBytes + prefix + len(b.staged) + full + n*(3+delta-prefix)
}

// size is sizeWith for what is there.
func (b *blockWriter) size() int {
	if len(b.entries) == 0 {
		return 0
	}
	delta := uvarintLen((b.maxSeq - b.minSeq) << 3)
	return blockHeaderBytes + b.prefix + len(b.staged) + len(b.entries)*(3+delta-b.prefix)
}

// add appends an entry whose key shares common bytes with the key before it. It returns the copy of
// the key, valid until reset.
func (b *blockWriter) add(k Key, value []byte, common int) []byte {
	seq := k.Trailer >> 8
	if len(b.entries) == 0 {
		b.prefix = min(len(k.User), 0xffff)
		b.minSeq, b.maxSeq = seq, seq
	} else {
		b.prefix = min(b.prefix, common)
		b.minSeq, b.maxSeq = min(b.minSeq, seq), max(b.maxSeq, seq)
	}
	start := len(b.staged)
	b.staged = append(append(b.staged, k.User...), value...)
	b.entries = append(b.entries, stagedEntry{
		trailer: k.Trailer, key: uint32(len(k.User)), full: uint32(len(k.User) + len(value)),
	})
	return b.staged[start : start+len(k.User)]
}

// append appends the payload of the block: see the package comment.
func (b *blockWriter) append(p []byte) []byte {
	le, start := binary.LittleEndian, len(p)
	n, prefix := len(b.entries), b.prefix
	header := blockHeaderBytes + prefix
	width, flags, size := 2, byte(0), header+2*n
	at := 0
	for i := range b.entries {
		e := &b.entries[i]
		size += int(e.full) - prefix + b.overhead(e)
	}
	if size > 0xffff {
		width, flags, size = 4, offsetsWide, size+2*n
	}
	p = grow(p, size)
	out := p[start:]
	le.PutUint32(out, uint32(n))
	le.PutUint16(out[4:], uint16(prefix))
	out[6], out[7] = flags, 0
	le.PutUint64(out[8:], b.minSeq)
	copy(out[blockHeaderBytes:], b.staged[:prefix])
	ends, w := out[header:header+width*n], header+width*n
	for i := range b.entries {
		e := &b.entries[i]
		w += binary.PutUvarint(out[w:], uint64(int(e.key)-prefix))
		w += binary.PutUvarint(out[w:], (e.trailer>>8-b.minSeq)<<3|e.trailer&7)
		w += copy(out[w:], b.staged[at+prefix:at+int(e.full)])
		at += int(e.full)
		if width == 2 {
			le.PutUint16(ends[2*i:], uint16(w))
		} else {
			le.PutUint32(ends[4*i:], uint32(w))
		}
	}
	return p
}

// overhead returns the bytes of the two varints of e.
func (b *blockWriter) overhead(e *stagedEntry) int {
	return uvarintLen(uint64(int(e.key)-b.prefix)) +
		uvarintLen((e.trailer>>8-b.minSeq)<<3|e.trailer&7)
}

// grow returns p with n more bytes of any content.
func grow(p []byte, n int) []byte {
	if cap(p)-len(p) < n {
		p = append(make([]byte, 0, 2*cap(p)+n), p...)
	}
	return p[:len(p)+n]
}
