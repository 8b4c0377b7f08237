package sstable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
)

// Caps of the format. A writer refuses what is larger and a reader never allocates for more.
const (
	MaxKeyBytes        = 64 << 10        // a user key
	MaxEntryBytes      = 8<<20 + 64<<10  // a user key and its value together
	MaxBlockBytes      = 16 << 20        // a data block, uncompressed
	maxTargetBytes     = 1 << 20         // the largest WriterOptions.BlockBytes
	maxPropertiesBytes = 4 * MaxKeyBytes // the properties section: two keys and some numbers
)

// On disk. Do not change without raising formatVersion.
const (
	formatVersion = 1
	footerMagic   = "kvd\x00sst\n"
	footerBytes   = 128
	trailerBytes  = 5  // of a data block: type and checksum
	lineBytes     = 64 // the filter section starts at a multiple of this
)

// Block types, the first byte of a block's trailer. On disk.
const (
	blockRaw    byte = 0
	blockSnappy byte = 1
)

var (
	// ErrOrder is wrapped by Writer.Add when a key does not come after the one before it.
	ErrOrder = errors.New("sstable: key out of order")
	// ErrEmpty is returned by Writer.Finish when nothing was added.
	ErrEmpty = errors.New("sstable: table without entries")
	// ErrTooLarge is wrapped by Writer.Add for an entry over MaxKeyBytes or MaxEntryBytes.
	ErrTooLarge = errors.New("sstable: entry too large")
	// ErrClosed is returned by a Writer that is used after Finish.
	ErrClosed = errors.New("sstable: writer is finished")
)

// ID names a table: the number in its file name and the random identity written in its footer.
type ID struct{ Num, UID uint64 }

// CorruptError says that the bytes of a table are not what was written. Nothing of the damaged
// part was used.
type CorruptError struct {
	Num    uint64 // the table's file number
	Offset int64  // where in the file the damaged part starts
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("sstable: table %d is damaged at offset %d: %s", e.Num, e.Offset, e.Reason)
}

// placeSeed makes checksums depend on the table and the offset, so that a block or section that was
// copied to another place, or survived from an older file, never verifies.
func placeSeed(uid, offset uint64) uint64 { return uid ^ offset*0x9e3779b97f4a7c15 }

// checksum hashes p as bytes that stand at offset in table uid.
func checksum(p []byte, uid, offset uint64) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(placeSeed(uid, offset))
	d.Write(p) // never fails
	return d.Sum64()
}

// section is the place of a part of the file and the checksum of its bytes.
type section struct{ offset, length, sum uint64 }

func (s section) end() uint64 { return s.offset + s.length }

// footer is the last footerBytes of a table. Sections lie back to back in this order and reach up
// to the footer; only the filter may have zero bytes before it, to start on a cache line.
type footer struct {
	id                        ID
	filter, index, properties section
	probes                    uint32 // bits per key that the filter sets and tests; 0 = no filter
	fileBytes                 uint64
}

func appendFooter(p []byte, f footer) []byte {
	le, start := binary.LittleEndian, len(p)
	p = le.AppendUint64(p, f.id.UID)
	p = le.AppendUint64(p, f.id.Num)
	for _, s := range [...]section{f.filter, f.index, f.properties} {
		p = le.AppendUint64(p, s.offset)
		p = le.AppendUint64(p, s.length)
		p = le.AppendUint64(p, s.sum)
	}
	p = le.AppendUint32(p, formatVersion)
	p = le.AppendUint32(p, f.probes)
	p = le.AppendUint64(p, f.fileBytes)
	p = le.AppendUint64(p, 0)
	p = le.AppendUint64(p, xxhash.Sum64(p[start:]))
	return append(p, footerMagic...)
}

// decodeFooter parses the last bytes of a file of size bytes. The reason is empty on success.
func decodeFooter(p []byte, size uint64) (f footer, reason string) {
	le := binary.LittleEndian
	if len(p) != footerBytes || string(p[120:]) != footerMagic {
		return f, "not a table: no footer magic"
	}
	if le.Uint64(p[112:]) != xxhash.Sum64(p[:112]) {
		return f, "footer checksum mismatch"
	}
	if v := le.Uint32(p[88:]); v != formatVersion {
		return f, fmt.Sprintf("format version %d, this build reads %d", v, formatVersion)
	}
	f.id = ID{UID: le.Uint64(p), Num: le.Uint64(p[8:])}
	for i, s := range [...]*section{&f.filter, &f.index, &f.properties} {
		q := p[16+24*i:]
		*s = section{le.Uint64(q), le.Uint64(q[8:]), le.Uint64(q[16:])}
		if s.length > size || s.offset > size-s.length {
			return f, "footer names a section outside of the file"
		}
	}
	f.probes, f.fileBytes = le.Uint32(p[92:]), le.Uint64(p[96:])
	switch {
	case f.fileBytes != size:
		return f, fmt.Sprintf("file has %d bytes, its footer says %d", size, f.fileBytes)
	case le.Uint64(p[104:]) != 0:
		return f, "reserved footer bytes are not zero"
	case f.filter.offset%lineBytes != 0, f.filter.length%lineBytes != 0,
		(f.filter.length == 0) != (f.probes == 0), f.probes > maxProbes:
		return f, "impossible filter in footer"
	case f.index.offset != f.filter.end(), f.properties.offset != f.index.end(),
		f.properties.end() != size-footerBytes:
		return f, "sections are not back to back"
	case f.properties.length > maxPropertiesBytes:
		return f, "properties are too long"
	}
	return f, ""
}

// readFull reads len(p) bytes at off. A file that ends before is damage, not an end of data.
func readFull(f io.ReaderAt, p []byte, num uint64, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return &CorruptError{num, off, fmt.Sprintf("file ends after %d of %d bytes", n, len(p))}
	}
	return fmt.Errorf("sstable: table %d: read %d bytes at %d: %w", num, len(p), off, err)
}

// uvarint decodes a minimal unsigned varint and returns its length, 0 if there is none.
func uvarint(p []byte) (uint64, int) {
	if len(p) > 0 && p[0] < 0x80 {
		return uint64(p[0]), 1
	}
	v, n := binary.Uvarint(p)
	if n <= 1 || p[n-1] == 0 { // truncated, over 64 bits, or padded
		return 0, 0
	}
	return v, n
}

// uvarintLen returns the number of bytes of v as a uvarint.
func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
