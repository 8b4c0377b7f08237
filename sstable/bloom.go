package sstable

import (
	"encoding/binary"
	"math"

	"github.com/bits-and-blooms/bloom/v3"
)

const (
	lineBits  = 8 * lineBytes
	lineWords = lineBytes / 8
	maxProbes = 24
)

// filter answers whether a table may hold a user key, from the key's hash alone. It is a blocked
// Bloom filter (Putze, Sanders, Singler 2007): all bits of a key lie in one 64-byte line, so that a
// probe costs one cache miss. The high half of the hash picks the line, the low half, multiplied on
// by the golden ratio, the bits in it.
//
// The bits live in a bloom.BloomFilter as container. Its own test (murmur, one line per bit) takes
// 75 ns where Hash and mayContain take 19: BenchmarkFilter.
//
// The zero filter has no bits and says yes to everything. Immutable after building, safe for
// concurrent use.
type filter struct {
	words  []uint64 // bits.BitSet().Words(): lines of eight
	lines  uint64
	probes uint32
	bits   *bloom.BloomFilter
}

// filterShape returns the number of lines and of probes for so many keys. Fewer probes than the
// ln 2 * bitsPerKey of the textbook filter: lines fill unevenly, and fuller ones prefer fewer.
func filterShape(keys, bitsPerKey int) (lines int, probes uint32) {
	if bitsPerKey <= 0 || keys == 0 {
		return 0, 0
	}
	lines = min((keys*bitsPerKey+lineBits-1)/lineBits, math.MaxUint32)
	return lines, uint32(min(max(bitsPerKey*6/10, 1), maxProbes))
}

// newFilter wraps words; probes must not be 0 unless words is empty.
func newFilter(words []uint64, probes uint32) filter {
	if len(words) == 0 {
		return filter{}
	}
	b := bloom.From(words, uint(probes))
	w := b.BitSet().Words()
	return filter{words: w, lines: uint64(len(w) / lineWords), probes: probes, bits: b}
}

// buildFilter sets the bits of all hashes in words, which must be zero.
func buildFilter(words []uint64, probes uint32, hashes []uint64) filter {
	f := newFilter(words, probes)
	for _, h := range hashes {
		line, x := f.line(h), uint32(h)
		for range probes {
			line[x>>29] |= 1 << (x >> 23 & 63)
			x *= 0x9e3779b9
		}
	}
	return f
}

func (f *filter) line(h uint64) *[lineWords]uint64 {
	i := (h >> 32) * f.lines >> 32 * lineWords
	return (*[lineWords]uint64)(f.words[i:])
}

// mayContain reports whether h may have been added; false is certain.
func (f *filter) mayContain(h uint64) bool {
	if f.lines == 0 {
		return true
	}
	line, x := f.line(h), uint32(h)
	for range f.probes {
		if line[x>>29]&(1<<(x>>23&63)) == 0 {
			return false
		}
		x *= 0x9e3779b9
	}
	return true
}

// appendFilter appends the words little-endian.
func appendFilter(p []byte, words []uint64) []byte {
	for _, w := range words {
		p = binary.LittleEndian.AppendUint64(p, w)
	}
	return p
}

// decodeFilter copies the words out of a section whose checksum and length were verified. The copy
// is line-aligned without further ado: the runtime aligns arrays of 512 bytes and more to 64.
func decodeFilter(p []byte, probes uint32) filter {
	words := make([]uint64, len(p)/8)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(p[8*i:])
	}
	return newFilter(words, probes)
}
