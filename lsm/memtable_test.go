package lsm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"weak"

	"kvd/lsm/vfs"
	"kvd/sstable"
)

// memtableDB is a DB of one memtable, which is all that its order needs.
func memtableDB(t *testing.T, arenaBytes int64, prefix []byte) *DB {
	t.Helper()
	a, err := newArena(arenaBytes, 0)
	if err != nil {
		t.Fatal(err)
	}
	db := new(DB)
	db.published.init(0)
	db.commit.mem = new(memtable)
	db.commit.mem.init(a, prefix)
	return db
}

// commitTo is what Apply does to the memtable.
func commitTo(db *DB, b *Batch) bool {
	db.commit.Lock()
	m := db.commit.mem
	at, links, ok := m.reserve(b)
	first := db.commit.lastSeq + 1
	if ok {
		db.commit.lastSeq += sstable.Seq(b.count)
		m.lastSeq = db.commit.lastSeq
	}
	last := db.commit.lastSeq
	db.commit.Unlock()
	if ok {
		m.apply(b, at, links, first)
		db.published.publish(first, last)
	}
	return ok
}

// TestMemtableAgainstModel commits from several goroutines, asks for the order at some point in
// the middle, and compares what gets, run and list give with a sorted slice.
func TestMemtableAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		prefix := []string{"", "pre", "\x00", "a longer prefix"}[r.IntN(4)]
		users := hardKeys(r, prefix, 80)
		db := memtableDB(t, 512<<10, []byte(prefix))
		m := db.commit.mem
		var mu sync.Mutex
		var model []sstable.Key
		var wg sync.WaitGroup
		for g := range 3 {
			r := rand.New(rand.NewPCG(seed, uint64(g)))
			wg.Go(func() {
				for range 60 {
					var b Batch
					var keys [][]byte
					for range 1 + r.IntN(4) {
						user := users[r.IntN(len(users))]
						keys = append(keys, user)
						b.Put(user, user)
					}
					mu.Lock() // the model learns the numbers
					before := db.commit.lastSeq
					for i, user := range keys {
						seq := before + 1 + sstable.Seq(i)
						model = append(model, sstable.MakeKey(user, seq, sstable.KindPut))
					}
					at := reserveOnly(db, &b)
					mu.Unlock()
					at()
				}
			})
		}
		wg.Go(func() {
			if seed%3 > 0 {
				for range seed % 3 * 3 {
					db.order(m, db.published.seq(), nil)
				}
			}
		})
		wg.Wait()
		slices.SortFunc(model, sstable.Compare)
		compareMemtable(t, seed, db, model, users)
	}
}

// reserveOnly is the locked half of commitTo; the other half is returned.
func reserveOnly(db *DB, b *Batch) func() {
	db.commit.Lock()
	defer db.commit.Unlock()
	m := db.commit.mem
	at, links, ok := m.reserve(b)
	if !ok {
		panic("the arena of the test is too small")
	}
	first := db.commit.lastSeq + 1
	db.commit.lastSeq += sstable.Seq(b.count)
	last := db.commit.lastSeq
	m.lastSeq = last
	return func() {
		m.apply(b, at, links, first)
		db.published.publish(first, last)
	}
}

func compareMemtable(t *testing.T, seed uint64, db *DB, model []sstable.Key, users [][]byte) {
	t.Helper()
	m := db.commit.mem
	it := sstable.NewMerge(&runIter{run: db.order(m, db.published.seq(), nil)}, &listIter{list: &m.list})
	i := 0
	for ok := it.First(); ok; ok = it.Next() {
		if i == len(model) || sstable.Compare(it.Key(), model[i]) != 0 ||
			!bytes.Equal(it.Value(), model[i].User) {
			t.Fatalf("seed %d: entry %d is %v", seed, i, it.Key())
		}
		i++
	}
	if i != len(model) {
		t.Fatalf("seed %d: %d entries of %d", seed, i, len(model))
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		if i--; sstable.Compare(it.Key(), model[i]) != 0 {
			t.Fatalf("seed %d: backward, entry %d is %v", seed, i, it.Key())
		}
	}
	last := uint64(db.commit.lastSeq)
	for _, user := range append(users, []byte("not there"), []byte{0}, []byte("\xff\xff")) {
		for at := uint64(0); at <= last+1; at += 1 + last/40 {
			want, found := newestIn(model, user, sstable.Seq(at))
			value, kind, ok := m.get(user, indexHash(user), sstable.Seq(at))
			if ok != found || ok && (kind != sstable.KindPut || !bytes.Equal(value, user)) {
				t.Fatalf("seed %d: %q at %d: %v, want %v", seed, user, at, ok, found)
			}
			node := m.index.find(user, indexHash(user), at<<8|0xff)
			if ok && m.arena.key(node).Trailer != want.Trailer {
				t.Fatalf("seed %d: %q at %d is %v, want %v", seed, user, at, m.arena.key(node), want)
			}
		}
		i, _ := slices.BinarySearchFunc(model, sstable.MakeKey(user, sstable.SeqMax, 0xff),
			sstable.Compare)
		if ok := it.SeekGE(user); ok != (i < len(model)) ||
			ok && sstable.Compare(it.Key(), model[i]) != 0 {
			t.Fatalf("seed %d: seek %q: %v", seed, user, ok)
		}
		if ok := it.SeekLT(user); ok != (i > 0) || ok && sstable.Compare(it.Key(), model[i-1]) != 0 {
			t.Fatalf("seed %d: seek before %q: %v", seed, user, ok)
		}
	}
}

func newestIn(model []sstable.Key, user []byte, at sstable.Seq) (sstable.Key, bool) {
	k := sstable.MakeKey(user, at, 0xff)
	i, _ := slices.BinarySearchFunc(model, k, sstable.Compare)
	if i < len(model) && bytes.Equal(model[i].User, user) {
		return model[i], true
	}
	return sstable.Key{}, false
}

// TestPointIndexSharesOneSlot gives every key the same hash and has several goroutines insert
// versions of a few keys: probing goes past other keys, and versions end up newest first whatever
// order they came in.
func TestPointIndexSharesOneSlot(t *testing.T) {
	const keys, versions, goroutines, words = 5, 400, 4, nodeHeader + 1
	a, err := newArena(8*(firstOffset+keys*versions*words), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, same := range []bool{true, false} {
		clear(a.slots)
		var x pointIndex
		x.init(a)
		hash := func(key int) uint64 {
			if same {
				return 1 << 40
			}
			return uint64(key) << 32
		}
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				for i := g; i < keys*versions; i += goroutines {
					at, key := uint32(firstOffset+i*words), i%keys
					k := sstable.MakeKey(fmt.Appendf(nil, "%d", key), sstable.Seq(i+1), sstable.KindPut)
					a.writeNode(at, 0, k, nil)
					x.insert(at, hash(key))
				}
			})
		}
		wg.Wait()
		for key := range keys {
			user := fmt.Appendf(nil, "%d", key)
			for seq := uint64(0); seq <= keys*versions; seq++ {
				want := uint64(0) // the last i+1 <= seq with i%keys == key
				if seq > uint64(key) {
					want = seq - (seq-1-uint64(key))%keys
				}
				node := x.find(user, hash(key), seq<<8|0xff)
				if got := uint64(0); node != 0 {
					got = a.words[node+1] >> 8
					if got != want {
						t.Fatalf("key %d at %d: version %d, want %d", key, seq, got, want)
					}
				} else if want != 0 {
					t.Fatalf("key %d at %d: nothing, want %d", key, seq, want)
				}
			}
		}
		if x.find([]byte("absent"), hash(0), ^uint64(0)) != 0 {
			t.Error("found what is not there")
		}
	}
}

// TestIndexFullBeforeArena: tiny pairs fill the index first; the memtable is full then, and a batch
// of more of them than an ordinary index takes gets a larger one.
func TestIndexFullBeforeArena(t *testing.T) {
	db := memtableDB(t, 64<<10, nil)
	n := 0
	for ; ; n++ {
		var b Batch
		b.Put([]byte{byte(n), byte(n >> 8)}, nil)
		if !commitTo(db, &b) {
			break
		}
	}
	m := db.commit.mem
	if uint64(n) != m.index.entriesMax() || m.used+64 > int64(len(m.arena.bytes)) {
		t.Errorf("full with %d entries in %d bytes", n, m.used)
	}
	p := arenaPool{bytes: 64 << 10}
	a, err := p.get(1<<10, 5000)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(a.slots) / 4 * 3; got < 5000 {
		t.Errorf("room for %d entries of 5000", got)
	}
	p.put(a)
	if len(p.spare) != 0 {
		t.Error("an arena of another shape is kept")
	}
}

// TestIteratorBesideWritersSeesItsMoment: the order is asked for while writers go on.
func TestIteratorBesideWritersSeesItsMoment(t *testing.T) {
	db := memtableDB(t, 8<<20, nil)
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := range 5000 {
				var b Batch
				b.Put(fmt.Appendf(nil, "%d.%d", g, i), nil)
				b.Put(fmt.Appendf(nil, "%d.%d'", g, i), nil)
				if !commitTo(db, &b) {
					panic("the arena of the test is too small")
				}
			}
		})
	}
	m := db.commit.mem
	for range 20 {
		seq := db.published.seq()
		it := sstable.NewMerge(&runIter{run: db.order(m, db.published.seq(), nil)}, &listIter{list: &m.list})
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			if it.Key().Seq() <= seq {
				n++
			}
		}
		if n != int(seq) {
			t.Fatalf("%d entries of %d", n, seq)
		}
	}
	wg.Wait()
}

func BenchmarkMemtablePut(b *testing.B) {
	for _, ordered := range []bool{false, true} {
		b.Run(fmt.Sprintf("ordered=%v", ordered), func(b *testing.B) {
			const entries = 400_000
			a, err := newArena(128<<20, entries)
			if err != nil {
				b.Fatal(err)
			}
			defer a.free()
			var m memtable
			value := make([]byte, 100)
			key := make([]byte, 16)
			r := rand.New(rand.NewPCG(1, 1))
			b.ResetTimer()
			for i := range b.N {
				if i%entries == 0 {
					b.StopTimer()
					clear(a.slots)
					m = memtable{}
					m.init(a, nil)
					m.links = ordered
					b.StartTimer()
				}
				var batch Batch
				for j := range key {
					key[j] = byte(r.Uint32())
				}
				batch.Put(key, value)
				at, links, _ := m.reserve(&batch)
				m.apply(&batch, at, links, sstable.Seq(i+1))
			}
		})
	}
}

func BenchmarkMemtableOrder(b *testing.B) {
	const entries = 400_000
	db := new(DB)
	a, err := newArena(128<<20, entries)
	if err != nil {
		b.Fatal(err)
	}
	defer a.free()
	m := new(memtable)
	m.init(a, nil)
	db.commit.mem = m
	r := rand.New(rand.NewPCG(1, 1))
	for i := range entries {
		var batch Batch
		batch.Put(fmt.Appendf(nil, "%016x", r.Uint64()), make([]byte, 100))
		at, links, _ := m.reserve(&batch)
		m.apply(&batch, at, links, sstable.Seq(i+1))
	}
	m.full.Store(true)
	b.ResetTimer()
	for range b.N {
		if r := m.run.Swap(nil); r != nil {
			r.free()
		}
		db.order(m, 1, nil)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
}

// TestIdleDatabaseGivesMemoryBack: spare arenas and the unused part of the current one, while what
// is in it stays.
func TestIdleDatabaseGivesMemoryBack(t *testing.T) {
	mem := vfs.NewMem()
	o := roomyOptions(mem)
	o.MemtableBytes = 4 << 20
	db := mustOpen(t, "data", o)
	value := bytes.Repeat([]byte("v"), 1000)
	put := func(from, to int) {
		for i := from; i < to; i++ {
			if err := db.Put(fmt.Appendf(nil, "%06d", i), value, NoSync); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(0, 10_000)
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	put(10_000, 10_500)
	awaitRest(db)  // else the cleaner may come with an arena
	db.idle.Stop() // one at a time
	db.trimMemory()
	db.arenas.mu.Lock()
	spare := len(db.arenas.spare)
	db.arenas.mu.Unlock()
	if spare != 0 {
		t.Errorf("%d spare arenas", spare)
	}
	a := db.commit.mem.arena
	if at := len(a.bytes) - 100_000; at < int(db.commit.mem.used) || a.bytes[at] != 0 {
		t.Error("the unused memory is as it was")
	}
	put(10_500, 14_000)
	for i := range 14_000 {
		got, err := db.Get(fmt.Appendf(nil, "%06d", i))
		if err != nil || !bytes.Equal(got, value) {
			t.Fatalf("%d: %d bytes, %v", i, len(got), err)
		}
	}
	mustClose(t, db)
	db.trimMemory() // a timer that was too late for Close
}

// TestOrderAskedAgain: sorting again and again is for memtables that grow fast in between; others
// keep their order from then on, and one without new entries is left as it is.
func TestOrderAskedAgain(t *testing.T) {
	db := memtableDB(t, 1<<20, nil)
	m := db.commit.mem
	put := func(n int) {
		for range n {
			var b Batch
			b.Put(fmt.Appendf(nil, "%d", m.entries*7919%1000), nil)
			if !commitTo(db, &b) {
				t.Fatal("the arena of the test is too small")
			}
		}
	}
	look := func(runs, listed int) {
		t.Helper()
		r := db.order(m, db.published.seq(), nil)
		inList := 0
		for n := m.list.first(); n != 0; n = m.list.next(n) {
			inList++
		}
		if len(r.items) != runs || inList != listed {
			t.Errorf("%d sorted and %d in the list, want %d and %d", len(r.items), inList, runs, listed)
		}
	}
	put(100)
	look(100, 0)
	look(100, 0)
	put(100)
	look(200, 0)
	put(10) // a few: the order is kept from here on
	look(210, 0)
	put(10)
	look(210, 10)
	put(1000)
	look(210, 1010)
}

// TestOrderAwaitsWhatIsBeingWritten: space that was reserved holds anything until its commit is
// done.
func TestOrderAwaitsWhatIsBeingWritten(t *testing.T) {
	db := memtableDB(t, 64<<10, nil)
	m := db.commit.mem
	var first, second Batch
	first.Put([]byte("b"), nil)
	finish := reserveOnly(db, &first)
	second.Put([]byte("a"), nil)
	finishSecond := reserveOnly(db, &second)
	sorted := make(chan *memRun)
	go func() { sorted <- db.order(m, 1, nil) }()
	select {
	case r := <-sorted:
		t.Fatalf("sorted %d entries before they were written", len(r.items))
	case <-time.After(20 * time.Millisecond):
	}
	finish()
	finishSecond()
	if r := <-sorted; len(r.items) != 2 || string(m.arena.key(r.items[0].node).User) != "a" {
		t.Errorf("%d entries", len(r.items))
	}
}

// TestFlushedMemtablesAreGone: each memtable linked to the next, and somebody kept the first of
// all, so that the sorted runs of all memtables ever filled stayed in memory.
func TestFlushedMemtablesAreGone(t *testing.T) {
	db := mustOpen(t, "data", roomyOptions(vfs.NewMem()))
	var runs []weak.Pointer[memRun]
	for i := range 20 {
		if err := db.Put(fmt.Appendf(nil, "%d", i), nil, NoSync); err != nil {
			t.Fatal(err)
		}
		db.commit.Lock()
		m := db.commit.mem
		db.commit.Unlock()
		runs = append(runs, weak.Make(db.order(m, db.published.seq(), nil)))
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	awaitRest(db)
	runtime.GC()
	alive := 0
	for _, r := range runs {
		if r.Value() != nil {
			alive++
		}
	}
	if alive > 1 {
		t.Errorf("%d of 20 are still there", alive)
	}
	mustClose(t, db)
}

// The order of a memtable that was never flushed, of a database opened for reading say, is off the Go
// heap, and Close left it there.
func TestCloseFreesOrderOfMemtable(t *testing.T) {
	mem := vfs.NewMem()
	o := Options{FS: mem}
	db := mustOpen(t, "data", o)
	const entries = 40_000 // two megabytes to order
	for i := range entries {
		if err := db.Put(fmt.Appendf(nil, "%d", i), nil, NoSync); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, db)
	o.ReadOnly = true
	db = mustOpen(t, "data", o)
	it := db.NewIter(IterOptions{})
	n := 0
	for range it.All() {
		n++
	}
	state := db.state.Load()
	run := append(state.frozen, state.mem)[0].run.Load()
	if err := it.Close(); err != nil || n != entries || len(run.memory.Bytes) == 0 {
		t.Fatalf("%d entries, %d bytes, %v", n, len(run.memory.Bytes), err)
	}
	mustClose(t, db)
	if len(run.memory.Bytes) != 0 {
		t.Errorf("%d bytes are left", len(run.memory.Bytes))
	}
}

// TestFrozenMemtableIsSortedOnce: an iterator asks up to a number that is beyond what a full
// memtable has, and each of them sorted it again while its flush waited.
func TestFrozenMemtableIsSortedOnce(t *testing.T) {
	db := memtableDB(t, 64<<10, nil)
	m := db.commit.mem
	var b Batch
	b.Put([]byte("k"), nil)
	if !commitTo(db, &b) {
		t.Fatal("the arena of the test is too small")
	}
	m.full.Store(true)
	if a, b := db.order(m, 5, nil), db.order(m, 6, nil); a != b {
		t.Error("sorted twice")
	}
}
