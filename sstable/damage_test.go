package sstable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// isDamage fails the test when err is an error of another kind.
func isDamage(t *testing.T, err error) bool {
	t.Helper()
	var c *CorruptError
	if err != nil && !errors.As(err, &c) {
		t.Fatalf("error is not a *CorruptError: %v", err)
	}
	return err != nil
}

// checkDamaged opens data and compares all that can be read with es.
func checkDamaged(t *testing.T, data []byte, id ID, es []entry, mustFail bool) {
	t.Helper()
	rd, err := NewReader(bytes.NewReader(data), int64(len(data)), id, NewCache(1<<20))
	if isDamage(t, err) {
		return
	}
	defer rd.Close()
	if err := rd.Verify(); !isDamage(t, err) && mustFail {
		t.Fatal("Verify found nothing")
	}
	for _, e := range es {
		v, kind, _, ok, err := rd.Get(nil, e.key.User, Hash(e.key.User), e.key.Seq())
		if !isDamage(t, err) && (!ok || kind != e.key.Kind() || !bytes.Equal(v, e.value)) {
			t.Fatalf("Get(%v) = %q, %v, %v", e.key, v, kind, ok)
		}
	}
	it := rd.NewIter(IterOptions{NoFill: true, ReadaheadBytes: 500})
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if Compare(it.Key(), es[n].key) != 0 || !bytes.Equal(it.Value(), es[n].value) {
			t.Fatalf("entry %d is %v, want %v", n, it.Key(), es[n].key)
		}
		n++
	}
	if !isDamage(t, it.Err()) && n != len(es) {
		t.Fatalf("%d entries of %d without an error", n, len(es))
	}
}

func TestFlippedByte(t *testing.T) {
	es := randomEntries(seeded(t, 3), 40)
	for _, compress := range []bool{false, true} {
		m := build(t, WriterOptions{BlockBytes: 200, Compress: compress}, es)
		for i := range m.data {
			for _, flip := range []byte{0xff, 1 << (i & 7)} {
				data := slices.Clone(m.data)
				data[i] ^= flip
				checkDamaged(t, data, m.id(), es, true)
			}
		}
	}
}

func TestTruncatedFile(t *testing.T) {
	es := randomEntries(seeded(t, 3), 40)
	m := build(t, WriterOptions{BlockBytes: 200}, es)
	for n := range m.data {
		_, err := NewReader(bytes.NewReader(m.data[:n]), int64(n), m.id(), nil)
		if !isDamage(t, err) {
			t.Fatalf("opened with %d bytes of %d", n, len(m.data))
		}
		// The size is right but the bytes are not there.
		f := bytes.NewReader(m.data[:n])
		if _, err = NewReader(f, int64(len(m.data)), m.id(), nil); err == nil {
			t.Fatalf("opened with %d bytes there of %d", n, len(m.data))
		}
	}
	long := append(slices.Clone(m.data), m.data...)
	_, err := NewReader(bytes.NewReader(long), int64(len(long)), m.id(), nil)
	if !isDamage(t, err) {
		t.Fatal("opened a table behind another")
	}
}

func TestWrongTable(t *testing.T) {
	m := build(t, WriterOptions{}, goldenEntries)
	for _, id := range []ID{{7, 1}, {8, testUID}, {}} {
		_, err := NewReader(m, int64(len(m.data)), id, nil)
		if !isDamage(t, err) {
			t.Errorf("opened as %v", id)
		}
	}
}

// A later format is refused by its number even though its footer is sound.
func TestLaterVersion(t *testing.T) {
	m := build(t, WriterOptions{}, goldenEntries)
	p := m.data[len(m.data)-footerBytes:]
	p[88]++
	binary.LittleEndian.PutUint64(p[112:], xxhash.Sum64(p[:112]))
	_, err := NewReader(m, int64(len(m.data)), m.id(), nil)
	if !isDamage(t, err) || !strings.Contains(err.Error(), "format version 2") {
		t.Fatal(err)
	}
}

// Blocks of equal length that changed places, or came from another table, do not verify.
func TestMisplacedBlock(t *testing.T) {
	var es []entry
	for i := range 100 {
		es = append(es, entry{MakeKey(fmt.Appendf(nil, "%06d", i), 1, KindPut), make([]byte, 50)})
	}
	m := build(t, WriterOptions{Num: 7, UID: 1, BlockBytes: 200}, es)
	other := build(t, WriterOptions{Num: 7, UID: 2, BlockBytes: 200}, es)
	offsets := open(t, m, nil).index.offsets
	a, b, n := offsets[1], offsets[2], offsets[2]-offsets[1]
	if offsets[3]-b != n {
		t.Fatal("the test wants blocks of equal length")
	}
	swapped := slices.Clone(m.data)
	copy(swapped[a:a+n], m.data[b:])
	copy(swapped[b:b+n], m.data[a:])
	checkDamaged(t, swapped, m.id(), es, true)
	alien := slices.Clone(m.data)
	copy(alien[a:a+n], other.data[a:])
	checkDamaged(t, alien, m.id(), es, true)
	rd, err := NewReader(bytes.NewReader(alien), int64(len(alien)), m.id(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var c *CorruptError
	if err := rd.Verify(); !errors.As(err, &c) || c.Offset != int64(a) || c.Num != 7 {
		t.Fatalf("Verify says %v, want damage at %d", err, a)
	}
}

// A table whose checksums are right but whose content is not: only Verify can tell.
func TestVerifyFindsLies(t *testing.T) {
	es := randomEntries(seeded(t, 5), 60)
	lies := map[string]func(w *Writer){
		"entries":    func(w *Writer) { w.props.Entries++ },
		"tombstones": func(w *Writer) { w.props.Tombstones++ },
		"sequence":   func(w *Writer) { w.props.MinSeq-- },
		"raw bytes":  func(w *Writer) { w.props.RawBytes++ },
		"smallest":   func(w *Writer) { w.props.Smallest.User = []byte{} },
		"filter":     func(w *Writer) { w.hashes[3] ^= 0x5555555555 },
		"order":      func(w *Writer) { w.block.entries[0].trailer = 0 },
		"separator": func(w *Writer) {
			w.index.keys, w.index.ends[0] = append([]byte{}, w.index.keys[w.index.ends[0]:]...), 0
			for i := range w.index.ends[1:] {
				w.index.ends[i+1] = min(w.index.ends[i+1], len(w.index.keys))
			}
		},
	}
	for name, lie := range lies {
		var buf bytes.Buffer
		w := NewWriter(&buf, WriterOptions{Num: 7, UID: testUID, BlockBytes: 300})
		for _, e := range es {
			if err := w.Add(e.key, e.value); err != nil {
				t.Fatal(err)
			}
		}
		lie(w)
		if _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		rd, err := NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()), ID{7, testUID}, nil)
		if err == nil {
			err = rd.Verify()
		}
		if !isDamage(t, err) {
			t.Errorf("%s: nothing found", name)
		}
	}
}

// Verify stopped at the first bad block, so that nobody knew how much of a table was lost.
func TestFailuresNamesEveryBadBlock(t *testing.T) {
	var es []entry
	for i := range 200 {
		es = append(es, entry{MakeKey(fmt.Appendf(nil, "%06d", i), 1, KindPut), make([]byte, 50)})
	}
	m := build(t, WriterOptions{Num: 7, UID: 1, BlockBytes: 200}, es)
	offsets := slices.Clone(open(t, m, nil).index.offsets)
	for _, bad := range [][]int{{}, {0}, {3, 4}, {0, 2, len(offsets) - 2}} {
		data := slices.Clone(m.data)
		for _, i := range bad {
			data[offsets[i]+20] ^= 4
		}
		rd, err := NewReader(bytes.NewReader(data), int64(len(data)), m.id(), nil)
		if err != nil {
			t.Fatal(err)
		}
		failed := rd.Failures(100)
		if len(failed) != len(bad) {
			t.Errorf("blocks %v are bad; failures %v", bad, failed)
		}
		for i, err := range failed {
			var c *CorruptError
			if !errors.As(err, &c) || c.Offset != int64(offsets[bad[i]]) {
				t.Errorf("failure %d of %v is %v", i, bad, err)
			}
		}
		if n := len(rd.Failures(2)); n != min(2, len(bad)) {
			t.Errorf("%d failures of at most 2", n)
		}
		if (rd.Verify() == nil) != (len(bad) == 0) {
			t.Errorf("blocks %v are bad, Verify says %v", bad, rd.Verify())
		}
	}
	if id, err := ReadID(m, int64(len(m.data))); err != nil || id != m.id() {
		t.Errorf("ReadID: %v, %v", id, err)
	}
	_, err := ReadID(m, int64(len(m.data))-1)
	isDamage(t, err)
}

// A compressed block may say that it is huge; it is refused before memory is taken.
func TestCompressedBomb(t *testing.T) {
	m := build(t, WriterOptions{}, goldenEntries)
	rd := open(t, m, nil)
	stored := binary.AppendUvarint(nil, MaxBlockBytes+1)
	stored = append(append(stored, m.data[:20]...), blockSnappy)
	stored = binary.LittleEndian.AppendUint32(stored, uint32(checksum(stored, testUID, 0)))
	var s scratch
	if err := rd.decode(0, stored, &s); !isDamage(t, err) || cap(s.plain) > 0 {
		t.Fatalf("error %v, %d bytes allocated", err, cap(s.plain))
	}
}

func TestUnknownProperty(t *testing.T) {
	p := Properties{Meta: Meta{Smallest: MakeKey([]byte("a"), 1, 1), Entries: 1}}
	p.Largest = p.Smallest
	b := appendProperties(nil, &p)
	if _, reason := decodeProperties(append(slices.Clone(b), 99<<1, 2, 'h', 'i')); reason == "" {
		t.Error("a two-byte varint in one byte was accepted") // 99<<1 has its top bit set
	}
	optional := append(binary.AppendUvarint(slices.Clone(b), 99<<1), 2, 'h', 'i')
	if _, reason := decodeProperties(optional); reason != "" {
		t.Errorf("optional: %s", reason)
	}
	required := append(binary.AppendUvarint(slices.Clone(b), 99<<1|1), 2, 'h', 'i')
	if _, reason := decodeProperties(required); reason == "" {
		t.Error("an unknown required property was accepted")
	}
}
