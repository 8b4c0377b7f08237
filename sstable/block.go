package sstable

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

const (
	blockHeaderBytes = 16
	leadBytes        = 32
	offsetsWide      = 1 // flag in the block header: end offsets are u32, else u16. On disk.
)

// block is a decoded data block: the payload as it is on disk, and a table built when it was loaded
// with one number per entry, head<<32 | start: the first four bytes of the key after the common
// prefix, big-endian and padded with zeros, and where the entry starts in data. Searching the
// table touches neither the offsets nor the keys until one candidate is left: 154 ns a Get where
// comparing keys took 340 (BenchmarkGetCached/2000).
//
// Everything in data was bounds-checked by decodeBlock, so entry does not check again.
//
// A block is immutable once decoded, but for its mark and its pins. In the cache it is the head of
// a frame, whose other fields belong to the Cache.
type block struct {
	data   []byte
	table  []byte // little-endian; one number more than entries, the last being the end of data
	base   uint64 // least sequence number
	prefix uint32 // length of the common prefix, which stands after the header
	used   atomic.Uint32

	// lead is the start of the common prefix. A lookup reads the two lines of the struct and none
	// of the header in data, which is 10 % slower (BenchmarkGetCached/200000).
	lead [leadBytes]byte

	pins atomic.Int32 // iterators that are on it

	// Guarded by Cache.mu.
	size  uint32 // bytes of the frame
	owner uint32 // Reader.cacheID; 0: not in a slot
	index uint32 // of the block in its table

	_ [16]byte // a frameUnit
}

const _ = uint(frameUnit-unsafe.Sizeof(block{})) + uint(unsafe.Sizeof(block{})-frameUnit) // equal

func (b *block) entries() int { return len(b.table)/8 - 1 }

func (b *block) commonPrefix() []byte {
	return b.data[blockHeaderBytes : blockHeaderBytes+b.prefix]
}

// tableBytes returns the size of the table of a block with payload data.
func tableBytes(data []byte) int {
	if len(data) < blockHeaderBytes {
		return 0
	}
	// An entry has at least two bytes, and an offset of two: more is a lie that decodeBlock finds.
	n := min(int(binary.LittleEndian.Uint32(data)), len(data)/4)
	return 8 * (n + 1)
}

// decodeBlock makes b the block with payload data, which it keeps, and fills table, which must have
// tableBytes(data) bytes. The reason is empty on success; otherwise b is not usable.
func decodeBlock(b *block, data, table []byte) (reason string) {
	le := binary.LittleEndian
	if len(data) < blockHeaderBytes {
		return "block is shorter than its header"
	}
	n, prefix, flags := int(le.Uint32(data)), int(le.Uint16(data[4:])), data[6]
	width, want := 2, byte(0)
	if len(data) > 0xffff {
		width, want = 4, offsetsWide
	}
	if flags != want || data[7] != 0 {
		return "unknown flags in block header"
	}
	if n == 0 || n > len(data)/width || blockHeaderBytes+prefix+width*n > len(data) {
		return "block is shorter than its entries"
	}
	if len(table) != 8*(n+1) {
		return "block has more entries than bytes"
	}
	b.data, b.table, b.prefix = data, table, uint32(prefix)
	b.base = le.Uint64(data[8:])
	if b.base > uint64(SeqMax) {
		return "impossible sequence number in block header"
	}
	copy(b.lead[:], b.commonPrefix())
	ends := data[blockHeaderBytes+prefix : blockHeaderBytes+prefix+width*n]
	start := blockHeaderBytes + prefix + width*n
	for i := range n {
		var end int
		if width == 2 {
			end = int(le.Uint16(ends[2*i:]))
		} else {
			end = int(le.Uint32(ends[4*i:]))
		}
		if end <= start || end > len(data) {
			return "block offsets out of order"
		}
		h, ok := b.checkEntry(data[start:end])
		if !ok {
			return "malformed entry in block"
		}
		le.PutUint64(table[8*i:], h<<32|uint64(start))
		start = end
	}
	if start != len(data) {
		return "bytes left over in block"
	}
	le.PutUint64(table[8*n:], uint64(start))
	return ""
}

// checkEntry verifies one entry and returns the head of its suffix.
func (b *block) checkEntry(e []byte) (h uint64, ok bool) {
	length, i := uvarint(e)
	if i == 0 {
		return 0, false
	}
	code, j := uvarint(e[i:])
	if j == 0 || code&7 > uint64(KindPut) || code>>3 > uint64(SeqMax)-b.base {
		return 0, false
	}
	e = e[i+j:]
	if length > uint64(len(e)) || length+uint64(b.prefix) > MaxKeyBytes {
		return 0, false
	}
	return shortHead(e[:length]), true
}

// shortHead is Head for four bytes.
func shortHead(p []byte) uint64 {
	if len(p) >= 4 {
		return uint64(binary.BigEndian.Uint32(p))
	}
	return Head(p) >> 32
}

// number returns entry i of the table.
func (b *block) number(i int) uint64 { return binary.LittleEndian.Uint64(b.table[8*i:]) }

// entry returns the key of entry i after the common prefix, its trailer, and its value. The slices
// point into the block.
func (b *block) entry(i int) (suffix []byte, trailer uint64, value []byte) {
	t := b.table[8*i : 8*i+16]
	start := uint32(binary.LittleEndian.Uint64(t))
	end := uint32(binary.LittleEndian.Uint64(t[8:]))
	e := b.data[start:end:end] // an append to the value must not reach the next entry
	length, n := uint64(e[0]), 1
	if length >= 0x80 {
		length, n = binary.Uvarint(e)
	}
	code := uint64(e[n])
	n++
	for shift := 7; e[n-1] >= 0x80; shift += 7 {
		code += (uint64(e[n]) - 1) << shift // the byte before had its top bit set: 1<<shift
		n++
	}
	e = e[n:]
	return e[:length:length], (b.base+code>>3)<<8 | code&7, e[length:]
}

// shortUvarint decodes the varint at the start of w, without a branch. It has n bytes and says v,
// or n is 8 and it has more than 4.
func shortUvarint(w uint64) (v uint64, n int) {
	ends := ^w & 0x80808080 // the top bit of each byte that may be the last
	n = (bits.TrailingZeros64(ends|1<<63) + 1) / 8
	w &= ends ^ (ends - 1)
	return w&0x7f | w>>1&0x3f80 | w>>2&0x1fc000 | w>>3&0xfe00000, n
}

// find returns the first entry at or after the internal key (user, trailer), entries() when there
// is none, and whether its user key is user.
func (b *block) find(user []byte, trailer uint64) (i int, same bool) {
	n, prefix := b.entries(), int(b.prefix)
	lead := min(prefix, leadBytes)
	if len(user) < prefix || !bytes.Equal(user[:lead], b.lead[:lead]) ||
		prefix > lead && !bytes.HasPrefix(user, b.commonPrefix()) {
		if bytes.Compare(user, b.commonPrefix()) < 0 {
			return 0, false
		}
		return n, false
	}
	rest := user[prefix:]
	h := shortHead(rest)
	lo := b.lowerBound(0, n, h<<32)
	if lo == n || b.number(lo)>>32 != h {
		return lo, false
	}
	hi := lo + 1
	if hi < n && b.number(hi)>>32 == h {
		hi = b.lowerBound(hi, n, h<<32|0xffffffff)
	}
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		suffix, t, _ := b.entry(mid)
		c := bytes.Compare(suffix, rest)
		if c < 0 || c == 0 && t > trailer {
			lo = mid + 1
		} else {
			hi, same = mid, c == 0
		}
	}
	return lo, same
}

// lowerBound returns the first entry in [lo, hi) whose number is at least v, or hi.
func (b *block) lowerBound(lo, hi int, v uint64) int {
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if b.number(mid) < v {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

const (
	touchBytes     = 1 << 10 // about ten small pairs
	cacheLineBytes = 64
)

// touchFrom reads a byte of each cache line from entry i on. Whoever seeks goes on from there and
// would wait for one line after the other; these loads depend on nothing, so the processor has them
// all under way at once. A seek and ten moves take a tenth less. (The same for the head and the
// table of a cached block, and for the nodes of a memtable, gained nothing.) The sum has no
// meaning: without it the compiler would leave the loads out.
func (b *block) touchFrom(i int) (sum byte) {
	at := int(uint32(b.number(i)))
	for end := min(at+touchBytes, len(b.data)); at < end; at += cacheLineBytes {
		sum += b.data[at]
	}
	return sum
}
