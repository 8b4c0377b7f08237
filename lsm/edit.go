package lsm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"kvd/compaction"
	"kvd/sstable"
	"kvd/wal"
)

// edit is one record of the manifest: a change of the list of tables. The first edit of a manifest
// is the whole state. Its encoding is a list of fields, each a tag followed by uvarints, byte
// strings being a length and the bytes:
//
//	1 database id
//	2 log segment, position of its first record: older segments are not needed
//	3 last sequence number in any table
//	4 next file number
//	5 table added: level num uid bytes | smallest key, trailer | largest key, trailer |
//	  min seq, max seq | entries tombstones rawBytes
//	6 table removed: level num
//	7 position where the log of a closed database ends
//
// The edit that only says that the next file number is 9 is 04 09. An unknown tag is refused.
type edit struct {
	databaseID uint64 // 0 = unchanged, as for all the numbers here
	logSegment uint64
	logStart   wal.Pos
	logEnd     wal.Pos
	lastSeq    sstable.Seq
	nextFile   uint64
	added      []leveledTable
	removed    []removedTable
}

type leveledTable struct {
	level int
	meta  *sstable.Meta
}

type removedTable struct {
	level int
	num   uint64
}

const (
	editDatabaseID = 1
	editLog        = 2
	editLastSeq    = 3
	editNextFile   = 4
	editAdd        = 5
	editRemove     = 6
	editLogEnd     = 7
)

var errEdit = errors.New("malformed edit")

func (e *edit) encode(dst []byte) []byte {
	u := binary.AppendUvarint
	if e.databaseID != 0 {
		dst = u(u(dst, editDatabaseID), e.databaseID)
	}
	if e.logSegment != 0 {
		dst = u(u(u(dst, editLog), e.logSegment), uint64(e.logStart))
	}
	if e.lastSeq != 0 {
		dst = u(u(dst, editLastSeq), uint64(e.lastSeq))
	}
	if e.nextFile != 0 {
		dst = u(u(dst, editNextFile), e.nextFile)
	}
	for _, a := range e.added {
		m := a.meta
		dst = u(u(u(u(u(dst, editAdd), uint64(a.level)), m.Num), m.UID), m.Bytes)
		dst = appendKey(appendKey(dst, m.Smallest), m.Largest)
		dst = u(u(dst, uint64(m.MinSeq)), uint64(m.MaxSeq))
		dst = u(u(u(dst, m.Entries), m.Tombstones), m.RawBytes)
	}
	for _, r := range e.removed {
		dst = u(u(u(dst, editRemove), uint64(r.level)), r.num)
	}
	if e.logEnd != 0 {
		dst = u(u(dst, editLogEnd), uint64(e.logEnd))
	}
	return dst
}

func appendKey(dst []byte, k sstable.Key) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(k.User)))
	dst = append(dst, k.User...)
	return binary.AppendUvarint(dst, k.Trailer)
}

func decodeEdit(data []byte) (*edit, error) {
	e, r := new(edit), editReader{data: data}
	for len(r.data) > 0 && r.err == nil {
		switch tag := r.uint(); tag {
		case editDatabaseID:
			e.databaseID = r.uint()
		case editLog:
			e.logSegment, e.logStart = r.uint(), wal.Pos(r.uint())
			if e.logSegment == 0 {
				r.fail("log segment 0")
			}
		case editLastSeq:
			e.lastSeq = sstable.Seq(r.uint())
		case editNextFile:
			e.nextFile = r.uint()
		case editAdd:
			e.added = append(e.added, r.table())
		case editRemove:
			e.removed = append(e.removed, removedTable{level: r.level(), num: r.uint()})
		case editLogEnd:
			e.logEnd = wal.Pos(r.uint())
		default:
			return nil, fmt.Errorf("%w: unknown tag %d", errEdit, tag)
		}
	}
	return e, r.err
}

type editReader struct {
	data []byte
	err  error
}

func (r *editReader) uint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.fail("number cut short or too large")
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *editReader) fail(reason string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errEdit, reason)
	}
	r.data = nil
}

func (r *editReader) level() int {
	v := r.uint()
	if v >= compaction.NumLevels {
		r.fail("level out of range")
		return 0
	}
	return int(v)
}

func (r *editReader) key() sstable.Key {
	n := r.uint()
	if n > MaxKeyBytes || n > uint64(len(r.data)) {
		r.fail("key longer than the record or the limit")
		return sstable.Key{}
	}
	user := append([]byte(nil), r.data[:n]...)
	r.data = r.data[n:]
	return sstable.Key{User: user, Trailer: r.uint()}
}

func (r *editReader) table() leveledTable {
	t := leveledTable{level: r.level(), meta: new(sstable.Meta)}
	m := t.meta
	m.Num, m.UID, m.Bytes = r.uint(), r.uint(), r.uint()
	m.Smallest, m.Largest = r.key(), r.key()
	m.MinSeq, m.MaxSeq = sstable.Seq(r.uint()), sstable.Seq(r.uint())
	m.Entries, m.Tombstones, m.RawBytes = r.uint(), r.uint(), r.uint()
	if r.err == nil && sstable.Compare(m.Smallest, m.Largest) > 0 {
		r.fail("table bounds out of order")
	}
	return t
}

// manifestState is what the edits of a manifest add up to.
type manifestState struct {
	edit   // its numbers; the last that was given for each
	tables map[uint64]leveledTable
}

// apply takes in the next edit.
func (s *manifestState) apply(e *edit) error {
	if s.tables == nil {
		s.tables = make(map[uint64]leveledTable)
	}
	if e.databaseID != 0 {
		s.databaseID = e.databaseID
	}
	if e.logSegment != 0 {
		s.logSegment, s.logStart = e.logSegment, e.logStart
	}
	s.logEnd = e.logEnd // of the last edit: any other comes before the log went on
	s.lastSeq = max(s.lastSeq, e.lastSeq)
	s.nextFile = max(s.nextFile, e.nextFile)
	for _, r := range e.removed {
		if t, ok := s.tables[r.num]; !ok || t.level != r.level {
			return fmt.Errorf("%w: removes table %d, which is not there", errEdit, r.num)
		}
		delete(s.tables, r.num)
	}
	for _, a := range e.added {
		if _, ok := s.tables[a.meta.Num]; ok {
			return fmt.Errorf("%w: adds table %d twice", errEdit, a.meta.Num)
		}
		s.tables[a.meta.Num] = a
	}
	return nil
}

// whole returns the edit that states everything.
func (s *manifestState) whole() *edit {
	e := s.edit
	for _, t := range s.tables {
		e.added = append(e.added, t)
	}
	return &e
}
