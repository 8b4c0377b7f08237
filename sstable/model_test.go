package sstable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

// entry is one entry of a table in the tests.
type entry struct {
	key   Key
	value []byte
}

// mem is a finished table in memory.
type mem struct {
	bytes.Reader
	data []byte
	meta Meta
}

const testUID = 0x1122334455667788

func (m *mem) id() ID { return ID{m.meta.Num, m.meta.UID} }

func build(t testing.TB, o WriterOptions, es []entry) *mem {
	t.Helper()
	if o.Num == 0 {
		o.Num, o.UID = 7, testUID
	}
	var buf bytes.Buffer
	w := NewWriter(&buf, o)
	for _, e := range es {
		if err := w.Add(e.key, e.value); err != nil {
			t.Fatal(err)
		}
	}
	meta, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	m := &mem{data: buf.Bytes(), meta: meta}
	m.Reset(m.data)
	return m
}

func open(t testing.TB, m *mem, c *Cache) *Reader {
	t.Helper()
	r, err := NewReader(m, int64(len(m.data)), m.id(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func seeded(t testing.TB, seed uint64) *rand.Rand {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, seed))
}

// randomKey draws short keys over a nasty alphabet behind one of a few prefixes.
func randomKey(r *rand.Rand, prefix []byte) []byte {
	k := append([]byte{}, prefix...)
	const alphabet = "\x00\x00\x01a\xfe\xff\xff"
	for range r.IntN(21) {
		k = append(k, alphabet[r.IntN(len(alphabet))])
	}
	return k
}

// randomEntries returns about n entries in order, with several versions of some keys.
func randomEntries(r *rand.Rand, n int) []entry {
	var prefix []byte
	for range r.IntN(2) * r.IntN(leadBytes+8) {
		prefix = append(prefix, byte(r.UintN(256)))
	}
	var es []entry
	for seq := Seq(1); len(es) < n; {
		key, versions := randomKey(r, prefix), 1
		switch r.IntN(20) {
		case 0:
			versions = 1 + r.IntN(60)
		case 1:
			key = key[:r.IntN(len(key)+1)]
		}
		for range versions {
			seq += Seq(1 + r.IntN(1000))
			v := make([]byte, r.IntN(60))
			for i := range v {
				v[i] = byte(r.UintN(4))
			}
			es = append(es, entry{MakeKey(key, seq, Kind(r.IntN(2))), v})
		}
	}
	slices.SortFunc(es, func(a, b entry) int { return Compare(a.key, b.key) })
	return es
}

// modelIter is the Iterator contract over a sorted slice.
type modelIter struct {
	es    []entry
	i     int
	valid bool
}

func (m *modelIter) to(i int) bool {
	m.i, m.valid = i, i >= 0 && i < len(m.es)
	return m.valid
}

func (m *modelIter) lower(user []byte) int {
	return sort.Search(len(m.es), func(i int) bool {
		return bytes.Compare(m.es[i].key.User, user) >= 0
	})
}

func (m *modelIter) First() bool          { return m.to(0) }
func (m *modelIter) Last() bool           { return m.to(len(m.es) - 1) }
func (m *modelIter) SeekGE(u []byte) bool { return m.to(m.lower(u)) }
func (m *modelIter) SeekLT(u []byte) bool { return m.to(m.lower(u) - 1) }
func (m *modelIter) Next() bool           { return m.valid && m.to(m.i+1) }
func (m *modelIter) Prev() bool           { return m.valid && m.to(m.i-1) }
func (m *modelIter) Key() Key             { return m.es[m.i].key }
func (m *modelIter) Value() []byte        { return m.es[m.i].value }
func (m *modelIter) Err() error           { return nil }
func (m *modelIter) Close() error         { return nil }

// compareMoves makes random moves on both iterators and fails at the first difference.
func compareMoves(t *testing.T, r *rand.Rand, it Iterator, es []entry, moves int) {
	t.Helper()
	model, run := &modelIter{es: es}, 0 // moves forward, at a stretch
	for range moves {
		var name string
		var got, want bool
		op := r.IntN(20)
		switch {
		case run > 0:
			run, op = run-1, 6
		case op == 12:
			run = r.IntN(40)
		}
		switch {
		case op == 0:
			name, got, want = "First", it.First(), model.First()
		case op == 1:
			name, got, want = "Last", it.Last(), model.Last()
		case op < 6:
			u := es[r.IntN(len(es))].key.User
			switch r.IntN(4) {
			case 0:
				u = append(slices.Clone(u), byte(r.UintN(3)))
			case 1:
				u = u[:r.IntN(len(u)+1)]
			case 2:
				u = randomKey(r, u[:len(u)/2])
			}
			if op&1 == 0 {
				name = fmt.Sprintf("SeekGE(%q)", u)
				got, want = it.SeekGE(u), model.SeekGE(u)
			} else {
				name = fmt.Sprintf("SeekLT(%q)", u)
				got, want = it.SeekLT(u), model.SeekLT(u)
			}
		case op < 13:
			name, got, want = "Next", it.Next(), model.Next()
		default:
			name, got, want = "Prev", it.Prev(), model.Prev()
		}
		if got != want || it.Err() != nil {
			t.Fatalf("%s = %v, want %v, error %v", name, got, want, it.Err())
		}
		if !want {
			continue
		}
		k, v := it.Key(), it.Value()
		if Compare(k, model.Key()) != 0 || !bytes.Equal(v, model.Value()) {
			t.Fatalf("%s at %v = %q, want %v = %q", name, k, v, model.Key(), model.Value())
		}
	}
}

// checkGets looks up every key at and around its versions, and keys that are not there.
func checkGets(t *testing.T, rd *Reader, es []entry) {
	t.Helper()
	probe := func(user []byte, at Seq) {
		var want *entry
		i := sort.Search(len(es), func(i int) bool {
			return Compare(es[i].key, MakeKey(user, at, 255)) >= 0
		})
		if i < len(es) && bytes.Equal(es[i].key.User, user) {
			want = &es[i]
		}
		v, kind, seq, ok, err := rd.Get([]byte("dst"), user, Hash(user), at)
		if err != nil || ok != (want != nil) || !bytes.HasPrefix(v, []byte("dst")) {
			t.Fatalf("Get(%q, %d) = %v, %v, want %v", user, at, ok, err, want)
		}
		if ok && (kind != want.key.Kind() || seq != want.key.Seq() ||
			!bytes.Equal(v[3:], want.value)) {
			t.Fatalf("Get(%q, %d) = %q %v %d, want %v", user, at, v[3:], kind, seq, want)
		}
		if !ok && len(v) != 3 {
			t.Fatalf("Get(%q, %d) appended %q to nothing", user, at, v[3:])
		}
	}
	for _, e := range es {
		for _, at := range []Seq{e.key.Seq() - 1, e.key.Seq(), e.key.Seq() + 1, SeqMax} {
			probe(e.key.User, at)
		}
		probe(append(slices.Clone(e.key.User), 0), SeqMax)
		probe(e.key.User[:len(e.key.User)/2], SeqMax)
	}
}

func TestTableAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := seeded(t, seed)
			es := randomEntries(r, 1+r.IntN(400))
			m := build(t, WriterOptions{
				BlockBytes: 1 + r.IntN(600), FilterBitsPerKey: r.IntN(12) - 1,
				Compress: r.IntN(2) == 0, Num: 7, UID: testUID,
			}, es)
			var c *Cache
			if r.IntN(3) > 0 {
				c = NewCache(int64(r.IntN(30000)))
			}
			rd := open(t, m, c)
			if err := rd.Verify(); err != nil {
				t.Fatal(err)
			}
			checkGets(t, rd, es)
			var it TableIter
			for range 3 {
				it.Init(rd, IterOptions{r.IntN(2) == 0, r.IntN(2) * r.IntN(2000)})
				compareMoves(t, r, &it, es, 400)
				if err := it.Close(); err != nil {
					t.Fatal(err)
				}
			}
			checkMeta(t, rd.Properties().Meta, m.meta, es)
		})
	}
}

func checkMeta(t *testing.T, read, written Meta, es []entry) {
	t.Helper()
	if fmt.Sprintf("%+v", read) != fmt.Sprintf("%+v", written) {
		t.Fatalf("read   %+v\nwrote %+v", read, written)
	}
	want := Meta{
		Num: written.Num, UID: written.UID, Bytes: written.Bytes, MinSeq: SeqMax,
		Smallest: es[0].key, Largest: es[len(es)-1].key, Entries: uint64(len(es)),
	}
	for _, e := range es {
		want.MinSeq, want.MaxSeq = min(want.MinSeq, e.key.Seq()), max(want.MaxSeq, e.key.Seq())
		want.RawBytes += uint64(len(e.key.User) + len(e.value))
		if e.key.Kind() == KindDelete {
			want.Tombstones++
		}
	}
	if fmt.Sprintf("%+v", written) != fmt.Sprintf("%+v", want) {
		t.Fatalf("wrote %+v\nwant  %+v", written, want)
	}
}

func TestMergeAgainstModel(t *testing.T) {
	m := NewMerge()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := seeded(t, seed)
			all := randomEntries(r, 1+r.IntN(400))
			parts := make([][]entry, 1+r.IntN(9))
			for _, e := range all {
				i := r.IntN(len(parts))
				parts[i] = append(parts[i], e)
			}
			var its []MergeInput
			for _, es := range parts {
				if len(es) == 0 || r.IntN(3) == 0 {
					its = append(its, MergeInput{Iterator: &modelIter{es: es}})
					continue
				}
				rd := open(t, build(t, WriterOptions{BlockBytes: 300}, es), nil)
				in := MergeInput{Iterator: rd.NewIter(IterOptions{})}
				if r.IntN(2) == 0 {
					in.Table = in.Iterator.(*TableIter)
				}
				its = append(its, in)
			}
			m.Init(its)
			compareKept(t, m, all)
			compareMoves(t, r, m, all, 1500)
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// compareKept reads all of a merge and looks at each key once more after the next move.
func compareKept(t *testing.T, m *Merge, all []entry) {
	t.Helper()
	var before []byte
	ok := m.First()
	for i := range all {
		if i > 0 && !bytes.Equal(before, all[i-1].key.User) {
			t.Fatalf("%q became %q by the next move", all[i-1].key.User, before)
		}
		if !ok || Compare(m.Key(), all[i].key) != 0 || !bytes.Equal(m.Value(), all[i].value) {
			t.Fatalf("at %v instead of %v", m.Key(), all[i].key)
		}
		before = m.Key().User
		ok = m.Next()
	}
	if ok || m.Err() != nil {
		t.Fatalf("more than there is, or %v", m.Err())
	}
}

// failing is an iterator that fails after some moves.
type failing struct {
	modelIter
	left int
	err  error
}

var errBroken = errors.New("broken")

func (f *failing) Next() bool {
	if f.left--; f.left < 0 {
		f.valid, f.err = false, errBroken
	}
	return f.err == nil && f.modelIter.Next()
}

func (f *failing) Err() error { return f.err }

func TestMergeFailsWithItsChild(t *testing.T) {
	es := randomEntries(seeded(t, 1), 100)
	bad := &failing{modelIter: modelIter{es: es[50:]}, left: 10}
	m := NewMerge(&modelIter{es: es[:50]}, bad)
	n := 0
	for ok := m.First(); ok; ok = m.Next() {
		n++
	}
	if n != 61 || !errors.Is(m.Err(), errBroken) {
		t.Fatalf("%d entries, error %v", n, m.Err())
	}
	if m.Next() || m.Prev() || m.First() || m.Last() || m.SeekGE(nil) || m.SeekLT(nil) {
		t.Fatal("a failed merge moved")
	}
	if empty := NewMerge(); empty.First() || empty.Next() || empty.Err() != nil {
		t.Fatal("an empty merge moved")
	}
}

// TestMergeFailsWithItsTable: what a merge asks a table for itself ends with the table's error.
func TestMergeFailsWithItsTable(t *testing.T) {
	es := randomEntries(seeded(t, 2), 300)
	m := build(t, WriterOptions{BlockBytes: 300}, es)
	f := &brokenReader{ReaderAt: m}
	rd, err := NewReader(f, int64(len(m.data)), m.id(), nil)
	if err != nil {
		t.Fatal(err)
	}
	it, want := rd.NewIter(IterOptions{}), 0
	for ok := it.First(); ok && it.index < 3; ok = it.Next() {
		want++
	}
	f.from, f.to = int64(rd.index.offsets[3]), int64(rd.index.offsets[4])
	it.Init(rd, IterOptions{})
	var merge Merge
	merge.Init([]MergeInput{{it, it}})
	n := 0
	for ok := merge.First(); ok; ok = merge.Next() {
		n++
	}
	if n != want || n == 0 || !errors.Is(merge.Err(), errBroken) {
		t.Fatalf("%d entries, not %d, error %v", n, want, merge.Err())
	}
	if merge.Next() || merge.Prev() || merge.First() || merge.Last() {
		t.Fatal("a failed merge moved")
	}
}

// brokenReader fails reads in [from, to).
type brokenReader struct {
	io.ReaderAt
	from, to int64
}

func (b *brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if off < b.to && off+int64(len(p)) > b.from {
		return 0, errBroken
	}
	return b.ReaderAt.ReadAt(p, off)
}

func TestReadErrorIsNoEnd(t *testing.T) {
	es := randomEntries(seeded(t, 1), 300)
	m := build(t, WriterOptions{BlockBytes: 300}, es)
	f := &brokenReader{ReaderAt: m}
	rd, err := NewReader(f, int64(len(m.data)), m.id(), NewCache(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	f.from, f.to = 3000, 3001
	it := rd.NewIter(IterOptions{})
	for ok := it.First(); ok; ok = it.Next() {
	}
	if !errors.Is(it.Err(), errBroken) {
		t.Fatalf("error %v", it.Err())
	}
	f.to = 0
	if it.First() || it.Next() || it.SeekGE(nil) || !errors.Is(it.Close(), errBroken) {
		t.Fatal("a failed iterator moved")
	}
	it.Init(rd, IterOptions{})
	if !it.First() || it.Err() != nil {
		t.Fatal("Init did not clear the error")
	}
}
