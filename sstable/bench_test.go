package sstable

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/bits-and-blooms/bloom/v3"
)

// The benchmarks' table: 16-byte decimal keys, every second number, and 100-byte values.
const benchEntries = 200_000

func benchKey(p []byte, i int) []byte { return fmt.Appendf(p[:0], "%016d", 2*i) }

func benchValue(r *rand.Rand, p []byte) {
	for i := 0; i < len(p)/2; i += 8 { // half of it compressible
		binary.LittleEndian.PutUint64(p[i:min(i+8, len(p))][:8], r.Uint64())
	}
}

var benchTable = sync.OnceValue(func() *mem { return benchBuild(0, benchEntries, 1, false) })

func benchBuild(from, n, step int, compress bool) *mem {
	var es []entry
	r := rand.New(rand.NewPCG(1, 1))
	for i := from; i < n; i += step {
		v := make([]byte, 100)
		benchValue(r, v)
		es = append(es, entry{MakeKey(benchKey(nil, i), Seq(r.Uint64N(1e6)+1), KindPut), v})
	}
	return build(&testing.B{}, WriterOptions{Compress: compress}, es)
}

func benchKeys(n int) [][]byte {
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = benchKey(nil, i)
	}
	rand.New(rand.NewPCG(2, 2)).Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys
}

// BenchmarkGetCached: all blocks cached, random keys.
func BenchmarkGetCached(b *testing.B) {
	for _, n := range []int{2000, benchEntries} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rd := open(b, benchBuild(0, n, 1, false), NewCache(1<<30))
			keys := benchKeys(n)
			dst := make([]byte, 0, 128)
			get := func(i int) {
				k := keys[i%n]
				if _, _, _, ok, err := rd.Get(dst, k, Hash(k), SeqMax); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
			for i := range n {
				get(i)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				get(i)
			}
		})
	}
}

// BenchmarkGetMissing: keys that are not there, stopped by the filter or, rarely, in a block.
func BenchmarkGetMissing(b *testing.B) {
	rd := open(b, benchTable(), NewCache(1<<30))
	keys := benchKeys(benchEntries)
	for _, k := range keys {
		k[15]++
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		k := keys[i%benchEntries]
		if _, _, _, ok, err := rd.Get(nil, k, Hash(k), SeqMax); ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

// BenchmarkFilter: hash and probe of keys that were not added, our way and the container's own.
func BenchmarkFilter(b *testing.B) {
	hashes := make([]uint64, benchEntries)
	own := bloom.NewWithEstimates(benchEntries, 0.01)
	keys := benchKeys(benchEntries)
	for i, k := range keys {
		hashes[i] = Hash(k)
		own.Add(k)
	}
	lines, probes := filterShape(benchEntries, 10)
	f := buildFilter(make([]uint64, lines*lineWords), probes, hashes)
	missing := slices.Clone(keys[:4096]) // whose bytes stay in the cache
	for _, k := range missing {
		k[15]++
	}
	for name, test := range map[string]func(k []byte) bool{
		"line": func(k []byte) bool { return f.mayContain(Hash(k)) }, "container": own.Test,
	} {
		b.Run(name, func(b *testing.B) {
			n := 0
			for i := range b.N {
				if test(missing[i%len(missing)]) {
					n++
				}
			}
			b.ReportMetric(100*float64(n)/float64(b.N), "%false")
		})
	}
}

// BenchmarkBlockLoad: a Get of a block that is not cached; the file is in memory.
func BenchmarkBlockLoad(b *testing.B) {
	for _, c := range []struct {
		name     string
		compress bool
		cache    *Cache
	}{
		{"raw/kept", false, NewCache(1 << 20)}, {"raw/passed", false, nil},
		{"snappy/kept", true, NewCache(1 << 20)}, {"snappy/passed", true, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := benchBuild(0, benchEntries, 1, c.compress)
			rd := open(b, m, c.cache)
			keys := benchKeys(benchEntries)
			dst := make([]byte, 0, 128)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				k := keys[i%benchEntries]
				if _, _, _, ok, err := rd.Get(dst, k, Hash(k), SeqMax); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

// BenchmarkNext: a move, cached or read ahead as compaction does; the file is in memory.
func BenchmarkNext(b *testing.B) {
	for _, c := range []struct {
		name  string
		cache *Cache
		o     IterOptions
	}{
		{"cached", NewCache(1 << 30), IterOptions{}},
		{"readahead", nil, IterOptions{NoFill: true, ReadaheadBytes: 256 << 10}},
	} {
		b.Run(c.name, func(b *testing.B) {
			it := open(b, benchTable(), c.cache).NewIter(c.o)
			defer it.Close()
			for ok := it.First(); ok; ok = it.Next() {
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if !it.Next() && !it.First() {
					b.Fatal(it.Err())
				}
			}
		})
	}
}

// BenchmarkSeekGE: random keys, all blocks cached.
func BenchmarkSeekGE(b *testing.B) {
	it := open(b, benchTable(), NewCache(1<<30)).NewIter(IterOptions{})
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
	}
	keys := benchKeys(benchEntries)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if !it.SeekGE(keys[i%benchEntries]) {
			b.Fatal(it.Err())
		}
	}
}

// BenchmarkWriterAdd: per entry, everything from Add to Finish.
func BenchmarkWriterAdd(b *testing.B) {
	keys := make([][]byte, benchEntries)
	value := make([]byte, 100)
	benchValue(rand.New(rand.NewPCG(1, 1)), value)
	for i := range keys {
		keys[i] = benchKey(nil, i)
	}
	for _, compress := range []bool{false, true} {
		b.Run(fmt.Sprintf("snappy=%v", compress), func(b *testing.B) {
			var w Writer
			o := WriterOptions{Num: 1, UID: 1, Compress: compress}
			w.Reset(io.Discard, o)
			b.SetBytes(116)
			b.ReportAllocs()
			for i := range b.N {
				j := i % benchEntries
				if j == 0 && i > 0 {
					if _, err := w.Finish(); err != nil {
						b.Fatal(err)
					}
					w.Reset(io.Discard, o)
				}
				if err := w.Add(MakeKey(keys[j], Seq(1+i), KindPut), value); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := w.Finish(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkMergeNext: a move of a merge of k tables whose keys interleave.
func BenchmarkMergeNext(b *testing.B) {
	for _, k := range []int{1, 4, 8} {
		for _, shape := range []string{"interleaved", "random"} {
			b.Run(fmt.Sprintf("k=%d/%s", k, shape), func(b *testing.B) {
				parts := make([][]entry, k)
				r := rand.New(rand.NewPCG(1, 1))
				value := make([]byte, 100)
				for i := range benchEntries {
					p := i % k
					if shape == "random" {
						p = r.IntN(k)
					}
					parts[p] = append(parts[p], entry{MakeKey(benchKey(nil, i), 1, KindPut), value})
				}
				var its []MergeInput
				for _, es := range parts {
					rd := open(b, build(b, WriterOptions{}, es), NewCache(1<<30))
					it := rd.NewIter(IterOptions{})
					its = append(its, MergeInput{it, it})
				}
				var m Merge
				m.Init(its)
				defer m.Close()
				for ok := m.First(); ok; ok = m.Next() {
				}
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					if !m.Next() && !m.First() {
						b.Fatal(m.Err())
					}
				}
			})
		}
	}
}
