package sstable

import (
	"encoding/binary"
	"fmt"
)

// Properties describe a table. They are written in a section of their own as pairs of number and
// bytes, so that a table can say more tomorrow without becoming unreadable today.
type Properties struct {
	Meta
	Blocks     uint64 // data blocks
	DataBytes  uint64 // data blocks in the file, with trailers
	BlockBytes uint64 // data blocks before compression, without trailers
	FilterKeys uint64 // distinct user keys in the filter
}

// Property numbers. On disk: number<<1 | required. A reader refuses a required number that it does
// not know and skips an optional one.
const (
	propSmallestUser = iota + 1
	propSmallestTrailer
	propLargestUser
	propLargestTrailer
	propMinSeq
	propMaxSeq
	propEntries
	propTombstones
	propRawBytes
	propBlocks
	propDataBytes
	propBlockBytes
	propFilterKeys
	propEnd
)

// keyField and numberField return the field that property i fills, nil when i is not of the kind.
func (p *Properties) keyField(i uint64) *[]byte {
	switch i {
	case propSmallestUser:
		return &p.Smallest.User
	case propLargestUser:
		return &p.Largest.User
	}
	return nil
}

func (p *Properties) numberField(i uint64) *uint64 {
	switch i {
	case propSmallestTrailer:
		return &p.Smallest.Trailer
	case propLargestTrailer:
		return &p.Largest.Trailer
	case propMinSeq:
		return (*uint64)(&p.MinSeq)
	case propMaxSeq:
		return (*uint64)(&p.MaxSeq)
	case propEntries:
		return &p.Entries
	case propTombstones:
		return &p.Tombstones
	case propRawBytes:
		return &p.RawBytes
	case propBlocks:
		return &p.Blocks
	case propDataBytes:
		return &p.DataBytes
	case propBlockBytes:
		return &p.BlockBytes
	case propFilterKeys:
		return &p.FilterKeys
	}
	return nil
}

// appendProperties appends the section: per property, in ascending order, uvarint number<<1 |
// required, uvarint length, and that many bytes: a key, or a number as uvarint.
func appendProperties(b []byte, p *Properties) []byte {
	for i := uint64(1); i < propEnd; i++ {
		b = binary.AppendUvarint(b, i<<1|1)
		if key := p.keyField(i); key != nil {
			b = binary.AppendUvarint(b, uint64(len(*key)))
			b = append(b, *key...)
			continue
		}
		v := *p.numberField(i)
		b = binary.AppendUvarint(b, uint64(uvarintLen(v)))
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// decodeProperties parses a section whose checksum was verified. It copies what it keeps. The
// reason is empty on success.
func decodeProperties(b []byte) (p Properties, reason string) {
	last, known := uint64(0), 0
	for len(b) > 0 {
		tag, n := uvarint(b)
		length, m := uvarint(b[n:])
		if n == 0 || m == 0 || length > uint64(len(b)-n-m) || tag>>1 <= last {
			return p, "malformed properties"
		}
		value := b[n+m:][:length]
		b = b[n+m:][length:]
		last = tag >> 1
		if last >= propEnd {
			if tag&1 != 0 {
				return p, fmt.Sprintf("required property %d is not known to this build", last)
			}
			continue
		}
		known++
		if reason := p.set(last, value); reason != "" {
			return p, reason
		}
	}
	if known != propEnd-1 {
		return p, "missing properties"
	}
	switch {
	case p.Entries == 0, p.Tombstones > p.Entries, p.MinSeq > p.MaxSeq, p.MaxSeq > SeqMax,
		Compare(p.Smallest, p.Largest) > 0, p.FilterKeys > p.Entries, p.Blocks > p.Entries:
		return p, "impossible properties"
	}
	return p, ""
}

// set fills property i from its bytes.
func (p *Properties) set(i uint64, value []byte) (reason string) {
	if key := p.keyField(i); key != nil {
		if len(value) > MaxKeyBytes {
			return "key in properties is too long"
		}
		*key = append([]byte{}, value...)
		return ""
	}
	v, n := uvarint(value)
	if n == 0 || n != len(value) {
		return "malformed number in properties"
	}
	*p.numberField(i) = v
	return ""
}
