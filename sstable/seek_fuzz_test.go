package sstable

import (
	"bytes"
	"slices"
	"testing"
)

// fuzzKeys takes distinct ascending keys out of data: a shared prefix of up to 40 bytes, one more
// than what a block keeps at hand, then keys of up to 20 more, of which runs of 0x00 and 0xff are
// cheap to make.
func fuzzKeys(data []byte) (keys [][]byte) {
	take := func(n int) []byte {
		n = min(n, len(data))
		p := data[:n:n]
		data = data[n:]
		return p
	}
	var prefix []byte
	if len(data) > 0 {
		prefix = take(1 + int(data[0]%41))[1:]
	}
	for len(data) > 0 && len(keys) < 64 {
		head := take(1)[0]
		key := slices.Clone(prefix)
		switch head >> 6 {
		case 0:
			key = append(key, take(int(head%21))...)
		case 1:
			key = append(key, make([]byte, head%21)...)
		case 2:
			key = append(key, bytes.Repeat([]byte{0xff}, int(head%21))...)
		default:
			key = key[:int(head&63)%(len(key)+1)]
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal)
}

// FuzzSeekOrder holds seeks and lookups in a table against bytes.Compare over a sorted slice:
// separators, heads of separators and of entries, and common prefixes decide only what the whole
// keys would.
func FuzzSeekOrder(f *testing.F) {
	f.Add([]byte("\x00\x03abc\x02ab\x41\x42\x81\x83\xc0"))
	f.Add(append([]byte{40}, bytes.Repeat([]byte("\xff\x00\x07key"), 40)...))
	f.Add(append([]byte{33}, bytes.Repeat([]byte{0xff, 0x94, 0x54, 9, 1}, 50)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys := fuzzKeys(data)
		if len(keys) == 0 {
			return
		}
		var es []entry
		for i, k := range keys {
			es = append(es, entry{MakeKey(k, Seq(i+1), KindPut), []byte{byte(i)}})
		}
		rd := open(t, build(t, WriterOptions{BlockBytes: 64 + len(data)%200}, es), nil)
		if err := rd.Verify(); err != nil {
			t.Fatal(err)
		}
		it, model := rd.NewIter(IterOptions{}), &modelIter{es: es}
		defer it.Close()
		probe := func(u []byte) {
			same := func(what string, got, want bool) {
				if got != want || got && !bytes.Equal(it.Key().User, model.Key().User) {
					t.Fatalf("%s near %q: %v, want %v; keys %q", what, u, got, want, keys)
				}
			}
			same("SeekGE", it.SeekGE(u), model.SeekGE(u))
			same("Prev", it.Prev(), model.Prev())
			same("SeekLT", it.SeekLT(u), model.SeekLT(u))
			same("Next", it.Next(), model.Next())
			_, found := slices.BinarySearchFunc(keys, u, bytes.Compare)
			if _, _, _, ok, err := rd.Get(nil, u, Hash(u), SeqMax); ok != found || err != nil {
				t.Fatalf("Get(%q) finds: %v, want %v; %v", u, ok, found, err)
			}
		}
		for _, k := range keys {
			probe(k)
			probe(append(slices.Clone(k), 0))
			if n := len(k); n > 0 {
				probe(k[:n-1])
				// Also behind what a block keeps at hand of its prefix.
				for _, at := range []int{n - 1, 2 * n / 3, min(n-1, leadBytes+1)} {
					for _, d := range []byte{1, 0xff} {
						other := slices.Clone(k)
						other[at] += d
						probe(other)
					}
				}
			}
		}
	})
}
