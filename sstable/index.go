package sstable

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// index finds the data block of a user key. Block i holds keys at or before its separator, and
// block i+1 only keys after it, except when the versions of one user key go on from block i to the
// next: then the separator is that key.
//
// It is pinned in memory while the table is open, in a few flat arrays without pointers: the
// collector has nothing to follow. A search looks at heads only, eight bytes of every separator in
// one array, and compares whole keys only among equal heads.
//
// Immutable after decoding, safe for concurrent use.
type index struct {
	prefix  []byte   // common to all separators
	heads   []uint64 // first eight bytes after the prefix, big-endian, padded with zeros
	ends    []uint32 // end of separator i in keys
	keys    []byte   // separators without the prefix
	offsets []uint64 // where block i starts; one more than blocks: where the last one ends
}

const indexHeaderBytes = 8

func (x *index) blocks() int { return len(x.heads) }

// memoryBytes is what the index holds while the table is open.
func (x *index) memoryBytes() int {
	return len(x.prefix) + len(x.keys) + 8*len(x.heads) + 4*len(x.ends) + 8*len(x.offsets)
}

// suffix returns separator i without the common prefix.
func (x *index) suffix(i int) []byte {
	if i == 0 {
		return x.keys[:x.ends[0]]
	}
	return x.keys[x.ends[i-1]:x.ends[i]]
}

// isSeparator reports whether user is separator i, the only key that may go on in block i+1.
func (x *index) isSeparator(i int, user []byte) bool {
	s := x.suffix(i)
	return len(user) == len(x.prefix)+len(s) && bytes.HasPrefix(user, x.prefix) &&
		bytes.HasSuffix(user, s)
}

// find returns the first block whose separator is at or after user: the only one, bar the blocks
// that go on with its versions, where user can be. It returns blocks() when user is after all.
func (x *index) find(user []byte) int {
	rest, ok := bytes.CutPrefix(user, x.prefix)
	if !ok {
		if bytes.Compare(user, x.prefix) < 0 {
			return 0
		}
		return len(x.heads)
	}
	h := Head(rest)
	lo := lowerBound(x.heads, h)
	if lo == len(x.heads) || x.heads[lo] != h {
		return lo
	}
	hi := lo + 1
	if hi < len(x.heads) && x.heads[hi] == h {
		hi = len(x.heads)
		if h != math.MaxUint64 {
			hi = lo + lowerBound(x.heads[lo:], h+1)
		}
	}
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(x.suffix(mid), rest) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// Head returns the first eight bytes of p as a number that orders like them. Short keys are padded
// with zeros: Head(a) < Head(b) implies a < b, equal heads say nothing.
func Head(p []byte) uint64 {
	if len(p) >= 8 {
		return binary.BigEndian.Uint64(p)
	}
	var h uint64
	for i, c := range p {
		h |= uint64(c) << (56 - 8*i)
	}
	return h
}

// lowerBound returns the first i with heads[i] >= h.
func lowerBound(heads []uint64, h uint64) int {
	lo, n := 0, len(heads)
	for n > 0 {
		half := n >> 1
		next := lo
		if heads[lo+half] < h {
			next = lo + half + 1
			half = n - half - 1
		}
		lo, n = next, half
	}
	return lo
}

// appendSeparator appends a short key s with last <= s < next. Equal keys (versions of one key in
// two blocks) give the key itself.
func appendSeparator(p, last, next []byte) []byte {
	c := CommonPrefix(last, next)
	if c == len(last) || c == len(next) {
		return append(p, last...)
	}
	if last[c]+1 < next[c] {
		return append(append(p, last[:c]...), last[c]+1)
	}
	if len(next) > c+1 {
		return append(p, next[:c+1]...)
	}
	for i := c + 1; i < len(last); i++ {
		if last[i] != 0xff {
			return append(append(p, last[:i]...), last[i]+1)
		}
	}
	return append(p, last...)
}

// CommonPrefix returns the length of the longest common prefix.
func CommonPrefix(a, b []byte) int {
	n, i := min(len(a), len(b)), 0
	for i+8 <= n && binary.LittleEndian.Uint64(a[i:]) == binary.LittleEndian.Uint64(b[i:]) {
		i += 8
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// indexBuilder collects separators and stored lengths of blocks in file order.
type indexBuilder struct {
	keys    []byte
	ends    []int
	lengths []uint32
}

func (b *indexBuilder) reset() {
	b.keys, b.ends, b.lengths = b.keys[:0], b.ends[:0], b.lengths[:0]
}

// add records a block of length stored bytes, trailer included, that ends with user key last; next
// is the first key of the block after it, nil for the last block.
func (b *indexBuilder) add(length int, last, next []byte) {
	if next == nil {
		b.keys = append(b.keys, last...)
	} else {
		b.keys = appendSeparator(b.keys, last, next)
	}
	b.ends = append(b.ends, len(b.keys))
	b.lengths = append(b.lengths, uint32(length))
}

// bytes bounds the encoded size from above.
func (b *indexBuilder) bytes() int { return indexHeaderBytes + len(b.keys) + 8*len(b.ends) }

// tooLarge reports whether ends do not fit their 32 bits.
func (b *indexBuilder) tooLarge() bool { return len(b.keys) > math.MaxUint32 }

// append appends the section: u32 blocks, u32 prefix length, prefix, u32 stored length of each
// block, u32 end of each separator, separators without the prefix.
func (b *indexBuilder) append(p []byte) []byte {
	le, n := binary.LittleEndian, len(b.ends)
	first, last := b.keys[:b.ends[0]], b.keys[:b.ends[n-1]]
	if n > 1 {
		last = last[b.ends[n-2]:]
	}
	prefix := CommonPrefix(first, last)
	p = le.AppendUint32(p, uint32(n))
	p = le.AppendUint32(p, uint32(prefix))
	p = append(p, first[:prefix]...)
	for _, l := range b.lengths {
		p = le.AppendUint32(p, l)
	}
	for i, e := range b.ends {
		p = le.AppendUint32(p, uint32(e-(i+1)*prefix))
	}
	start := 0
	for _, e := range b.ends {
		p = append(p, b.keys[start+prefix:e]...)
		start = e
	}
	return p
}

// decodeIndex parses a section whose checksum was verified. It copies what it keeps. The reason is
// empty on success.
func decodeIndex(p []byte) (x index, reason string) {
	le := binary.LittleEndian
	if len(p) < indexHeaderBytes {
		return x, "index is shorter than its header"
	}
	n, prefix := uint64(le.Uint32(p)), uint64(le.Uint32(p[4:]))
	p = p[indexHeaderBytes:]
	if n == 0 || prefix > MaxKeyBytes || prefix+8*n > uint64(len(p)) {
		return x, "index is shorter than its entries"
	}
	x.prefix = bytes.Clone(p[:prefix])
	lengths, ends := p[prefix:prefix+4*n], p[prefix+4*n:prefix+8*n]
	x.keys = slices.Clone(p[prefix+8*n:])
	x.heads, x.ends = make([]uint64, n), make([]uint32, n)
	x.offsets = make([]uint64, n+1)
	var end uint32
	for i := range x.heads {
		e, l := le.Uint32(ends[4*i:]), le.Uint32(lengths[4*i:])
		if e < end || uint64(e) > uint64(len(x.keys)) || uint64(e-end)+prefix > MaxKeyBytes {
			return x, "impossible separator in index"
		}
		if l <= blockHeaderBytes/2 || l > MaxBlockBytes+trailerBytes {
			return x, "impossible block length in index"
		}
		x.ends[i] = e
		x.heads[i] = Head(x.keys[end:e])
		x.offsets[i+1] = x.offsets[i] + uint64(l)
		if i > 0 && bytes.Compare(x.suffix(i-1), x.suffix(i)) > 0 {
			return x, "separators out of order in index"
		}
		end = e
	}
	if int(end) != len(x.keys) {
		return x, "bytes left over in index"
	}
	return x, ""
}
