package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
)

// File is what the log needs of a segment file. An *os.File has this shape; its Sync may be an
// fdatasync, because the writer never depends on a time stamp.
type File interface {
	io.WriterAt
	Sync() error
	Close() error
}

// Pos is a position in the stream of records, counted in record bytes, each record's length
// prefix included. It is contiguous across segments and never reset.
type Pos uint64

// NoPos is no position. Recover takes it to mean "wherever the first frame stands", Write and Sync
// to mean "everything appended so far", and Append returns it when the writer has failed.
const NoPos Pos = 1<<64 - 1

// Header identifies one incarnation of a segment file.
type Header struct {
	// Segment is the number of the segment. A later segment has a larger number.
	Segment uint64
	// Nonce is drawn at random each time a file becomes a segment, so that the frames of the file's
	// previous life can never verify.
	Nonce uint64
	// Log is the identity of the log that the segment belongs to. Two logs of one shape have
	// segments of the same numbers and positions, and without it one could stand in for the other.
	Log uint64
	// Prewritten is the number of bytes at the start of the file that are known to be allocated and
	// written: the size of a recycled file, else 0. It is not stored. Syncing inside this area is
	// faster because the file system has no metadata to write.
	Prewritten int64
	// PrewriteBytes is the step in which the segment grows ahead of flushes that sync, a multiple
	// of 4096. 0 means 1 MiB. It is not stored. A log that is switched every few KiB has no use for
	// more: all of it is read again by recovery.
	PrewriteBytes int64
}

// HeaderBytes is the size of the header page at the start of a segment, frames follow it.
// Part of the format.
const HeaderBytes = 4096

// The header page, little endian, all on disk:
//
//	magic u64 | version u32 | zero u32 | segment u64 | nonce u64 | log u64
//	| xxhash64 of the 40 bytes before
//
// at offset 0 and once more at headerTwin, in another sector, so that losing one sector loses no
// header. The rest of the page is zero.
const (
	headerMagic   = "kvdwal\r\n" // CR LF shows a file that went through a text conversion
	headerVersion = 1
	headerTwin    = 2048
	headerSumAt   = 40
	headerCopy    = 48
)

// ErrVersion is returned for a segment in a format this program does not know.
var ErrVersion = errors.New("unknown format version")

// WriteHeader writes the header page of a new or recycled segment and syncs it. The file must get
// its segment name only afterwards, so that a file of that name always has a header.
func WriteHeader(f File, h Header) error {
	if _, err := f.WriteAt(headerPage(h), 0); err != nil {
		return fmt.Errorf("wal: write header of segment %d: %w", h.Segment, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("wal: sync header of segment %d: %w", h.Segment, err)
	}
	return nil
}

func headerPage(h Header) []byte {
	page := make([]byte, HeaderBytes)
	putHeader(page, h)
	putHeader(page[headerTwin:], h)
	return page
}

func putHeader(p []byte, h Header) {
	copy(p, headerMagic)
	binary.LittleEndian.PutUint32(p[8:], headerVersion)
	binary.LittleEndian.PutUint64(p[16:], h.Segment)
	binary.LittleEndian.PutUint64(p[24:], h.Nonce)
	binary.LittleEndian.PutUint64(p[32:], h.Log)
	binary.LittleEndian.PutUint64(p[headerSumAt:], xxhash.Sum64(p[:headerSumAt]))
}

// parseHeader decodes the header page of s, of which there may be less than HeaderBytes.
func parseHeader(page []byte, s Segment) (Header, error) {
	for at := 0; at+headerCopy <= len(page); at += headerTwin {
		p := page[at : at+headerCopy]
		if string(p[:8]) != headerMagic ||
			binary.LittleEndian.Uint64(p[headerSumAt:]) != xxhash.Sum64(p[:headerSumAt]) {
			continue
		}
		if v := binary.LittleEndian.Uint32(p[8:]); v != headerVersion {
			return Header{}, fmt.Errorf("wal: segment %d: %w %d", s.Number, ErrVersion, v)
		}
		h := Header{
			Segment: binary.LittleEndian.Uint64(p[16:]),
			Nonce:   binary.LittleEndian.Uint64(p[24:]),
			Log:     binary.LittleEndian.Uint64(p[32:]),
		}
		if h.Segment != s.Number {
			return Header{}, &CorruptError{s.Number, int64(at),
				fmt.Sprintf("the header is that of segment %d", h.Segment)}
		}
		if s.Log != 0 && h.Log != s.Log {
			return Header{}, &CorruptError{s.Number, int64(at),
				fmt.Sprintf("this is a segment of log %016x, not of %016x", h.Log, s.Log)}
		}
		return h, nil
	}
	return Header{}, &CorruptError{s.Number, 0, "both copies of the header are damaged or missing"}
}

// CorruptError says that a segment is damaged where it may not be: acknowledged data is gone.
// It is never returned for what a crash leaves at the end of a log.
type CorruptError struct {
	Segment uint64 // number of the segment
	Offset  int64  // in the segment file, bytes
	Reason  string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("wal: segment %d is damaged at offset %d: %s", e.Segment, e.Offset, e.Reason)
}
