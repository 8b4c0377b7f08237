package sstable

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// blockEntries returns all entries of a block.
func blockEntries(b *block) []entry {
	var es []entry
	for i := range b.entries() {
		suffix, trailer, value := b.entry(i)
		user := append(slices.Clone(b.commonPrefix()), suffix...)
		es = append(es, entry{Key{user, trailer}, value})
	}
	return es
}

// encodeBlock is the payload of es, which need not be in order.
func encodeBlock(es []entry) []byte {
	var w blockWriter
	var last []byte
	for _, e := range es {
		// The prefix of all: in order or not.
		last = w.add(e.key, e.value, CommonPrefix(last, e.key.User))
	}
	return w.append(nil)
}

func FuzzBlock(f *testing.F) {
	f.Add(encodeBlock(goldenEntries))
	f.Add(encodeBlock(randomEntries(seeded(f, 1), 50)))
	var short []entry // with all that nextInBlock copies by itself
	for i := range 20 {
		key := append([]byte("prefix"), bytes.Repeat([]byte{byte(i)}, 1+i)...)
		short = append(short, entry{MakeKey(key, Seq(1)<<(2*i), KindPut), key[i/4:]})
	}
	f.Add(encodeBlock(short))
	f.Fuzz(checkBlock)
}

// TestWideBlock does for a block with wide offsets what FuzzBlock does for small ones: as a seed
// there it makes all inputs large, and the fuzzer a hundred times slower.
func TestWideBlock(t *testing.T) {
	wide := encodeBlock([]entry{
		{MakeKey(make([]byte, 300), 1, 0), make([]byte, 70_000)},
		{MakeKey([]byte("k"), 2, KindPut), []byte("v")},
	})
	if reason := decodeBlock(new(block), wide, make([]byte, tableBytes(wide))); reason != "" {
		t.Fatal(reason)
	}
	checkBlock(t, wide)
	for off := range 400 {
		for bit := range 8 {
			flipped := bytes.Clone(wide)
			flipped[off] ^= 1 << bit
			checkBlock(t, flipped)
		}
	}
}

// checkBlock demands that a payload which is accepted can be read and encodes again.
func checkBlock(t *testing.T, data []byte) {
	var b, again block
	if decodeBlock(&b, data, make([]byte, tableBytes(data))) != "" {
		return
	}
	es := blockEntries(&b)
	checkMoves(t, &b, es)
	for _, e := range es {
		b.find(e.key.User, e.key.Trailer)
		b.find(e.key.User[:len(e.key.User)/2], 0)
	}
	p := encodeBlock(es)
	if reason := decodeBlock(&again, p, make([]byte, tableBytes(p))); reason != "" {
		t.Fatal(reason)
	}
	for i, e := range blockEntries(&again) {
		if Compare(e.key, es[i].key) != 0 || !bytes.Equal(e.value, es[i].value) {
			t.Fatalf("entry %d was %v, is %v", i, es[i].key, e.key)
		}
	}
	if !bytes.Equal(p, encodeBlock(blockEntries(&again))) {
		t.Fatal("encoding is not canonical")
	}
}

// checkMoves demands that moves through a block give its entries, and their heads.
func checkMoves(t *testing.T, b *block, es []entry) {
	it := TableIter{block: b}
	ok := it.setHead(0)
	for i, e := range es {
		if !ok || Compare(it.Key(), e.key) != 0 || !bytes.Equal(it.value, e.value) ||
			it.head != Head(e.key.User) {
			t.Fatalf("move %d: %v, head %#x, want %v", i, it.Key(), it.head, e.key)
		}
		ok = it.nextInBlock()
	}
	if ok {
		t.Fatal("more moves than entries")
	}
}

func FuzzFooter(f *testing.F) {
	m := build(f, WriterOptions{}, goldenEntries)
	f.Add(m.data[len(m.data)-footerBytes:], uint64(len(m.data)))
	f.Fuzz(func(t *testing.T, p []byte, size uint64) {
		if len(p) == footerBytes { // else hardly any input gets past the checksum
			p = slices.Clone(p)
			binary.LittleEndian.PutUint64(p[112:], xxhash.Sum64(p[:112]))
		}
		foot, reason := decodeFooter(p, size)
		if reason == "" && !bytes.Equal(appendFooter(nil, foot), p) {
			t.Fatalf("%+v encodes to other bytes", foot)
		}
	})
}

func FuzzIndex(f *testing.F) {
	var b indexBuilder
	for _, e := range randomEntries(seeded(f, 2), 30) {
		b.add(4000, e.key.User, nil)
	}
	f.Add(b.append(nil), []byte("key"))
	f.Fuzz(func(t *testing.T, p, user []byte) {
		x, reason := decodeIndex(p)
		if reason != "" {
			return
		}
		if n := x.memoryBytes(); n > 8*len(p) {
			t.Fatalf("%d bytes of memory for %d", n, len(p))
		}
		var b indexBuilder
		for i := range x.blocks() {
			user := append(slices.Clone(x.prefix), x.suffix(i)...)
			if j := x.find(user); j > i || !x.isSeparator(i, user) || !x.isSeparator(j, user) {
				t.Fatalf("separator %d found at %d", i, j)
			}
			b.add(int(x.offsets[i+1]-x.offsets[i]), user, nil)
		}
		if i := x.find(user); i < x.blocks() {
			x.isSeparator(i, user)
		}
		again, reason := decodeIndex(b.append(nil))
		if reason != "" || !slices.Equal(again.offsets, x.offsets) {
			t.Fatalf("does not encode again: %s", reason)
		}
	})
}

func FuzzProperties(f *testing.F) {
	m := build(f, WriterOptions{}, randomEntries(seeded(f, 2), 30))
	p := open(f, m, nil).Properties()
	f.Add(appendProperties(nil, &p))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, reason := decodeProperties(b)
		if reason != "" {
			return
		}
		e := appendProperties(nil, &p)
		q, reason := decodeProperties(e)
		if reason != "" || !bytes.Equal(appendProperties(nil, &q), e) {
			t.Fatalf("does not encode again: %s", reason)
		}
	})
}

// FuzzReader opens tables whose checksums are right but whose content is anything.
func FuzzReader(f *testing.F) {
	var b indexBuilder
	p := encodeBlock(goldenEntries)
	b.add(len(p)+trailerBytes, []byte("apricot"), nil)
	m := build(f, WriterOptions{}, goldenEntries)
	props := open(f, m, nil).Properties()
	f.Add(p, b.append(nil), appendProperties(nil, &props), []byte("apple"), false)
	f.Add(p, []byte{}, []byte{}, []byte("apple"), true)
	f.Fuzz(func(t *testing.T, payload, index, properties, user []byte, compressed bool) {
		kind := blockRaw
		if compressed {
			kind = blockSnappy
		}
		data := append(slices.Clone(payload), kind)
		data = binary.LittleEndian.AppendUint32(data, uint32(checksum(data, testUID, 0)))
		if len(index) == 0 {
			var b indexBuilder
			b.add(len(data), []byte("apricot"), nil)
			index = b.append(nil)
		}
		if len(properties) == 0 {
			q := props
			q.DataBytes = uint64(len(data))
			properties = appendProperties(nil, &q)
		}
		foot := footer{id: ID{7, testUID}}
		for len(data)%lineBytes != 0 {
			data = append(data, 0)
		}
		foot.filter.offset = uint64(len(data))
		foot.filter.sum = checksum(nil, testUID, foot.filter.offset)
		for _, s := range []struct {
			s *section
			p []byte
		}{{&foot.index, index}, {&foot.properties, properties}} {
			at := uint64(len(data))
			*s.s = section{at, uint64(len(s.p)), checksum(s.p, testUID, at)}
			data = append(data, s.p...)
		}
		foot.fileBytes = uint64(len(data)) + footerBytes
		data = appendFooter(data, foot)
		readAnything(t, data, user)
	})
}

// readAnything uses a table for all it offers; it may fail but not panic or run on for ever.
func readAnything(t *testing.T, data, user []byte) {
	rd, err := NewReader(bytes.NewReader(data), int64(len(data)), ID{7, testUID}, NewCache(1<<20))
	if isDamage(t, err) {
		return
	}
	defer rd.Close()
	isDamage(t, rd.Verify())
	for _, u := range [][]byte{user, nil, []byte("apple"), []byte("apricot")} {
		_, _, _, _, err := rd.Get(nil, u, Hash(u), SeqMax)
		isDamage(t, err)
	}
	for _, o := range []IterOptions{{}, {NoFill: true, ReadaheadBytes: 100}} {
		it := rd.NewIter(o)
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			if n++; n > len(data)*100 {
				t.Fatal("no end")
			}
		}
		for ok := it.Last(); ok; ok = it.Prev() {
			n--
		}
		if it.Err() == nil && n != 0 {
			t.Fatalf("%d entries more forwards than backwards", n)
		}
		it.SeekGE(user)
		it.SeekLT(user)
		isDamage(t, it.Close())
	}
}

// FuzzDamagedTable changes bytes anywhere in a table: the answers stay right, or are errors.
func FuzzDamagedTable(f *testing.F) {
	es := randomEntries(seeded(f, 3), 40)
	m := build(f, WriterOptions{BlockBytes: 200, Compress: true}, es)
	f.Add([]byte{1, 0, 0xff})
	f.Fuzz(func(t *testing.T, edits []byte) {
		data := slices.Clone(m.data)
		for ; len(edits) >= 3; edits = edits[3:] {
			data[int(binary.LittleEndian.Uint16(edits))%len(data)] ^= edits[2]
		}
		checkDamaged(t, data, m.id(), es, !bytes.Equal(data, m.data))
	})
}
