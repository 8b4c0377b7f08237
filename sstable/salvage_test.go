package sstable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
)

// salvaged is what a Salvager makes of data.
type salvaged struct {
	es   []entry
	lost []Lost
	s    *Salvager
	err  error
}

func salvageAll(data []byte, id ID, known *Meta) (out salvaged) {
	out.s, out.err = NewSalvager(bytes.NewReader(data), int64(len(data)), id, known,
		func(l Lost) { out.lost = append(out.lost, l) })
	if out.err != nil {
		return out
	}
	for out.s.Next() {
		out.es = append(out.es, entry{out.s.Key().Clone(), bytes.Clone(out.s.Value())})
	}
	out.err = out.s.Err()
	return out
}

// check demands that what was salvaged is a part of es and that the lost ranges hold the rest.
func (out *salvaged) check(t *testing.T, what string, es []entry) {
	t.Helper()
	if out.err != nil {
		t.Fatalf("%s: %v", what, out.err)
	}
	i := 0
	for _, e := range es {
		if i < len(out.es) && Compare(out.es[i].key, e.key) == 0 {
			if !bytes.Equal(out.es[i].value, e.value) {
				t.Fatalf("%s: %v is %q", what, e.key, out.es[i].value)
			}
			i++
			continue
		}
		listed := false
		for _, l := range out.lost {
			listed = listed || (l.From == nil || bytes.Compare(l.From, e.key.User) <= 0) &&
				(l.To == nil || bytes.Compare(e.key.User, l.To) <= 0)
		}
		if !listed && !versionBefore(out.es, e.key) {
			t.Fatalf("%s: %v is missing and not listed: %+v", what, e.key, out.lost)
		}
	}
	if i != len(out.es) {
		t.Fatalf("%s: invented %v", what, out.es[i].key)
	}
}

// versionBefore reports whether a newer version of the same key was salvaged: an older one that is
// lost behind it changes nothing.
func versionBefore(es []entry, k Key) bool {
	for _, e := range es {
		if bytes.Equal(e.key.User, k.User) && e.key.Trailer > k.Trailer {
			return true
		}
	}
	return false
}

// TestSalvageOfEveryPart damages one part of a table at a time, then with the index lost too.
func TestSalvageOfEveryPart(t *testing.T) {
	for seed := range uint64(12) {
		es := randomEntries(seeded(t, seed), 300)
		m := build(t, WriterOptions{BlockBytes: 300, Compress: seed%2 == 0}, es)
		rd := open(t, m, nil)
		foot, _ := readFooter(bytes.NewReader(m.data), int64(len(m.data)), 7)
		for _, known := range []*Meta{nil, &m.meta} {
			id := m.id()
			if known == nil {
				id.UID = 0
			}
			what := fmt.Sprintf("seed %d, recorded %v", seed, known != nil)
			out := salvageAll(m.data, id, known)
			out.check(t, what+", sound", es)
			if len(out.lost) != 0 || len(out.s.Harmless()) != 0 {
				t.Fatalf("%s: a sound table lost %v %v", what, out.lost, out.s.Harmless())
			}
			for name, sec := range map[string]section{"filter": foot.filter, "index": foot.index,
				"properties": foot.properties} {
				out := salvageAll(zeroed(m.data, sec.offset, sec.length), id, known)
				out.check(t, what+" without "+name, es)
				if len(out.lost) != 0 || len(out.s.Harmless()) == 0 {
					t.Fatalf("%s without %s: lost %+v, notes %v", what, name, out.lost,
						out.s.Harmless())
				}
			}
			for i := range rd.slots {
				off, n := rd.index.offsets[i], rd.index.offsets[i+1]-rd.index.offsets[i]
				data := zeroed(m.data, off, n)
				data[off] ^= byte(i) // not always zeros
				what := fmt.Sprintf("%s, block %d", what, i)
				out := salvageAll(data, id, known)
				out.check(t, what, es)
				if len(out.lost) != 1 || out.lost[0].Offset != int64(off) ||
					out.lost[0].Bytes != int64(n) {
					t.Fatalf("%s: lost %+v", what, out.lost)
				}
				walked := salvageAll(zeroed(data, foot.index.offset, foot.index.length), id, known)
				walked.check(t, what+" and the index", es)
				if len(walked.es) != len(out.es) {
					t.Fatalf("%s: %d entries by the index, %d without", what, len(out.es),
						len(walked.es))
				}
			}
		}
	}
}

func zeroed(data []byte, off, n uint64) []byte {
	data = bytes.Clone(data)
	clear(data[off : off+n])
	return data
}

// TestSalvageWithoutFooter: the identity comes from the record, or from the footer's own first
// bytes; with neither nothing can be read, and that is said.
func TestSalvageWithoutFooter(t *testing.T) {
	es := randomEntries(seeded(t, 1), 200)
	m := build(t, WriterOptions{BlockBytes: 300, Compress: true}, es)
	size := uint64(len(m.data))
	for off := size - footerBytes; off < size; off++ {
		data := bytes.Clone(m.data)
		data[off] ^= 0x10
		out := salvageAll(data, m.id(), &m.meta)
		out.check(t, fmt.Sprintf("byte %d of the footer", off-size+footerBytes), es)
		if len(out.lost) != 0 {
			t.Fatalf("lost %+v", out.lost)
		}
		out = salvageAll(data, ID{Num: 7}, nil)
		out.check(t, fmt.Sprintf("byte %d of the footer, no record", off-size+footerBytes), es)
	}
	for cut := size - 1; cut > 0; cut -= min(cut, 97) {
		out := salvageAll(m.data[:cut], m.id(), &m.meta)
		out.check(t, fmt.Sprintf("cut to %d bytes", cut), es)
		if len(out.lost) > 1 {
			t.Fatalf("cut to %d bytes: %+v", cut, out.lost)
		}
	}
	out := salvageAll(append(bytes.Clone(m.data), make([]byte, 1000)...), m.id(), &m.meta)
	out.check(t, "longer", es)
	if len(out.es) != len(es) {
		t.Fatal("a longer file lost entries")
	}
	other := ID{Num: 7, UID: m.id().UID + 1}
	for what, out := range map[string]salvaged{
		"another table":      salvageAll(m.data, other, nil),
		"nothing known":      salvageAll(zeroed(m.data, size-footerBytes, 128), ID{Num: 7}, nil),
		"too short for that": salvageAll(m.data[:10], ID{Num: 7}, nil),
	} {
		if !isDamage(t, out.err) {
			t.Errorf("%s: no error", what)
		}
	}
}

// FuzzSalvage damages a table anywhere and demands that nothing is invented and that all that is
// missing is listed.
func FuzzSalvage(f *testing.F) {
	es := randomEntries(seeded(f, 5), 60)
	raw := build(f, WriterOptions{BlockBytes: 200}, es)
	packed := build(f, WriterOptions{BlockBytes: 200, Compress: true}, es)
	f.Add(false, true, uint16(0), uint16(0), []byte{})
	f.Add(true, false, uint16(len(packed.data)-footerBytes), uint16(300), []byte{1, 2, 3})
	f.Add(true, true, uint16(700), uint16(len(packed.data)-300), []byte("\x03\x00\x00\x00\x02\x00"))
	f.Fuzz(func(t *testing.T, compressed, recorded bool, at, cut uint16, put []byte) {
		m, known, id := raw, &raw.meta, raw.id()
		if compressed {
			m, known, id = packed, &packed.meta, packed.id()
		}
		if !recorded {
			known, id.UID = nil, 0
		}
		data := bytes.Clone(m.data)
		off := int(at) % len(data)
		copy(data[off:], put)
		if cut > 0 && cut%3 == 0 {
			data = data[:int(cut)%len(data)]
		}
		out := salvageAll(data, id, known)
		if isDamage(t, out.err) {
			return
		}
		out.check(t, "fuzzed", es)
	})
}

// countingReader fails a read when more than max bytes have been asked for.
type countingReader struct {
	io.ReaderAt
	max int64
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	if c.max -= int64(len(p)); c.max < 0 {
		return 0, errors.New("reads without end")
	}
	return c.ReaderAt.ReadAt(p, off)
}

// TestSalvageReadsWithinBounds: a value can look like the heads of a million long blocks. To see
// that they are none takes no reading of the file over and over.
func TestSalvageReadsWithinBounds(t *testing.T) {
	column := make([]byte, 4<<20) // of small numbers
	for i := 0; i < len(column); i += 8 {
		binary.LittleEndian.PutUint64(column[i:], 500_000)
	}
	m := build(t, WriterOptions{}, []entry{
		{MakeKey([]byte("a"), 1, KindPut), []byte("first")},
		{MakeKey([]byte("b"), 1, KindPut), column},
		{MakeKey([]byte("c"), 1, KindPut), []byte("last")},
	})
	foot, _ := readFooter(m, int64(len(m.data)), 7)
	data := zeroed(m.data, foot.index.offset, foot.index.length)
	data[open(t, m, nil).index.offsets[1]+6] ^= 0x80 // the head of the column's block
	c := &countingReader{bytes.NewReader(data), 2 * (walkBytes + walkFactor*int64(len(data)))}
	s, err := NewSalvager(c, int64(len(data)), m.id(), &m.meta, func(Lost) {})
	if err != nil {
		t.Fatal(err)
	}
	for s.Next() {
	}
	if s.Err() != nil || s.Found() != 2 {
		t.Errorf("found %d entries, %v", s.Found(), s.Err())
	}
}

// TestSalvagerMemory: an index whose separators have a long prefix in common is kept as it is.
func TestSalvagerMemory(t *testing.T) {
	prefix := bytes.Repeat([]byte("k"), MaxKeyBytes-4)
	var es []entry
	for i := range uint32(500) {
		user := binary.BigEndian.AppendUint32(bytes.Clone(prefix), i)
		es = append(es, entry{MakeKey(user, 1, KindPut), nil})
	}
	m := build(t, WriterOptions{BlockBytes: 1, Compress: true}, es)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := NewSalvager(m, int64(len(m.data)), m.id(), nil, nil); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4*uint64(len(m.data)) {
		t.Errorf("a table of %d KB, and the Salvager of it took %d KB", len(m.data)>>10, n>>10)
	}
}

// TestSalvageOfSmallestBlocks: without the index the last block is found however short it is.
func TestSalvageOfSmallestBlocks(t *testing.T) {
	for _, compress := range []bool{false, true} {
		for n := range 200 {
			es := []entry{{MakeKey(make([]byte, n%5), 0, KindPut), make([]byte, n/5)}}
			m := build(t, WriterOptions{Compress: compress}, es)
			foot, _ := readFooter(m, int64(len(m.data)), 7)
			out := salvageAll(zeroed(m.data, foot.index.offset, foot.index.length), m.id(), nil)
			if out.check(t, "smallest", es); len(out.es) != 1 || len(out.lost) != 0 {
				t.Errorf("compressed %v: a block of %d bytes is lost", compress,
					open(t, m, nil).index.offsets[1])
			}
		}
	}
}
