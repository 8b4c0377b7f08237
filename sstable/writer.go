package sstable

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/golang/snappy"
)

const (
	defaultBlockBytes       = 4096
	defaultFilterBitsPerKey = 10
	maxFilterBitsPerKey     = 40
	writeChunkBytes         = 256 << 10 // given to the underlying writer at a time
)

// WriterOptions shape a table. Num and UID must be set, zero elsewhere means the default.
type WriterOptions struct {
	Num, UID         uint64
	BlockBytes       int  // of a data block before compression; 4096; an entry is never split
	FilterBitsPerKey int  // 10, a false positive in a hundred; below 0 for no filter
	Compress         bool // snappy, kept for blocks that become an eighth smaller
}

// Writer builds a table from entries in ascending order. It writes ahead only, in chunks of
// 256 KiB. Memory: a chunk, a block, the index, and 8 to 16 bytes per key for the filter.
//
// The first error is final: every later call returns it. A Writer is used by one goroutine, and
// again after Reset, which keeps its buffers.
type Writer struct {
	w   io.Writer
	o   WriterOptions
	err error

	block   blockWriter
	index   indexBuilder
	hashes  []uint64 // of the distinct user keys
	offset  uint64   // of the next byte of the table
	out     []byte   // the bytes before offset that w has not got yet
	packed  []byte   // snappy's output
	words   []uint64 // of the filter
	last    []byte   // user key added last: in block, or in lastBuf between blocks
	lastBuf []byte
	trailer uint64 // of last
	props   Properties
}

// NewWriter returns a Writer of a table to w.
func NewWriter(w io.Writer, o WriterOptions) *Writer {
	var t Writer
	t.Reset(w, o)
	return &t
}

// Reset starts another table, whatever became of the one before, and keeps the buffers.
func (w *Writer) Reset(to io.Writer, o WriterOptions) {
	if o.BlockBytes <= 0 {
		o.BlockBytes = defaultBlockBytes
	}
	o.BlockBytes = min(o.BlockBytes, maxTargetBytes)
	if o.FilterBitsPerKey == 0 {
		o.FilterBitsPerKey = defaultFilterBitsPerKey
	}
	o.FilterBitsPerKey = min(o.FilterBitsPerKey, maxFilterBitsPerKey)
	w.w, w.o, w.err = to, o, nil
	w.block.reset()
	w.index.reset()
	w.hashes, w.out, w.offset = w.hashes[:0], w.out[:0], 0
	w.last, w.trailer = nil, 0
	w.props = Properties{Meta: Meta{Num: o.Num, UID: o.UID}}
}

// Add appends an entry, which must come after the one before it in the order of Compare. It copies
// key and value.
func (w *Writer) Add(k Key, value []byte) error {
	if w.err != nil {
		return w.err
	}
	common := CommonPrefix(w.last, k.User)
	fresh := common != len(k.User) || common != len(w.last)
	if err := w.check(k, value, common, fresh); err != nil {
		w.err = err
		return err
	}
	full := len(k.User) + len(value)
	if len(w.block.entries) > 0 && w.block.sizeWith(k.Trailer, full, common) > w.o.BlockBytes {
		if w.finishBlock(k.User) != nil {
			return w.err
		}
	}
	p, seq := &w.props, k.Seq()
	if p.Entries == 0 {
		p.Smallest, p.MinSeq, fresh = k.Clone(), seq, true
	}
	if fresh && w.o.FilterBitsPerKey > 0 {
		if len(w.hashes) == cap(w.hashes) { // by a quarter at a time it left five times its size
			w.hashes = slices.Grow(w.hashes, len(w.hashes)+1)
		}
		w.hashes = append(w.hashes, Hash(k.User))
	}
	w.last, w.trailer = w.block.add(k, value, common), k.Trailer
	p.Entries++
	p.RawBytes += uint64(full)
	p.MinSeq, p.MaxSeq = min(p.MinSeq, seq), max(p.MaxSeq, seq)
	if k.Kind() == KindDelete {
		p.Tombstones++
	}
	return nil
}

// check refuses an entry that would break the format. common is how much the key shares with the
// last one, fresh whether it differs from it.
func (w *Writer) check(k Key, value []byte, common int, fresh bool) error {
	if len(k.User) > MaxKeyBytes || len(value) > MaxEntryBytes-len(k.User) {
		return fmt.Errorf("%w: key of %d and value of %d bytes",
			ErrTooLarge, len(k.User), len(value))
	}
	if k.Kind() > KindPut {
		return fmt.Errorf("sstable: add: unknown %v", k.Kind())
	}
	if w.props.Entries == 0 {
		return nil
	}
	ordered := k.Trailer < w.trailer
	if fresh {
		ordered = common == len(w.last) || common < len(k.User) && w.last[common] < k.User[common]
	}
	if !ordered {
		return fmt.Errorf("%w: %v after %v", ErrOrder, k, Key{w.last, w.trailer})
	}
	return nil
}

// finishBlock ends the block; next is the user key that starts the next one, nil at the end.
func (w *Writer) finishBlock(next []byte) error {
	start := len(w.out)
	w.out = w.block.append(w.out)
	payload := w.out[start:]
	w.props.BlockBytes += uint64(len(payload))
	kind := blockRaw
	if w.o.Compress {
		w.packed = snappy.Encode(w.packed[:cap(w.packed)], payload)
		if len(w.packed) <= len(payload)-len(payload)/8 {
			w.out, kind = append(w.out[:start], w.packed...), blockSnappy
		}
	}
	w.out = append(w.out, kind)
	sum := checksum(w.out[start:], w.o.UID, w.offset)
	w.out = binary.LittleEndian.AppendUint32(w.out, uint32(sum))
	length := len(w.out) - start
	w.offset += uint64(length)
	w.props.DataBytes += uint64(length)
	w.props.Blocks++
	w.index.add(length, w.last, next)
	w.lastBuf = append(w.lastBuf[:0], w.last...)
	w.last = w.lastBuf
	w.block.reset()
	if len(w.out) >= writeChunkBytes {
		return w.flush()
	}
	return nil
}

// flush gives out to the underlying writer.
func (w *Writer) flush() error {
	n, err := w.w.Write(w.out)
	if err == nil && n < len(w.out) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = fmt.Errorf("sstable: table %d: write: %w", w.o.Num, err)
		return w.err
	}
	w.out = w.out[:0]
	return nil
}

// EstimatedBytes is the size the table would have if it were finished now, to within the gain of
// compression on the block at hand.
func (w *Writer) EstimatedBytes() uint64 {
	lines, _ := filterShape(len(w.hashes), w.o.FilterBitsPerKey)
	return w.offset + uint64(w.block.size()+lines*lineBytes+w.index.bytes()+footerBytes) +
		uint64(len(w.props.Smallest.User)+len(w.last)+lineBytes)
}

// Finish writes what is left and returns the table's metadata, which shares no memory with the
// Writer. It neither syncs nor closes the underlying writer.
func (w *Writer) Finish() (Meta, error) {
	if w.err == nil && w.props.Entries == 0 {
		w.err = ErrEmpty
	}
	if w.err != nil {
		return Meta{}, w.err
	}
	if len(w.block.entries) > 0 && w.finishBlock(nil) != nil {
		return Meta{}, w.err
	}
	if w.index.tooLarge() {
		w.err = fmt.Errorf("%w: index over 4 GiB", ErrTooLarge)
		return Meta{}, w.err
	}
	w.props.Largest = Key{bytes.Clone(w.last), w.trailer}
	if w.props.Largest.User == nil {
		w.props.Largest.User = []byte{}
	}
	w.props.FilterKeys = uint64(len(w.hashes))
	f := footer{id: ID{w.o.Num, w.o.UID}}
	w.pad()
	start := len(w.out)
	w.out, f.probes = w.appendFilter(w.out)
	f.filter = w.endSection(start)
	start = len(w.out)
	w.out = w.index.append(w.out)
	f.index = w.endSection(start)
	start = len(w.out)
	w.out = appendProperties(w.out, &w.props)
	f.properties = w.endSection(start)
	f.fileBytes = w.offset + footerBytes
	w.out = appendFooter(w.out, f)
	if w.flush() != nil {
		return Meta{}, w.err
	}
	w.props.Bytes = f.fileBytes
	w.err = ErrClosed
	return w.props.Meta, nil
}

// pad moves to the next cache line with zeros.
func (w *Writer) pad() {
	for w.offset%lineBytes != 0 {
		w.out = append(w.out, 0)
		w.offset++
	}
}

// endSection ends the section whose bytes are out[start:].
func (w *Writer) endSection(start int) section {
	p := w.out[start:]
	s := section{offset: w.offset, length: uint64(len(p)), sum: checksum(p, w.o.UID, w.offset)}
	w.offset += s.length
	return s
}

// appendFilter appends the filter section.
func (w *Writer) appendFilter(p []byte) ([]byte, uint32) {
	lines, probes := filterShape(len(w.hashes), w.o.FilterBitsPerKey)
	if lines == 0 {
		return p, 0
	}
	n := lines * lineWords
	w.words = slices.Grow(w.words[:0], n)[:n]
	clear(w.words)
	f := buildFilter(w.words, probes, w.hashes)
	return appendFilter(slices.Grow(p, 8*n), f.words), probes
}
