package sstable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/golang/snappy"

	"kvd/sstable/offheap"
)

// Reader reads one table. Its index and filter stay in memory; data blocks are read when needed and
// kept by the Cache.
//
// All methods are safe for concurrent use, except that Close must come after all others, iterators
// included, have returned. Damage is reported as *CorruptError, a failed read as it came, wrapped.
type Reader struct {
	f           io.ReaderAt
	id          ID
	filter      filter
	index       index
	slots       []atomic.Uint32 // one per data block: where the cache has it; 0: nowhere
	cache       *Cache
	props       Properties
	pinnedBytes int64
	memory      offheap.Memory // of filter and index
	padding     section        // between data and filter; without a checksum

	cacheID uint32 // fixed once open
	closed  bool   // guarded by cache.mu
}

// NewReader opens the table in the first size bytes of f, which must be the table id. It reads the
// footer, filter, index and properties. The file stays the caller's and must outlive the Reader.
// c may be nil: then no block is kept.
func NewReader(f io.ReaderAt, size int64, id ID, c *Cache) (*Reader, error) {
	if c == nil {
		c = NewCache(0)
	}
	r := &Reader{f: f, id: id, cache: c}
	foot, err := readFooter(f, size, id.Num)
	if err != nil {
		return nil, err
	}
	if foot.id != id {
		return nil, r.corrupt(uint64(size-footerBytes), fmt.Sprintf("this is table %d with "+
			"UID %016x, not the one with UID %016x", foot.id.Num, foot.id.UID, id.UID))
	}
	if err := r.readSections(foot); err != nil {
		return nil, err
	}
	r.props.Num, r.props.UID, r.props.Bytes = id.Num, id.UID, foot.fileBytes
	r.slots = make([]atomic.Uint32, r.index.blocks())
	r.pinnedBytes = int64(r.index.memoryBytes() + 8*len(r.filter.words) + 4*len(r.slots))
	c.pinned.Add(r.pinnedBytes)
	r.moveOffHeap()
	c.open(r)
	return r, nil
}

// offHeapBytes is the least size of filter and index that is worth a mapping of its own: systems
// allow some ten thousand.
const offHeapBytes = 64 << 10

// moveOffHeap moves filter and index. They are a hundredth of the data, all of a Go heap that is
// as good as empty otherwise, and would have it grow to twice their size.
func (r *Reader) moveOffHeap() {
	var p offheap.Pack
	words := r.filter.words
	offheap.Add(&p, &words)
	offheap.Add(&p, &r.index.heads)
	offheap.Add(&p, &r.index.offsets)
	offheap.Add(&p, &r.index.ends)
	offheap.Add(&p, &r.index.keys)
	r.memory = p.Move(offHeapBytes)
	r.filter = newFilter(words, r.filter.probes)
}

func (r *Reader) corrupt(offset uint64, reason string) error {
	return &CorruptError{Num: r.id.Num, Offset: int64(offset), Reason: reason}
}

// ReadID returns the identity that the table in the first size bytes of f claims in its footer. It
// is for a file of which nothing else is known; a Reader is told which table it must be.
func ReadID(f io.ReaderAt, size int64) (ID, error) {
	foot, err := readFooter(f, size, 0)
	return foot.id, err
}

// readFooter reads and checks the footer of what is called table num.
func readFooter(f io.ReaderAt, size int64, num uint64) (footer, error) {
	if size < footerBytes {
		reason := fmt.Sprintf("file of %d bytes is no table", size)
		return footer{}, &CorruptError{Num: num, Offset: 0, Reason: reason}
	}
	var p [footerBytes]byte
	at := size - footerBytes
	if err := readFull(f, p[:], num, at); err != nil {
		return footer{}, err
	}
	foot, reason := decodeFooter(p[:], uint64(size))
	if reason != "" {
		return foot, &CorruptError{Num: num, Offset: at, Reason: reason}
	}
	return foot, nil
}

// readSections reads and verifies filter, index and properties. Their lengths are bounded by the
// size of the file.
func (r *Reader) readSections(f footer) error {
	p, err := r.readSection(nil, f.filter, "filter")
	if err != nil {
		return err
	}
	r.filter = decodeFilter(p, f.probes)
	if p, err = r.readSection(p, f.index, "index"); err != nil {
		return err
	}
	var reason string
	if r.index, reason = decodeIndex(p); reason != "" {
		return r.corrupt(f.index.offset, reason)
	}
	data := r.index.offsets[r.index.blocks()]
	if f.filter.offset < data || f.filter.offset-data >= lineBytes {
		return r.corrupt(f.index.offset, "blocks in index do not fill the file")
	}
	r.padding = section{offset: data, length: f.filter.offset - data}
	if p, err = r.readSection(p, f.properties, "properties"); err != nil {
		return err
	}
	if r.props, reason = decodeProperties(p); reason != "" {
		return r.corrupt(f.properties.offset, reason)
	}
	if r.props.Blocks != uint64(r.index.blocks()) || r.props.DataBytes != data {
		return r.corrupt(f.properties.offset, "properties and index disagree")
	}
	return nil
}

func (r *Reader) readSection(p []byte, s section, name string) ([]byte, error) {
	p = resize(p, int(s.length))
	if err := readFull(r.f, p, r.id.Num, int64(s.offset)); err != nil {
		return nil, err
	}
	if checksum(p, r.id.UID, s.offset) != s.sum {
		return nil, r.corrupt(s.offset, name+" checksum mismatch")
	}
	return p, nil
}

// Properties describes the table. The keys must not be modified.
func (r *Reader) Properties() Properties { return r.props }

// Close drops the table's blocks from the cache and frees what the Reader keeps in memory. The file
// is the caller's. A second Close does nothing.
func (r *Reader) Close() error {
	r.cache.drop(r)
	if len(r.memory.Bytes) > 0 {
		r.filter, r.index = filter{}, index{}
		r.memory.Free()
	}
	return nil
}

// MayContain reports whether the table may hold the user key with this Hash. False is certain.
// One cache miss.
func (r *Reader) MayContain(hash uint64) bool { return r.filter.mayContain(hash) }

// Get looks up the newest version of user whose sequence number is at most at. hash is Hash(user).
// When there is one, ok is true, and a value is appended to dst; a tombstone appends nothing and
// says so by its kind. It allocates only to grow dst. The caller is inside the Readers of the
// Cache.
func (r *Reader) Get(dst, user []byte, hash uint64, at Seq) (
	val []byte, kind Kind, seq Seq, ok bool, err error,
) {
	return r.get(dst, user, hash, at, true)
}

// ErrNotCached is what TryGet returns instead of reading the file.
var ErrNotCached = errors.New("sstable: block is not cached")

// TryGet is Get, but a block that is not cached makes it fail with ErrNotCached, as it is.
func (r *Reader) TryGet(dst, user []byte, hash uint64, at Seq) (
	val []byte, kind Kind, seq Seq, ok bool, err error,
) {
	return r.get(dst, user, hash, at, false)
}

func (r *Reader) get(dst, user []byte, hash uint64, at Seq, wait bool) (
	val []byte, kind Kind, seq Seq, ok bool, err error,
) {
	if !r.filter.mayContain(hash) {
		return dst, 0, 0, false, nil
	}
	trailer := uint64(at)<<8 | 0xff
	for i := r.index.find(user); i < len(r.slots); i++ {
		var s *scratch
		b := r.cache.block(&r.slots[i])
		if b != nil {
			b.touch()
			r.cache.hits.Add(1)
		} else if !wait {
			return dst, 0, 0, false, ErrNotCached
		} else {
			if s, err = r.load(i); err != nil {
				return dst, 0, 0, false, err
			}
			b = &s.block
		}
		j, same := b.find(user, trailer)
		past := j == b.entries()
		if same {
			_, t, value := b.entry(j)
			dst, kind, seq, ok = append(dst, value...), Kind(t), Seq(t>>8), true
		}
		if s != nil {
			r.release(s)
		}
		// The versions of a key go on in the next block only if the key is the separator itself.
		if !past || !r.index.isSeparator(i, user) {
			break
		}
	}
	return dst, kind, seq, ok, nil
}

// load reads block i, offers it to the cache, and returns it in s, which the caller must release.
func (r *Reader) load(i int) (s *scratch, err error) {
	r.cache.misses.Add(1)
	s = r.cache.scratch.Get().(*scratch)
	start, end := r.index.offsets[i], r.index.offsets[i+1]
	s.stored = resize(s.stored, int(end-start))
	if err = readFull(r.f, s.stored, r.id.Num, int64(start)); err == nil {
		err = r.decode(i, s.stored, s)
	}
	if err != nil {
		r.release(s)
		return nil, err
	}
	r.cache.insert(r, i, &s.block)
	return s, nil
}

func (r *Reader) release(s *scratch) {
	s.trim()
	r.cache.scratch.Put(s)
}

// decode verifies the stored bytes of block i and makes s.block of them, which shares memory with
// stored and s.
func (r *Reader) decode(i int, stored []byte, s *scratch) error {
	data, err := r.unpack(i, stored, s)
	if err != nil {
		return err
	}
	s.table = resize(s.table, tableBytes(data))
	if reason := decodeBlock(&s.block, data, s.table); reason != "" {
		return r.corrupt(r.index.offsets[i], reason)
	}
	return nil
}

// unpack verifies the stored bytes of block i and returns its payload, in stored or in s.plain.
func (r *Reader) unpack(i int, stored []byte, s *scratch) ([]byte, error) {
	offset, n := r.index.offsets[i], len(stored)-4
	sum := uint32(checksum(stored[:n], r.id.UID, offset))
	if binary.LittleEndian.Uint32(stored[n:]) != sum {
		return nil, r.corrupt(offset, "block checksum mismatch")
	}
	payload := stored[: n-1 : n-1]
	switch stored[n-1] {
	case blockRaw:
		return payload, nil
	case blockSnappy:
		size, err := snappy.DecodedLen(payload)
		if err != nil || size > MaxBlockBytes {
			return nil, r.corrupt(offset, "impossible length of compressed block")
		}
		s.plain = resize(s.plain, size)
		if _, err := snappy.Decode(s.plain, payload); err != nil {
			return nil, r.corrupt(offset, "malformed compressed block")
		}
		return s.plain, nil
	}
	return nil, r.corrupt(offset, "unknown block type")
}
