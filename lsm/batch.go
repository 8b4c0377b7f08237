package lsm

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"kvd/sstable"
)

// A batch is one record of the log and one atomic unit. Its encoding, little endian:
//
//	baseSeq u64 | count u32 | count x ( kind u8 | uvarint klen | key [ | uvarint vlen | value ] )
//
// Operation i has sequence number baseSeq+i. A delete has no value. {Put "k" "v"} at sequence 7:
//
//	07 00 00 00 00 00 00 00  01 00 00 00  01 01 6b 01 76
const batchHeaderBytes = 12

// Batch is a list of writes that DB.Apply makes visible and durable together or not at all. Later
// writes win over earlier ones of the same key. The zero Batch is empty and ready. A Batch is
// used by one goroutine at a time; after Apply it may be Reset and filled again.
type Batch struct {
	data       []byte // header and operations; empty while the batch is
	count      uint32
	seed       uint64 // of the heights of its entries in the memtable
	nodeBytes  int64  // the memtable space its entries take
	towerBytes int64  // and the links of a skip list
	err        error  // the first write that was out of bounds; Apply returns it
}

// Put adds a pair. It copies key and value. A pair out of bounds makes Apply fail.
func (b *Batch) Put(key, value []byte) {
	if len(value) > MaxValueBytes {
		b.fail(&ValueSizeError{Bytes: len(value)})
		return
	}
	if b.start(sstable.KindPut, key, len(value)) {
		b.data = binary.AppendUvarint(b.data, uint64(len(value)))
		b.data = append(b.data, value...)
	}
}

// Delete adds the removal of key. It copies key. A key out of bounds makes Apply fail.
func (b *Batch) Delete(key []byte) { b.start(sstable.KindDelete, key, 0) }

// Len returns the number of writes.
func (b *Batch) Len() int { return int(b.count) }

// Bytes returns the encoded size.
func (b *Batch) Bytes() int { return len(b.data) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.data, b.count, b.err = b.data[:0], 0, nil
	b.nodeBytes, b.towerBytes = 0, 0
}

func (b *Batch) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *Batch) start(kind sstable.Kind, key []byte, valueBytes int) bool {
	if len(key) == 0 || len(key) > MaxKeyBytes {
		b.fail(&KeySizeError{Bytes: len(key)})
	}
	if size := len(b.data) + len(key) + valueBytes + 16; size > MaxBatchBytes {
		b.fail(&BatchSizeError{size})
	}
	if b.err != nil {
		return false
	}
	if len(b.data) == 0 {
		b.data = append(b.data, make([]byte, batchHeaderBytes)...)
		b.seed = rand.Uint64()
	}
	b.data = append(b.data, byte(kind))
	b.data = binary.AppendUvarint(b.data, uint64(len(key)))
	b.data = append(b.data, key...)
	b.weigh(len(key), valueBytes)
	return true
}

// weigh counts an entry.
func (b *Batch) weigh(keyBytes, valueBytes int) {
	b.nodeBytes += nodeBytes(keyBytes, valueBytes, 0)
	b.towerBytes += 8 * int64(heightOf(b.seed, b.count))
	b.count++
}

// seal writes the header; after it data is the log record.
func (b *Batch) seal(base sstable.Seq) {
	binary.LittleEndian.PutUint64(b.data, uint64(base))
	binary.LittleEndian.PutUint32(b.data[8:], b.count)
}

// Each calls fn for every write in order until fn returns false. Key and value are valid until
// the batch is changed.
func (b *Batch) Each(fn func(kind sstable.Kind, key, value []byte) bool) {
	ops := batchReader{data: b.data}
	if len(ops.data) > 0 {
		ops.data = ops.data[batchHeaderBytes:]
	}
	for ops.next() && fn(ops.kind, ops.key, ops.value) {
	}
}

// batchReader walks the operations of an encoded batch. After next returned false, err tells
// whether the end was reached (nil) or something that no Batch writes.
type batchReader struct {
	data  []byte // what is left
	kind  sstable.Kind
	key   []byte
	value []byte
	err   error
}

// openBatch checks the header of a log record. The record is read, never kept.
func openBatch(record []byte) (r batchReader, base sstable.Seq, count uint32, err error) {
	if len(record) < batchHeaderBytes {
		return r, 0, 0, fmt.Errorf("lsm: batch of %d bytes has no header", len(record))
	}
	base = sstable.Seq(binary.LittleEndian.Uint64(record))
	count = binary.LittleEndian.Uint32(record[8:])
	if count == 0 || base == 0 || base > sstable.SeqMax-sstable.Seq(count) {
		return r, 0, 0, fmt.Errorf("lsm: batch of %d writes at sequence %d", count, base)
	}
	return batchReader{data: record[batchHeaderBytes:]}, base, count, nil
}

func (r *batchReader) next() bool {
	if len(r.data) == 0 || r.err != nil {
		return false
	}
	r.kind, r.data = sstable.Kind(r.data[0]), r.data[1:]
	r.value = nil
	ok := r.kind == sstable.KindPut || r.kind == sstable.KindDelete
	if ok {
		r.key, ok = r.field(MaxKeyBytes)
		ok = ok && len(r.key) > 0
	}
	if ok && r.kind == sstable.KindPut {
		r.value, ok = r.field(MaxValueBytes)
	}
	if !ok {
		r.err = fmt.Errorf("lsm: batch is malformed %d bytes before its end", len(r.data))
	}
	return ok
}

func (r *batchReader) field(limit uint64) ([]byte, bool) {
	n, width := binary.Uvarint(r.data)
	if width <= 0 || n > limit || n > uint64(len(r.data)-width) {
		return nil, false
	}
	field := r.data[width : width+int(n) : width+int(n)]
	r.data = r.data[width+int(n):]
	return field, true
}
