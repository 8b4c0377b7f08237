package sstable

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// contents adds up what the cache holds by walking its log, and checks what it knows of itself.
func contents(t *testing.T, c *Cache) (blocks int, bytes int64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.log
	if l.free > l.tail || l.tail > l.head || l.room() < 0 {
		t.Fatalf("free %d, tail %d, head %d, room %d", l.free, l.tail, l.head, l.room())
	}
	for at := l.tail; at != l.head; {
		f := l.frame(l.offset(at))
		if f.owner != 0 {
			blocks, bytes = blocks+1, bytes+int64(f.size)
			if c.block(&c.owners[f.owner].slots[f.index]) != f {
				t.Fatalf("the slot of the block at %d is of another", at)
			}
		}
		at += uint64(f.size)
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
	for _, budget := range []int64{0, 10_000, 100_000, 1 << 30} {
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
		blocks, bytes := contents(t, c)
		if blocks != x.Blocks || bytes != x.UsedBytes || x.Hits+x.Misses != 5000 {
			t.Errorf("ring has %d blocks of %d bytes, metrics %+v", blocks, bytes, x)
		}
		// Where the log wraps there may be no room.
		came := uint64(x.Blocks) + x.Evictions
		if budget > 50_000 && (came > x.Misses || came < x.Misses*99/100) {
			t.Errorf("%d misses, but %d blocks came in", x.Misses, came)
		}
		if full := budget == 100_000; full && x.UsedBytes < budget*7/10 {
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

// Readers who missed slept and woke each other, for the sake of a cache that the next one fills.
func TestMissDoesNotWaitForTheCache(t *testing.T) {
	es := cachedEntries(10)
	m := build(t, WriterOptions{}, es)
	c := NewCache(1 << 20)
	rd, err := NewReader(m, int64(len(m.data)), m.id(), c)
	if err != nil {
		t.Fatal(err)
	}
	get := func() {
		user := es[3].key.User
		if v, _, _, ok, err := rd.Get(nil, user, Hash(user), SeqMax); !ok || !bytes.Equal(v, es[3].value) {
			t.Errorf("%q, %v", v, err)
		}
	}
	c.mu.Lock() // another one inserts
	done := make(chan struct{})
	go func() { defer close(done); get() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
	c.mu.Unlock()
	<-done
	if n := c.Metrics().Blocks; n != 0 {
		t.Errorf("%d blocks are cached", n)
	}
	get()
	if n := c.Metrics().Blocks; n != 1 {
		t.Errorf("%d blocks are cached after the next miss, want 1", n)
	}
	if err := rd.Close(); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// Beside a goroutine that computes, each miss that yielded waited for a whole time slice.
func TestMissesDoNotGiveTheirTimeAway(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
		}
	})
	c := NewCache(1 << 20)
	began := time.Now()
	for range 1000 {
		c.yield()
	}
	took := time.Since(began)
	stop.Store(true)
	wg.Wait()
	c.Close()
	if took > 2*time.Second {
		t.Errorf("1000 misses waited %v", took)
	}
}

func TestNoFill(t *testing.T) {
	es := cachedEntries(2000)
	c := NewCache(1 << 20)
	rd := open(t, build(t, WriterOptions{}, es), c)
	k := es[1000].key.User
	rd.Get(nil, k, Hash(k), SeqMax)
	c.block(&rd.slots[rd.index.find(k)]).used.Store(0)
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
	if c.block(&rd.slots[rd.index.find(k)]).used.Load() != 0 {
		t.Fatal("the block was marked")
	}
}

// Many readers of a cache that is far too small see only what was written; run with -race.
func TestEvictionStorm(t *testing.T) {
	es := cachedEntries(3000)
	c := NewCache(60_000)
	c.log.poison = true
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
				cell := c.Readers().Enter()
				v, _, _, ok, err := readers[r.IntN(3)].Get(dst[:0], k, Hash(k), SeqMax)
				cell.Exit()
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
					cell := c.Readers().Enter()
					dst, _, _, ok, err = readers[j].Get(dst[:0], k, Hash(k), SeqMax)
					cell.Exit()
					if !ok {
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
	if blocks, n := contents(t, c); blocks != 0 || n != 0 || c.Metrics().UsedBytes != 0 {
		t.Fatalf("%d blocks left", blocks)
	}
}

// A pinned block stays where it is while the log goes round it, and is one more frame when it is
// let go of.
func TestPinnedBlocksAreIslands(t *testing.T) {
	es := cachedEntries(4000)
	c := NewCache(200_000)
	c.log.poison = true
	rd := open(t, build(t, WriterOptions{}, es), c)
	r := seeded(t, 3)
	its := make([]*TableIter, 6)
	at := make([]int, len(its))
	for step := range 20_000 {
		i := r.IntN(len(es))
		k := es[i].key.User
		switch j := r.IntN(len(its)); {
		case step%40 > 0:
			cell := c.Readers().Enter()
			v, _, _, ok, err := rd.Get(nil, k, Hash(k), SeqMax)
			cell.Exit()
			if !ok || err != nil || !bytes.Equal(v, es[i].value) {
				t.Fatalf("step %d: Get(%q) = %q, %v", step, k, v, err)
			}
		case its[j] != nil && r.IntN(3) == 0:
			its[j].Close()
			its[j] = nil
		case its[j] == nil:
			its[j] = rd.NewIter(IterOptions{})
			fallthrough
		default:
			if !its[j].SeekGE(k) {
				t.Fatal(its[j].Err())
			}
			at[j] = i
		}
		for j, it := range its {
			if it != nil && !bytes.Equal(it.Value(), es[at[j]].value) {
				t.Fatalf("step %d: the value of %q became %q", step, es[at[j]].key.User, it.Value())
			}
		}
		if step%100 == 0 {
			contents(t, c)
		}
	}
	for _, it := range its {
		if it != nil {
			it.Close()
		}
	}
	if x := c.Metrics(); x.UsedBytes < 100_000 || x.Evictions < 1000 {
		t.Errorf("%+v", x)
	}
	for _, e := range es { // everything that was an island is overwritten by now
		rd.Get(nil, e.key.User, Hash(e.key.User), SeqMax)
	}
	if n := len(c.log.islands); n != 0 || c.log.islandBytes != 0 {
		t.Errorf("%d islands of %d bytes are left", n, c.log.islandBytes)
	}
	rd.Close()
	if blocks, n := contents(t, c); blocks != 0 || n != 0 {
		t.Errorf("%d blocks left", blocks)
	}
}

// A reader that stays inside keeps what it may see; others go on without new blocks in the cache.
func TestSlowReaderKeepsWhatItSees(t *testing.T) {
	es := cachedEntries(4000)
	c := NewCache(100_000)
	c.log.poison = true
	rd := open(t, build(t, WriterOptions{}, es), c)
	get := func(i int) {
		t.Helper()
		k := es[i].key.User
		if v, _, _, ok, err := rd.Get(nil, k, Hash(k), SeqMax); !ok || !bytes.Equal(v, es[i].value) {
			t.Fatalf("%q: %v, %v", k, ok, err)
		}
	}
	get(7)
	slow := c.Readers().Enter()
	b := c.block(&rd.slots[rd.index.find(es[7].key.User)])
	data := bytes.Clone(b.data)
	for i := range es {
		get(i)
	}
	if !bytes.Equal(b.data, data) {
		t.Error("a block was overwritten under its reader")
	}
	slow.Exit()
	evicted := c.Metrics().Evictions
	for i := range es {
		get(i)
	}
	if c.Metrics().Evictions == evicted {
		t.Error("the cache does not go on after the reader has left")
	}
}

// The blocks of dropped tables leave room that is used again before more memory is touched.
func TestCacheStaysAsSmallAsItsTables(t *testing.T) {
	es := cachedEntries(60_000)
	for i := range es {
		es[i].value = bytes.Repeat(es[i].value, 3)
	}
	c := NewCache(1 << 30)
	defer c.Close()
	for round := range 8 {
		rd := open(t, build(t, WriterOptions{Num: uint64(round)}, es), c)
		it := rd.NewIter(IterOptions{})
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		if err := it.Close(); n != len(es) || err != nil {
			t.Fatal(n, err)
		}
		used := uint64(c.Metrics().UsedBytes)
		if used < 10<<20 || c.log.extent > 3*used {
			t.Errorf("round %d: %d bytes are used, %d were touched", round, used, c.log.extent)
		}
		rd.Close()
		if blocks, _ := contents(t, c); blocks != 0 {
			t.Fatalf("%d blocks left", blocks)
		}
	}
}

// A block that was about to be moved to the head came back into the cache for a table that had just
// been dropped, and the next time round its table was nobody.
func TestDroppedWhileItsBlocksMove(t *testing.T) {
	es := cachedEntries(3000)
	c := NewCache(400_000)
	stay := open(t, build(t, WriterOptions{Num: 1}, es), c)
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 9))
			for range 100 {
				m := build(t, WriterOptions{Num: uint64(2 + g)}, es[:1000])
				rd, err := NewReader(m, int64(len(m.data)), m.id(), c)
				if err != nil {
					t.Error(err)
					return
				}
				for range 300 {
					k := es[r.IntN(1000)].key.User
					cell := c.Readers().Enter()
					_, _, _, ok, _ := rd.Get(nil, k, Hash(k), SeqMax)
					k = es[r.IntN(len(es))].key.User
					_, _, _, stayed, _ := stay.Get(nil, k, Hash(k), SeqMax)
					cell.Exit()
					if !ok || !stayed {
						t.Error("not found")
					}
				}
				rd.Close()
			}
		})
	}
	wg.Wait()
	contents(t, c)
}
