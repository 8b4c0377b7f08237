package sstable

import "bytes"

// Meta is all that the rest of the system knows of a table without opening it. The manifest records
// it and the compaction picker reads it. A Meta is immutable once the table is installed.
type Meta struct {
	Num        uint64 // file number: names the file, never reused in a database
	UID        uint64 // random identity, also in the footer; seeds the checksums of the table
	Bytes      uint64 // size of the file
	Smallest   Key    // first internal key, inclusive
	Largest    Key    // last internal key, inclusive
	MinSeq     Seq
	MaxSeq     Seq
	Entries    uint64
	Tombstones uint64
	RawBytes   uint64 // sum of user key and value lengths, before prefix and block compression
}

// Overlaps reports whether the table's user keys intersect [lo, hi], both inclusive.
// A nil bound is open.
func (m *Meta) Overlaps(lo, hi []byte) bool {
	if hi != nil && bytes.Compare(m.Smallest.User, hi) > 0 {
		return false
	}
	return lo == nil || bytes.Compare(m.Largest.User, lo) >= 0
}
