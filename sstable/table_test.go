package sstable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

func TestShapes(t *testing.T) {
	long := bytes.Repeat([]byte{0xff}, MaxKeyBytes)
	put := func(k []byte, s Seq, v []byte) entry { return entry{MakeKey(k, s, KindPut), v} }
	huge := make([]byte, 8<<20)
	for i := range huge {
		huge[i] = byte(i * i >> 8)
	}
	var versions, runs []entry
	for s := Seq(3000); s > 0; s-- {
		versions = append(versions, entry{MakeKey([]byte("k"), s, Kind(s&1)), []byte("value")})
	}
	versions = append(versions, put([]byte("ka"), 1, nil))
	versions = append([]entry{put([]byte("j"), 1, nil)}, versions...)
	for n := range 300 {
		runs = append(runs, put(make([]byte, n), 1, []byte{byte(n)}))
	}
	for n := range 300 {
		runs = append(runs, put(long[:n+1], 1, []byte{byte(n)}))
	}
	shapes := map[string][]entry{
		"one":            {put([]byte("k"), 1, []byte("v"))},
		"empty key":      {put([]byte{}, 0, nil), put([]byte{0}, SeqMax, nil)},
		"longest key":    {put(long[:1], 1, nil), put(long[1:], 1, nil), put(long, 1, nil)},
		"longest alone":  {put(long, 9, []byte("v"))},
		"huge value":     {put([]byte("a"), 1, nil), put([]byte("b"), 2, huge), put(long, 1, nil)},
		"largest entry":  {put(long, SeqMax, huge)},
		"versions":       versions,
		"zeros and ones": runs,
	}
	for name, es := range shapes {
		for _, compress := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name, compress), func(t *testing.T) {
				m := build(t, WriterOptions{Compress: compress}, es)
				rd := open(t, m, NewCache(1<<26))
				if err := rd.Verify(); err != nil {
					t.Fatal(err)
				}
				checkGets(t, rd, es)
				checkMeta(t, rd.Properties().Meta, m.meta, es)
				moves := 2000
				if m.meta.RawBytes > 1<<20 {
					moves = 100
				}
				it := rd.NewIter(IterOptions{NoFill: true})
				compareMoves(t, seeded(t, 1), it, es, moves)
				it.Close()
			})
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	k := func(u string, s Seq) Key { return MakeKey([]byte(u), s, KindPut) }
	for _, c := range []struct {
		name   string
		first  Key
		second Key
		value  []byte
		want   error
	}{
		{"same", k("a", 1), k("a", 1), nil, ErrOrder},
		{"newer version", k("a", 1), k("a", 2), nil, ErrOrder},
		{"smaller", k("b", 1), k("a", 1), nil, ErrOrder},
		{"prefix", k("ab", 1), k("a", 1), nil, ErrOrder},
		{"long key", k("a", 1), Key{make([]byte, MaxKeyBytes+1), 1}, nil, ErrTooLarge},
		{"long value", k("a", 1), k("b", 1), make([]byte, MaxEntryBytes), ErrTooLarge},
		{"kind", k("a", 1), MakeKey([]byte("b"), 1, 2), nil, nil},
	} {
		w := NewWriter(io.Discard, WriterOptions{Num: 1, UID: 1})
		if err := w.Add(c.first, nil); err != nil {
			t.Fatal(err)
		}
		err := w.Add(c.second, c.value)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, again := w.Finish(); again != err {
			t.Errorf("%s: Finish says %v", c.name, again)
		}
	}
	w := NewWriter(io.Discard, WriterOptions{})
	if _, err := w.Finish(); err != ErrEmpty {
		t.Errorf("empty: %v", err)
	}
	w.Reset(io.Discard, WriterOptions{})
	w.Add(k("a", 1), nil)
	if _, err := w.Finish(); err != nil {
		t.Error(err)
	}
	if err := w.Add(k("b", 1), nil); err != ErrClosed {
		t.Errorf("after Finish: %v", err)
	}
}

// brokenWriter takes so many bytes.
type brokenWriter struct{ left int }

func (b *brokenWriter) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestWriterFails(t *testing.T) {
	for _, left := range []int{0, writeChunkBytes + writeChunkBytes/2} {
		w := NewWriter(&brokenWriter{left}, WriterOptions{})
		var err error
		for i := 0; err == nil && i < 100_000; i++ {
			err = w.Add(MakeKey(benchKey(nil, i), 1, KindPut), nil)
		}
		if _, again := w.Finish(); !errors.Is(err, errBroken) || again != err {
			t.Errorf("%v, then %v", err, again)
		}
	}
}

// A Writer that is used again makes the same bytes as a new one.
func TestWriterReset(t *testing.T) {
	r := seeded(t, 8)
	var w Writer
	for range 10 {
		es := randomEntries(r, 200)
		o := WriterOptions{Num: 7, UID: r.Uint64(), BlockBytes: 100 + r.IntN(1000), Compress: true}
		var buf bytes.Buffer
		w.Reset(&buf, o)
		for i, e := range es {
			if err := w.Add(e.key, e.value); err != nil {
				t.Fatal(err)
			}
			if i == len(es)/2 && r.IntN(3) == 0 { // given up half way
				buf.Reset()
				w.Reset(&buf, o)
			}
		}
		if _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		rd, err := NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()), ID{7, o.UID}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := rd.Verify(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEstimatedBytes(t *testing.T) {
	var buf bytes.Buffer
	w := NewWriter(&buf, WriterOptions{})
	for i := range 20_000 {
		if err := w.Add(MakeKey(benchKey(nil, i), Seq(i), KindPut), make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	estimate := float64(w.EstimatedBytes())
	m, err := w.Finish()
	if err != nil || m.Bytes != uint64(buf.Len()) {
		t.Fatal(err, m.Bytes, buf.Len())
	}
	if off := estimate / float64(m.Bytes); off < 0.99 || off > 1.01 {
		t.Errorf("estimate %.0f of %d bytes", estimate, m.Bytes)
	}
}

// Blocks come close to their target and do not pass it.
func TestBlockTarget(t *testing.T) {
	m := benchBuild(0, 10_000, 1, false)
	p := open(t, m, nil).Properties()
	mean := float64(p.BlockBytes) / float64(p.Blocks)
	if mean < 0.95*defaultBlockBytes || mean > defaultBlockBytes {
		t.Errorf("%.0f bytes per block", mean)
	}
}

func TestSeparator(t *testing.T) {
	for _, c := range []struct{ last, next, want string }{
		{"apple", "banana", "b"},
		{"apple", "apricot", "apq"},
		{"a", "b", "a"},
		{"axyz", "b", "ay"},
		{"a\xff\xffz", "b", "a\xff\xff{"},
		{"a\xff\xff", "b", "a\xff\xff"},
		{"az", "bc", "b"},
		{"same", "same", "same"},
		{"pre", "prefix", "pre"},
	} {
		got := string(appendSeparator(nil, []byte(c.last), []byte(c.next)))
		if got != c.want {
			t.Errorf("separator of %q and %q is %q, want %q", c.last, c.next, got, c.want)
		}
	}
	r := seeded(t, 4)
	for range 20_000 {
		a, b := randomKey(r, nil), randomKey(r, nil)
		if bytes.Compare(a, b) > 0 {
			a, b = b, a
		}
		s := appendSeparator(nil, a, b)
		if bytes.Compare(a, s) > 0 || bytes.Compare(s, b) > 0 ||
			bytes.Equal(s, b) && !bytes.Equal(a, b) || len(s) > len(a) && len(s) > len(b) {
			t.Fatalf("separator of %q and %q is %q", a, b, s)
		}
	}
}

// The heads decide only what the whole keys would.
func TestIndexFind(t *testing.T) {
	for seed := range uint64(200) {
		r := seeded(t, seed)
		prefix := randomKey(r, nil)[:]
		if r.IntN(2) == 0 {
			prefix = nil
		}
		keys := make([][]byte, 1+r.IntN(60))
		for i := range keys {
			keys[i] = randomKey(r, prefix)
		}
		slices.SortFunc(keys, bytes.Compare)
		var b indexBuilder
		for _, k := range keys {
			b.add(100, k, nil)
		}
		x, reason := decodeIndex(b.append(nil))
		if reason != "" {
			t.Fatal(reason)
		}
		for range 200 {
			u := randomKey(r, prefix[:r.IntN(len(prefix)+1)])
			if r.IntN(3) == 0 {
				u = keys[r.IntN(len(keys))]
			}
			want := sort.Search(len(keys), func(i int) bool {
				return bytes.Compare(keys[i], u) >= 0
			})
			if got := x.find(u); got != want {
				t.Fatalf("find(%q) = %d, want %d of %q", u, got, want, keys)
			}
			if want < len(keys) && x.isSeparator(want, u) != bytes.Equal(keys[want], u) {
				t.Fatalf("isSeparator(%q) of %q", u, keys[want])
			}
		}
	}
}

func TestHeadOrders(t *testing.T) {
	r := seeded(t, 6)
	for range 50_000 {
		a, b := randomKey(r, nil), randomKey(r, nil)
		c := bytes.Compare(a, b)
		if Head(a) < Head(b) && c >= 0 || Head(a) > Head(b) && c <= 0 ||
			shortHead(a) < shortHead(b) && c >= 0 {
			t.Fatalf("heads of %q and %q", a, b)
		}
	}
}

// TestMovesInBlock: moves forward give the key, its head and all else for suffixes of all lengths
// about those that nextInBlock copies by itself, after common prefixes about the width of a head,
// and for codes of all lengths.
func TestMovesInBlock(t *testing.T) {
	r := seeded(t, 8)
	random := func(p []byte) {
		for i := range p {
			p[i] = byte(r.UintN(256))
		}
	}
	for prefix := range 12 {
		var es []entry
		common := make([]byte, prefix)
		for i := range 3000 {
			if i%500 == 0 {
				random(common)
			}
			k, v := make([]byte, prefix+r.IntN(20)), make([]byte, r.IntN(3)*r.IntN(20))
			random(k[copy(k, common):])
			random(v)
			es = append(es, entry{MakeKey(k, Seq(r.Uint64()>>(8+r.IntN(50))), KindPut), v})
		}
		slices.SortFunc(es, func(a, b entry) int { return Compare(a.key, b.key) })
		es = slices.CompactFunc(es, func(a, b entry) bool { return Compare(a.key, b.key) == 0 })
		it := open(t, build(t, WriterOptions{}, es), NewCache(1<<20)).NewIter(IterOptions{})
		ok := it.First()
		for i, e := range es {
			if !ok || Compare(it.Key(), e.key) != 0 || !bytes.Equal(it.Value(), e.value) {
				t.Fatalf("prefix %d, entry %d: %v %v, want %v", prefix, i, ok, it.Key(), e.key)
			}
			if it.entry > 0 && it.head != Head(e.key.User) {
				t.Fatalf("prefix %d, %q: head %#x", prefix, e.key.User, it.head)
			}
			ok = it.Next()
		}
		if ok || it.Close() != nil {
			t.Fatal("more entries than were written, or", it.Err())
		}
	}
}

func TestShortUvarint(t *testing.T) {
	for bits := range 64 {
		for _, v := range []uint64{1<<bits - 1, 1 << bits, 1<<bits + 1} {
			p := append(binary.AppendUvarint(nil, v), 0xff, 0x80, 0, 0xff, 0xff, 0xff, 0xff, 0xff)
			w := binary.LittleEndian.Uint64(p)
			_, want := binary.Uvarint(p)
			if got, n := shortUvarint(w); min(n, 5) != min(want, 5) || n <= 4 && got != v {
				t.Errorf("%#x, of %d bytes: %#x of %d", v, want, got, n)
			}
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	m := benchBuild(0, 5000, 1, true)
	rd := open(t, m, NewCache(1<<24))
	keys := benchKeys(5000)
	dst := make([]byte, 0, 200)
	r := rand.New(rand.NewPCG(1, 1))
	get := func() {
		k := keys[r.IntN(len(keys))]
		rd.Get(dst, k, Hash(k), SeqMax)
	}
	warm := rd.NewIter(IterOptions{})
	for ok := warm.First(); ok; ok = warm.Next() {
	}
	once := rd.NewIter(IterOptions{NoFill: true, ReadaheadBytes: 50_000})
	cold := open(t, m, nil).NewIter(IterOptions{NoFill: true, ReadaheadBytes: 50_000})
	merge := NewMerge(warm, once, cold)
	moves := func(it Iterator) func() {
		return func() {
			if !it.Next() {
				it.First()
			}
			it.Prev()
			it.Next()
			it.Next()
		}
	}
	seeks := func(it Iterator) func() {
		return func() {
			k := keys[r.IntN(len(keys))]
			it.SeekGE(k)
			it.SeekLT(k)
		}
	}
	for name, f := range map[string]func(){
		"Get": get, "cached moves": moves(warm), "cached seeks": seeks(warm),
		"cold moves": moves(cold), "cold seeks": seeks(cold),
		"merge moves": moves(merge), "merge seeks": seeks(merge),
		"Init": func() { cold.Init(cold.r, cold.o); cold.First() },
	} {
		for range 3000 { // until every buffer has its size
			f()
		}
		if n := testing.AllocsPerRun(2000, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	w := NewWriter(io.Discard, WriterOptions{Num: 1, UID: 1, Compress: true})
	value := make([]byte, 100)
	slices.SortFunc(keys, bytes.Compare)
	table := func() {
		w.Reset(io.Discard, WriterOptions{Num: 1, UID: 1, Compress: true})
		for _, k := range keys {
			w.Add(MakeKey(k, 1, KindPut), value)
		}
		w.Finish()
	}
	table()
	if n := testing.AllocsPerRun(5, table); n > 10 {
		t.Errorf("a table of %d entries: %v allocations", len(keys), n)
	}
}
