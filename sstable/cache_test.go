package sstable

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// ring adds up what the cache holds by walking it.
func ring(c *Cache) (blocks int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := c.hand; b != nil; b = b.next {
		blocks, bytes = blocks+1, bytes+b.bytes
		if b.next == c.hand {
			break
		}
	}
	return blocks, bytes
}

func cachedEntries(n int) []entry {
	es := make([]entry, n)
	for i := range es {
		v := bytes.Repeat(fmt.Appendf(nil, "%d.", i), 20)
		es[i] = entry{MakeKey(fmt.Appendf(nil, "%08d", i), Seq(i+1), KindPut), v}
	}
	return es
}

func TestCacheBudget(t *testing.T) {
	es := cachedEntries(4000)
	m := build(t, WriterOptions{}, es)
	for _, budget := range []int64{0, 10_000, 50_000, 1 << 30} {
		c := NewCache(budget)
		rd, err := NewReader(m, int64(len(m.data)), m.id(), c)
		if err != nil {
			t.Fatal(err)
		}
		r := seeded(t, uint64(budget))
		for range 5000 {
			e := es[r.IntN(len(es))]
			if _, _, _, ok, err := rd.Get(nil, e.key.User, Hash(e.key.User), SeqMax); !ok {
				t.Fatal(err)
			}
			if used := c.Metrics().UsedBytes; used > budget {
				t.Fatalf("%d bytes used of %d", used, budget)
			}
		}
		x := c.Metrics()
		blocks, bytes := ring(c)
		if blocks != x.Blocks || bytes != x.UsedBytes || x.Hits+x.Misses != 5000 {
			t.Errorf("ring has %d blocks of %d bytes, metrics %+v", blocks, bytes, x)
		}
		if want := uint64(x.Blocks) + x.Evictions; budget > 20_000 && x.Misses != want {
			t.Errorf("%d misses, but %d blocks came in", x.Misses, want)
		}
		if full := budget == 50_000; full && x.UsedBytes < budget-2*5000 {
			t.Errorf("only %d bytes used of %d", x.UsedBytes, budget)
		}
		if x.PinnedBytes < 4000*10/8 || x.PinnedBytes > 4000*4 {
			t.Errorf("%d pinned bytes", x.PinnedBytes)
		}
		rd.Close()
		rd.Close()
		if x = c.Metrics(); x.UsedBytes != 0 || x.Blocks != 0 || x.PinnedBytes != 0 {
			t.Errorf("after Close: %+v", x)
		}
	}
}

// A block that is used stays, one that is not makes room.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	es := cachedEntries(4000)
	c := NewCache(100_000)
	rd := open(t, build(t, WriterOptions{}, es), c)
	get := func(i int) {
		k := es[i].key.User
		if _, _, _, ok, err := rd.Get(nil, k, Hash(k), SeqMax); !ok {
			t.Fatal(err)
		}
	}
	for i, block := 0, -1; i < len(es); i++ {
		if b := rd.index.find(es[i].key.User); b != block {
			get(0)
			get(i)
			block = b
		}
	}
	if got := c.Metrics().Misses; got != rd.Properties().Blocks {
		t.Fatalf("%d misses for %d blocks: the used block was evicted", got, rd.Properties().Blocks)
	}
}

func TestNoFill(t *testing.T) {
	es := cachedEntries(2000)
	c := NewCache(1 << 20)
	rd := open(t, build(t, WriterOptions{}, es), c)
	k := es[1000].key.User
	rd.Get(nil, k, Hash(k), SeqMax)
	rd.slots[rd.index.find(k)].Load().used.Store(0)
	it := rd.NewIter(IterOptions{NoFill: true, ReadaheadBytes: 10_000})
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	it.Close()
	x := c.Metrics()
	if n != len(es) || x.Blocks != 1 || x.Hits != 1 || x.Misses != rd.Properties().Blocks {
		t.Fatalf("%d entries, %+v", n, x)
	}
	if rd.slots[rd.index.find(k)].Load().used.Load() != 0 {
		t.Fatal("the block was marked")
	}
}

// Many readers of a cache that is far too small see only what was written; run with -race.
func TestEvictionStorm(t *testing.T) {
	es := cachedEntries(3000)
	c := NewCache(40_000)
	var readers []*Reader
	for i := range 3 {
		m := build(t, WriterOptions{Num: uint64(i), UID: uint64(i + 1), Compress: i == 1}, es)
		readers = append(readers, open(t, m, c))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 9))
			it := readers[g%3].NewIter(IterOptions{ReadaheadBytes: g * 5000})
			defer it.Close()
			var dst []byte
			for range 2000 {
				i := r.IntN(len(es))
				k := es[i].key.User
				v, _, _, ok, err := readers[r.IntN(3)].Get(dst[:0], k, Hash(k), SeqMax)
				if !ok || err != nil || !bytes.Equal(v, es[i].value) {
					t.Errorf("Get(%q) = %q, %v, %v", k, v, ok, err)
					return
				}
				dst = v
				if !it.SeekGE(k) || !bytes.Equal(it.Value(), es[i].value) {
					t.Errorf("SeekGE(%q): %v", k, it.Err())
					return
				}
				held := it.Value() // stays good while others evict the block
				for j := range 3 {
					k := es[(i+j*len(es)/3)%len(es)].key.User
					if dst, _, _, ok, err = readers[j].Get(dst[:0], k, Hash(k), SeqMax); !ok {
						t.Errorf("Get(%q): %v", k, err)
						return
					}
				}
				if !bytes.Equal(held, es[i].value) {
					t.Errorf("the value of %q became %q while it was held", k, held)
					return
				}
				for j := i + 1; j < min(i+20, len(es)) && it.Next(); j++ {
					if !bytes.Equal(it.Value(), es[j].value) {
						t.Errorf("Next to %q: %q", it.Key().User, it.Value())
						return
					}
				}
			}
		})
	}
	wg.Wait()
	for _, rd := range readers {
		rd.Close()
	}
	if blocks, n := ring(c); blocks != 0 || n != 0 || c.Metrics().UsedBytes != 0 {
		t.Fatalf("%d blocks left", blocks)
	}
}
