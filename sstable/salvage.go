package sstable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Lost is a stretch of a table of which nothing could be read.
type Lost struct {
	Offset, Bytes int64
	// Every entry that stood there has a user key in [From, To], both inclusive; nil is open.
	From, To []byte
	Reason   string
}

// Salvager reads what is left of a damaged table: every data block that verifies, in the order of
// the file, whatever became of the rest. It goes forward, once. What it returns was written to this
// table, every bit of it; what is missing it tells to the function it was given.
//
// A damaged filter or damaged properties cost nothing. With a damaged index the blocks are found
// one after the other, because each tells its length (see salvage_walk.go) and its checksum proves
// that it stands where it was written. With a damaged footer the identity, which seeds the
// checksums, comes from the caller or from those bytes of the footer that prove right.
//
// Not safe for concurrent use. Memory: the index, a window of the file, a block.
type Salvager struct {
	window
	far  window  // for a glance beyond the other one, which it leaves where it is
	r    *Reader // decodes blocks; its index holds one at a time
	lost func(Lost)

	index    *index // nil if it is damaged
	dataEnd  int64  // the blocks end here or up to 63 bytes before; 0 if nobody knows
	entries  uint64 // how many the table had; 0 if nobody knows
	from, to []byte // its bounds; nil if nobody knows
	meta     Meta
	known    bool // meta says more than Num and UID
	harmless []CorruptError
	next     int   // block, with an index
	at       int64 // offset, without
	resynced int64 // work done looking for blocks
	found    uint64
	gap      *Lost // since the last block that verified
	finished bool
	scratch  scratch
	block    *block
	entry    int
	key      []byte
	trailer  uint64
	value    []byte
	started  bool
	order    [2][]byte
	gaps     int  // told so far
	sound    bool // the footer, or its words on the index, proved right
	err      error
}

// NewSalvager returns a Salvager of what should be table id, in the first size bytes of f. known
// is what is recorded of the table elsewhere, nil if nothing is; then id.UID may be 0, and the
// footer's word is taken. lost is called during Next, before the entry after the stretch is
// returned, with slices that stay valid.
//
// A *CorruptError says that nothing can be read: f is another table, or nothing tells the identity.
func NewSalvager(f io.ReaderAt, size int64, id ID, known *Meta, lost func(Lost)) (
	*Salvager, error,
) {
	s := &Salvager{lost: lost,
		window: window{f: f, size: size, num: id.Num, step: windowBytes},
		far:    window{f: f, size: size, num: id.Num, step: farBytes}}
	s.r = &Reader{f: f, id: id, cache: NewCache(0)}
	if known != nil {
		s.learn(*known)
	}
	if err := s.readEnd(known); err != nil {
		return nil, err
	}
	return s, nil
}

// learn takes in what is known of the table as a whole.
func (s *Salvager) learn(m Meta) {
	s.meta, s.known = m, true
	s.entries, s.from, s.to = m.Entries, m.Smallest.User, m.Largest.User
}

// Meta returns what is known of the table; ok is false when that is its identity at most.
func (s *Salvager) Meta() (m Meta, ok bool) {
	m = s.meta
	m.Num, m.UID = s.r.id.Num, s.r.id.UID
	return m, s.known
}

// Found returns the number of entries that Next has returned or skipped over so far.
func (s *Salvager) Found() uint64 { return s.found }

// Harmless returns damage of parts that are not needed to read the entries.
func (s *Salvager) Harmless() []CorruptError { return s.harmless }

func (s *Salvager) note(offset int64, reason string) {
	s.harmless = append(s.harmless, CorruptError{s.r.id.Num, offset, reason})
}

// readEnd reads the footer and what it leads to, as far as that proves right.
func (s *Salvager) readEnd(known *Meta) error {
	id := &s.r.id
	end := s.size
	if known != nil && int64(known.Bytes) < end && known.Bytes >= footerBytes {
		s.note(int64(known.Bytes), "bytes after the end of the table")
		end = int64(known.Bytes)
	}
	if end < footerBytes {
		return s.withoutFooter("the file is too short for one")
	}
	p, err := s.view(end-footerBytes, footerBytes)
	if err != nil {
		return err
	}
	foot, reason := decodeFooter(p, uint64(end))
	switch {
	case reason == "" && id.UID == 0:
		*id = foot.id
	case reason == "" && foot.id != *id:
		return &CorruptError{id.Num, end - footerBytes, fmt.Sprintf("this is table %d with UID "+
			"%016x, not the one with UID %016x", foot.id.Num, foot.id.UID, id.UID)}
	case reason != "":
		foot = guessFooter(p, end)
		if id.UID == 0 {
			id.UID = foot.id.UID // the checksums tell whether it is
		}
		if err := s.withoutFooter(reason); err != nil {
			return err
		}
	}
	s.sound = reason == ""
	return s.readSections(foot, end)
}

// withoutFooter goes on by the identity that the caller knew or the damaged footer claims.
func (s *Salvager) withoutFooter(reason string) error {
	if s.r.id.UID == 0 {
		return &CorruptError{s.r.id.Num, max(s.size-footerBytes, 0), reason +
			"; nothing else tells the identity of the table"}
	}
	s.note(max(s.size-footerBytes, 0), "footer: "+reason)
	return nil
}

// guessFooter reads a footer whose checksum is wrong. Only sections within the file are kept, and
// they still have to match their own checksums.
func guessFooter(p []byte, end int64) (f footer) {
	le := binary.LittleEndian
	f.id = ID{UID: le.Uint64(p), Num: le.Uint64(p[8:])}
	for i, s := range [...]*section{&f.filter, &f.index, &f.properties} {
		q := p[16+24*i:]
		*s = section{le.Uint64(q), le.Uint64(q[8:]), le.Uint64(q[16:])}
		if s.length > uint64(end) || s.offset > uint64(end)-s.length {
			*s = section{}
		}
	}
	return f
}

// readSections takes what verifies of filter, index and properties.
func (s *Salvager) readSections(foot footer, end int64) error {
	if foot.properties.length <= maxPropertiesBytes {
		p, err := s.readSection(foot.properties, "properties")
		if err != nil {
			return err
		}
		if props, reason := decodeProperties(p); p != nil && reason == "" {
			if !s.known {
				s.learn(props.Meta)
			}
			s.dataEnd = int64(props.DataBytes)
		}
	}
	p, err := s.readSection(foot.index, "index")
	if err != nil {
		return err
	}
	if p != nil {
		if x, reason := decodeIndex(p); reason == "" {
			s.index, s.sound = &x, true
			s.dataEnd = int64(x.offsets[x.blocks()])
		} else {
			s.note(int64(foot.index.offset), reason)
		}
	}
	if s.sound && s.dataEnd == 0 {
		s.dataEnd = int64(foot.filter.offset)
	}
	if s.sound {
		_, err = s.readSection(foot.filter, "filter") // only to tell of it
	}
	return err
}

// readSection returns a section, nil if it does not verify.
func (s *Salvager) readSection(sec section, name string) ([]byte, error) {
	if sec.length == 0 {
		return nil, nil
	}
	p := make([]byte, sec.length)
	err := readFull(s.f, p, s.r.id.Num, int64(sec.offset))
	if _, short := errors.AsType[*CorruptError](err); err != nil && !short {
		return nil, err
	}
	if err != nil || checksum(p, s.r.id.UID, sec.offset) != sec.sum {
		s.note(int64(sec.offset), name+" checksum mismatch")
		return nil, nil
	}
	return p, nil
}

// Next moves to the next entry that can be read. It returns false at the end of what there is, or
// when reading the file fails, see Err.
func (s *Salvager) Next() bool {
	for s.err == nil {
		if s.block != nil && s.entry+1 < s.block.entries() {
			s.entry++
			s.set()
			return true
		}
		if !s.nextBlock() {
			return false
		}
	}
	return false
}

// Key returns the key of the entry, valid until the next move.
func (s *Salvager) Key() Key { return Key{User: s.key, Trailer: s.trailer} }

// Value returns the value of the entry, valid until the next move.
func (s *Salvager) Value() []byte { return s.value }

// Err returns the error of a read that failed. Damage is none.
func (s *Salvager) Err() error { return s.err }

func (s *Salvager) set() {
	suffix, trailer, value := s.block.entry(s.entry)
	s.key = append(append(s.key[:0], s.block.commonPrefix()...), suffix...)
	s.trailer, s.value = trailer, value
}

// nextBlock makes the next block that verifies the current one, before its first entry.
func (s *Salvager) nextBlock() bool {
	s.block = nil
	if s.finished {
		return false
	}
	var ok bool
	if s.index != nil {
		ok = s.nextIndexed()
	} else {
		ok = s.nextWalked()
	}
	if s.err != nil {
		return false
	}
	if !ok {
		s.finished = true
		s.endGap(nil)
		return false
	}
	s.entry = 0
	s.set()
	s.endGap(s.key)
	s.entry = -1
	s.found += uint64(s.block.entries())
	return true
}

// nextIndexed reads the next block of the index that verifies.
func (s *Salvager) nextIndexed() bool {
	x := s.index
	for ; s.next < x.blocks(); s.next++ {
		off, n := int64(x.offsets[s.next]), int64(x.offsets[s.next+1]-x.offsets[s.next])
		if off+n > s.size {
			s.startGap(off, n, "the file ends before it")
		} else if reason := s.open(off, n); reason != "" {
			s.startGap(off, n, reason)
		} else {
			s.next++
			return true
		}
		if s.err != nil {
			return false
		}
		// No key of the block is after its separator.
		s.gap.To = append(bytes.Clone(x.prefix), x.suffix(s.next)...)
	}
	return false
}

// open makes the n bytes at off the current block. The reason is empty on success.
func (s *Salvager) open(off, n int64) (reason string) {
	stored, err := s.view(off, int(n))
	if err != nil {
		s.err = err
		return "read error"
	}
	s.r.index.offsets = append(s.r.index.offsets[:0], uint64(off), uint64(off+n))
	if err := s.r.decode(0, stored, &s.scratch); err != nil {
		if e, ok := errors.AsType[*CorruptError](err); ok {
			return e.Reason
		}
		return err.Error()
	}
	if !s.ordered(&s.scratch.block) {
		return "entries out of order"
	}
	s.block = &s.scratch.block
	return ""
}

// ordered reports whether the entries of b ascend and come after the last one returned. Whoever
// merges tables relies on it.
func (s *Salvager) ordered(b *block) bool {
	last, trailer, started := s.key, s.trailer, s.started
	for i := range b.entries() {
		suffix, t, _ := b.entry(i)
		user := append(append(s.order[i&1][:0], b.commonPrefix()...), suffix...)
		s.order[i&1] = user
		if started && Compare(Key{last, trailer}, Key{user, t}) >= 0 {
			return false
		}
		last, trailer, started = user, t, true
	}
	s.started = true
	return true
}

// startGap notes that n bytes at off are lost; stretches that touch are one.
func (s *Salvager) startGap(off, n int64, reason string) {
	if s.gap != nil {
		s.gap.Bytes = off + n - s.gap.Offset
		return
	}
	s.gap = &Lost{Offset: off, Bytes: n, From: s.from, To: s.to, Reason: reason}
	if s.found > 0 {
		// The last key was returned with its newest version. What is lost comes after it.
		s.gap.From = append(bytes.Clone(s.key), 0)
	}
}

// endGap tells of the stretch before the entry with user key next, nil at the end of the table.
func (s *Salvager) endGap(next []byte) {
	g := s.gap
	if s.gap = nil; g == nil {
		return
	}
	s.gaps++
	if next != nil && (g.To == nil || bytes.Compare(next, g.To) < 0) {
		g.To = bytes.Clone(next)
	}
	if next == nil && s.to != nil {
		g.To = s.to
	}
	s.lost(*g)
}

// window reads a file front to back in large steps.
type window struct {
	f    io.ReaderAt
	size int64
	num  uint64
	step int // read at least so much
	off  int64
	buf  []byte
}

const (
	windowBytes = 256 << 10
	farBytes    = 64
)

// holds reports whether the window has n bytes at off.
func (w *window) holds(off int64, n int) bool {
	return off >= w.off && off+int64(n) <= w.off+int64(len(w.buf))
}

// view returns n bytes at off, which must be in the file. They are valid until the next call.
func (w *window) view(off int64, n int) ([]byte, error) {
	if !w.holds(off, n) {
		size := int(min(int64(max(n, w.step)), w.size-off))
		w.buf, w.off = resize(w.buf, size), off
		if err := readFull(w.f, w.buf, w.num, off); err != nil {
			w.buf = w.buf[:0]
			return nil, err
		}
	}
	at := off - w.off
	return w.buf[at : at+int64(n) : at+int64(n)], nil
}
