package lsm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kvd/lsm/vfs"
	"kvd/sstable"
	"kvd/sstable/offheap"
)

// TestBatchesAreAtomicForReaders has writers that stamp the keys of a group with one number, each
// batch the next, and readers that must see one number in all keys of a group, and never an older
// one than before; while the tree is flushed, compacted, copied and looked at.
func TestBatchesAreAtomicForReaders(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const groups, keys = 4, 6
	mem := vfs.NewMem()
	o := tinyOptions(mem)
	o.MemtableBytes = 16 << 10
	db := mustOpen(t, "data", o)
	key := func(group, i int) []byte { return fmt.Appendf(nil, "%d-%d", i, group) }
	var stop atomic.Bool
	var acked [groups]atomic.Uint64
	var background, writers sync.WaitGroup
	for group := range groups {
		writers.Go(func() {
			var b Batch
			for n := uint64(1); n <= 1500; n++ {
				b.Reset()
				for i := range keys {
					if n%7 == 0 && i == keys-1 {
						b.Delete(key(group, i)) // and put again: the last in a batch wins
					}
					b.Put(key(group, i), binary.BigEndian.AppendUint64(nil, n))
				}
				if err := db.Apply(&b, Durability(1+n%2)); err != nil {
					t.Error(err)
					return
				}
				acked[group].Store(n)
			}
		})
	}
	// same demands one number of all keys of a group, at least the one acknowledged before.
	same := func(who string, group int, least uint64, get func([]byte) ([]byte, error)) uint64 {
		var first uint64
		for i := range keys {
			value, err := get(key(group, i))
			n := uint64(0)
			if err == nil {
				n = binary.BigEndian.Uint64(value)
			} else if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", who, err)
			}
			if i == 0 {
				first = n
			}
			if n != first || n < least {
				t.Errorf("%s: group %d: key %d has %d, key 0 has %d, acknowledged %d",
					who, group, i, n, first, least)
				stop.Store(true)
			}
		}
		return first
	}
	loop := func(f func()) {
		background.Go(func() {
			for !stop.Load() {
				f()
				runtime.Gosched()
			}
		})
	}
	for range 2 {
		loop(func() { // through snapshots
			var least [groups]uint64
			for g := range groups {
				least[g] = acked[g].Load()
			}
			s := db.NewSnapshot()
			for g := range groups {
				n := same("snapshot", g, least[g], s.Get)
				same("snapshot again", g, n, s.Get)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		loop(func() { // through iterators, both ways
			var least [groups]uint64
			for g := range groups {
				least[g] = acked[g].Load()
			}
			it := db.NewIter(IterOptions{})
			seen := map[string][]byte{}
			for k, v := range it.All() {
				seen[string(k)] = bytes.Clone(v)
			}
			for ok := it.Last(); ok; ok = it.Prev() {
				if !bytes.Equal(seen[string(it.Key())], it.Value()) {
					t.Errorf("%s differs backward", it.Key())
				}
			}
			if err := it.Close(); err != nil {
				t.Error(err)
			}
			for g := range groups {
				same("iterator", g, least[g], func(k []byte) ([]byte, error) {
					if v, ok := seen[string(k)]; ok {
						return v, nil
					}
					return nil, ErrNotFound
				})
			}
		})
		last := map[string]uint64{}
		loop(func() { // no key goes back, and none is behind one of its group read before
			for g := range groups {
				least := acked[g].Load()
				for i := range keys {
					k := key(g, i)
					value, err := db.Get(k)
					if err != nil {
						if !errors.Is(err, ErrNotFound) || least > 0 {
							t.Errorf("%s: %v", k, err)
						}
						continue
					}
					n := binary.BigEndian.Uint64(value)
					if n < last[string(k)] || n < least {
						t.Errorf("%s went from %d to %d", k, max(last[string(k)], least), n)
					}
					last[string(k)], least = n, n
				}
			}
		})
	}
	copies := 0
	loop(func() { // everything else
		err := errors.Join(db.Flush(), db.Compact(context.Background(), nil, nil), db.Check())
		if copies++; copies < 10 {
			err = errors.Join(err, db.Checkpoint(fmt.Sprint("copy", copies)))
		}
		if err != nil {
			t.Error(err)
		}
		_ = db.Metrics().String()
	})
	writers.Wait()
	stop.Store(true)
	background.Wait()
	if err := db.Check(); err != nil {
		t.Error(err)
	}
	mustClose(t, db)
	db = mustOpen(t, "data", o)
	for g := range groups {
		same("reopened", g, acked[g].Load(), db.Get)
	}
	mustClose(t, db)
	if n := mem.OpenFiles(); n != 0 {
		t.Errorf("%d files left open", n)
	}
}

func TestReadYourOwnWrites(t *testing.T) {
	db := mustOpen(t, "data", tinyOptions(vfs.NewMem()))
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 100 {
				key, value := fmt.Appendf(nil, "%d-%d", i%7, w), fmt.Appendf(nil, "%d", i)
				if err := db.Put(key, value, Durability(i%3)); err != nil {
					t.Error(err)
				}
				if got, err := db.Get(key); err != nil || !bytes.Equal(got, value) {
					t.Errorf("wrote %s, read %s, %v", value, got, err)
				}
				if i%10 == 0 {
					if err := db.Delete(key, NoSync); err != nil {
						t.Error(err)
					}
					if got, err := db.Get(key); !errors.Is(err, ErrNotFound) {
						t.Errorf("deleted, read %s, %v", got, err)
					}
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, db)
}

// TestCloseAmidEverything closes while every method is being called: each returns, at the latest
// with ErrClosed, and what was acknowledged is there.
func TestCloseAmidEverything(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for round := range 6 {
		mem := vfs.NewMem()
		db := mustOpen(t, "data", tinyOptions(mem))
		var wg sync.WaitGroup
		var acked [4]int
		until := func(f func(i int) error) {
			wg.Go(func() {
				for i := 0; ; i++ {
					if err := f(i); errors.Is(err, ErrClosed) {
						return
					} else if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for w := range acked {
			until(func(i int) error {
				err := db.Put(fmt.Appendf(nil, "%d-%06d", w, i), make([]byte, 50), Durability(i%3))
				if err == nil {
					acked[w] = i + 1
				}
				return err
			})
		}
		until(func(i int) error {
			if _, err := db.Get(fmt.Appendf(nil, "0-%06d", i)); !errors.Is(err, ErrNotFound) {
				return err
			}
			return nil
		})
		until(func(int) error { return db.Flush() })
		until(func(int) error { return db.Compact(context.Background(), nil, nil) })
		until(func(i int) error { return db.Checkpoint(fmt.Sprint("copy", i)) })
		until(func(int) error { _ = db.Metrics(); return db.Check() })
		time.Sleep(time.Duration(round) * 2 * time.Millisecond) // any moment will do
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if n := mem.OpenFiles(); n != 0 {
			t.Fatalf("%d files left open", n)
		}
		db = mustOpen(t, "data", tinyOptions(mem))
		for w, n := range acked {
			for i := range n {
				if _, err := db.Get(fmt.Appendf(nil, "%d-%06d", w, i)); err != nil {
					t.Fatalf("%d-%06d of %d: %v", w, i, n, err)
				}
			}
		}
		mustClose(t, db)
	}
}

func TestCloseWithIteratorsOpen(t *testing.T) {
	mem := vfs.NewMem()
	db := mustOpen(t, "data", tinyOptions(mem))
	fill := func() {
		for i := range 200 {
			if err := db.Put(fmt.Appendf(nil, "key%03d", i), make([]byte, 50), NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Compact(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	old := db.NewIter(IterOptions{}) // holds tables that are in no version at Close
	old.First()
	fill()
	current := db.NewIter(IterOptions{})
	current.Last()
	s := db.NewSnapshot()
	err := db.Close()
	if err == nil || !strings.Contains(err.Error(), "2 iterators and 1 snapshots") {
		t.Errorf("Close: %v", err)
	}
	if n := mem.OpenFiles(); n != 0 {
		t.Errorf("%d files left open", n)
	}
	for _, it := range []*Iter{old, current} {
		for _, move := range []func() bool{it.Next, it.First, it.Next, it.Last, it.Prev} {
			if move() {
				_, _ = it.Key(), it.Value()
			}
		}
		it.SeekGE([]byte("key1"))
		it.SeekLT([]byte("key1"))
		_ = it.Close()
	}
	if _, err := s.Get([]byte("key001")); !errors.Is(err, ErrClosed) {
		t.Errorf("Get of a snapshot: %v", err)
	}
	if it := s.NewIter(IterOptions{}); it.First() || !errors.Is(it.Close(), ErrClosed) {
		t.Error("an iterator of a snapshot works after Close")
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close of a snapshot: %v", err)
	}
	mustClose(t, mustOpen(t, "data", tinyOptions(mem)))
}

// TestCloseBesideRelease: Close frees the memtables of a state whose last reference was given back,
// but which the cleaner has not been told of yet.
func TestCloseBesideRelease(t *testing.T) {
	before := offheap.Mapped()
	db := mustOpen(t, "data", Options{FS: vfs.NewMem()})
	if err := db.Put([]byte("k"), []byte("v"), NoSync); err != nil {
		t.Fatal(err)
	}
	s := db.acquireState()
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	s.refs.Add(-1) // half of releaseState
	mustClose(t, db)
	if n := offheap.Mapped() - before; n != 0 {
		t.Errorf("%d bytes are left", n)
	}
}

func TestUseAfterClose(t *testing.T) {
	db := mustOpen(t, "data", tinyOptions(vfs.NewMem()))
	if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	key := []byte("k")
	it := db.NewIter(IterOptions{})
	if it.First() || it.Last() || it.SeekGE(key) || it.SeekLT(key) || it.Next() || it.Prev() {
		t.Error("an iterator moves")
	}
	s := db.NewSnapshot()
	_, getErr := db.Get(key)
	_, snapErr := s.Get(key)
	for what, err := range map[string]error{
		"Put": db.Put(key, key, Sync), "Delete": db.Delete(key, NoSync), "Get": getErr,
		"Apply": db.Apply(new(Batch), Sync), "Flush": db.Flush(), "Iter": it.Close(),
		"Compact": db.Compact(t.Context(), nil, nil), "Checkpoint": db.Checkpoint("c"),
		"Check": db.Check(), "Close": db.Close(), "snapshot": snapErr,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if m := db.Metrics(); !strings.Contains(m.State, "closed") {
		t.Errorf("State is %q", m.State)
	}
}

func TestSecondOpenIsLocked(t *testing.T) {
	for name, o := range map[string]Options{"memory": tinyOptions(vfs.NewMem()), "os": {}} {
		dir := "data"
		if o.FS == nil {
			dir = t.TempDir()
		}
		db := mustOpen(t, dir, o)
		if _, err := Open(dir, o); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: second Open: %v", name, err)
		}
		o.ReadOnly = true
		if _, err := Open(dir, o); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: read only: %v", name, err)
		}
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Errorf("%s: the first does not work any more: %v", name, err)
		}
		mustClose(t, db)
		mustClose(t, mustOpen(t, dir, o))
	}
}

func TestLimits(t *testing.T) {
	mem := vfs.NewMem()
	db := mustOpen(t, "data", tinyOptions(mem))
	long, huge := make([]byte, MaxKeyBytes+1), make([]byte, MaxValueBytes+1)
	isKey := func(err error) bool { _, ok := errors.AsType[*KeySizeError](err); return ok }
	isValue := func(err error) bool { _, ok := errors.AsType[*ValueSizeError](err); return ok }
	isBatch := func(err error) bool { _, ok := errors.AsType[*BatchSizeError](err); return ok }
	good := func(b *Batch) { b.Put([]byte("good"), nil) }
	for name, c := range map[string]struct {
		fill func(b *Batch)
		want func(error) bool
	}{
		"empty key":         {func(b *Batch) { b.Put(nil, nil) }, isKey},
		"empty key deleted": {func(b *Batch) { b.Delete([]byte{}) }, isKey},
		"long key":          {func(b *Batch) { b.Put(long, nil) }, isKey},
		"long key deleted":  {func(b *Batch) { b.Delete(long) }, isKey},
		"huge value":        {func(b *Batch) { b.Put([]byte("k"), huge) }, isValue},
		"huge batch": {func(b *Batch) {
			for range MaxBatchBytes/MaxValueBytes + 1 {
				b.Put([]byte("k"), huge[1:])
			}
		}, isBatch},
	} {
		var b Batch
		good(&b)
		c.fill(&b)
		good(&b)
		if err := db.Apply(&b, Sync); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		b.Reset()
		if err := db.Apply(&b, NoSync); err != nil {
			t.Errorf("%s, then Reset: %v", name, err)
		}
	}
	if m := db.Metrics(); m.Sequence != 0 || m.Log.Records != 0 {
		t.Errorf("something was written: %+v", m)
	}
	for _, key := range [][]byte{nil, long} {
		if _, err := db.Get(key); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get of %d bytes: %v", len(key), err)
		}
	}
	// At the limits, and beyond what a memtable holds.
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(long)
	_, _ = r.Read(huge)
	var b Batch
	for i := range 100 {
		b.Put(fmt.Appendf(nil, "batch%03d", i), huge[i:i+1000])
	}
	put := func(key, value []byte) {
		t.Helper()
		if err := db.Put(key, value, NoSync); err != nil {
			t.Fatal(err)
		}
	}
	put(long[1:], huge[1:])
	if err := db.Apply(&b, NoSync); err != nil {
		t.Fatal(err)
	}
	put([]byte("small"), huge[2:])
	for round := range 3 {
		for key, want := range map[string][]byte{
			string(long[1:]): huge[1:], "small": huge[2:], "batch099": huge[99:1099],
		} {
			if got, err := db.Get([]byte(key)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("round %d: key of %d bytes: %d bytes, %v", round, len(key), len(got), err)
			}
		}
		it, n := db.NewIter(IterOptions{}), 0
		for ok := it.Last(); ok; ok = it.Prev() {
			n += len(it.Value())
		}
		if err := it.Close(); err != nil || n != 2*MaxValueBytes-1+100*1000 {
			t.Errorf("round %d: %d bytes, %v", round, n, err)
		}
		if round == 0 {
			mustClose(t, db)
			db = mustOpen(t, "data", tinyOptions(mem))
		} else if err := db.Compact(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, db)
}

func TestReadOnly(t *testing.T) {
	mem := vfs.NewMem()
	o := tinyOptions(mem)
	db := mustOpen(t, "data", o)
	for i := range 300 { // some of it in tables, some in the log
		key := fmt.Appendf(nil, "key%03d", i%200)
		if err := db.Put(key, fmt.Appendf(nil, "%d", i), Async); err != nil {
			t.Fatal(err)
		}
	}
	crashed := mem.Crash(nil, vfs.KeepAll)
	mustClose(t, db)
	o.FS = vfs.NewFault(crashed, func(op vfs.Op) error {
		if op.Kind.Writes() && op.Kind != vfs.OpLock {
			t.Errorf("%v", op)
			return fs.ErrPermission
		}
		return nil
	})
	o.ReadOnly = true
	db = mustOpen(t, "data", o)
	for i := range 200 {
		want := fmt.Sprint(i + 200*(1-i/100))
		if got, err := db.Get(fmt.Appendf(nil, "key%03d", i)); err != nil || string(got) != want {
			t.Errorf("key%03d is %s, %v, want %s", i, got, err, want)
		}
	}
	it, n := db.NewIter(IterOptions{}), 0
	for range it.All() {
		n++
	}
	if err := it.Close(); err != nil || n != 200 {
		t.Errorf("%d keys, %v", n, err)
	}
	key := []byte("k")
	for what, err := range map[string]error{
		"Put": db.Put(key, key, NoSync), "Delete": db.Delete(key, Sync), "Flush": db.Flush(),
		"Compact": db.Compact(t.Context(), nil, nil), "Checkpoint": db.Checkpoint("c"),
		"Apply": db.Apply(new(Batch), Sync),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if m := db.Metrics(); !strings.Contains(m.State, "read only") {
		t.Errorf("State is %q", m.State)
	}
	mustClose(t, db)
}

// TestReadersMakeNoLock: who only reads makes no file, the lock of a copy without one included.
func TestReadersMakeNoLock(t *testing.T) {
	mem := vfs.NewMem()
	o := tinyOptions(mem)
	db := mustOpen(t, "copy", o)
	if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	if err := errors.Join(mem.Remove("copy/"+lockName), mem.MkdirAll("empty")); err != nil {
		t.Fatal(err)
	}
	o.ReadOnly = true
	for dir, want := range map[string]error{"copy": nil, "empty": fs.ErrNotExist, "none": fs.ErrNotExist} {
		db, err := Open(dir, o)
		if !errors.Is(err, want) {
			t.Errorf("Open of %s: %v", dir, err)
		}
		if err == nil {
			mustClose(t, db)
		}
		if _, err := Verify(mem, dir, nil); !errors.Is(err, want) {
			t.Errorf("Verify of %s: %v", dir, err)
		}
		if names, _ := mem.List(dir); slices.Contains(names, lockName) {
			t.Errorf("%s has %v", dir, names)
		}
	}
}

// TestPublishOrder has many commits take their numbers in order and finish in any: what is visible
// is a prefix, and a commit returns once it is in it.
func TestPublishOrder(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		start := sstable.Seq(r.Uint64N(1000))
		var p publisher
		p.init(start)
		const writers, each = 8, 100
		var mu sync.Mutex // the commit lock
		next := start
		done := make([]atomic.Bool, writers*each*3) // finished inserts, by sequence number
		var wg sync.WaitGroup
		for range writers {
			spins := rand.New(rand.NewPCG(seed, r.Uint64()))
			wg.Go(func() {
				for range each {
					n := sstable.Seq(1 + spins.IntN(3))
					mu.Lock()
					first, last := next+1, next+n
					next = last
					mu.Unlock()
					for range spins.IntN(4) * spins.IntN(100) {
						runtime.Gosched()
					}
					for s := first; s <= last; s++ {
						done[s-start-1].Store(true)
					}
					p.publish(first, last)
					if p.seq() < last {
						t.Errorf("seed %d: %d is not visible, only %d", seed, last, p.seq())
					}
				}
			})
		}
		var reader sync.WaitGroup
		var stop atomic.Bool
		reader.Go(func() {
			for at := start; !stop.Load(); runtime.Gosched() {
				for seq := p.seq(); at < seq; at++ {
					if !done[at-start].Load() {
						t.Errorf("seed %d: %d is visible and not finished", seed, at+1)
						return
					}
				}
			}
		})
		wg.Wait()
		p.wait(next)
		stop.Store(true)
		reader.Wait()
		if p.seq() != next || len(p.parked) != 0 || p.waiting.Load() != 0 {
			t.Errorf("seed %d: %d is visible of %d, %d parked", seed, p.seq(), next, len(p.parked))
		}
	}
}

// hardKeys are keys whose abbreviations collide or lie at the ends: runs of 0x00 and 0xff, shared
// prefixes, keys shorter than the prefix, keys that are prefixes of others.
func hardKeys(r *rand.Rand, prefix string, n int) [][]byte {
	parts := []string{"\x00", "\x00\x00\x00\x00", "\xff", "\xff\xff\xff\xff", "a", "ab", "abcd",
		"abcde", "\x7f", "\x80", prefix, prefix[:len(prefix)/2], "z"}
	seen := map[string]bool{}
	for len(seen) < n {
		var b strings.Builder
		if r.IntN(3) > 0 {
			b.WriteString(prefix)
		}
		for range r.IntN(5) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
		if key := b.String(); key != "" {
			seen[key] = true
		}
	}
	var keys [][]byte
	for key := range seen {
		keys = append(keys, []byte(key))
	}
	slices.SortFunc(keys, bytes.Compare)
	r.Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys
}

// TestSkiplistModel holds a skip list against a sorted slice, with and without a prefix, filled by
// one goroutine and by several.
func TestSkiplistModel(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 2))
		prefix := []string{"", "", "pre", "\x00\x00", "\xff\xff\xff", "a long prefix"}[r.IntN(6)]
		users := hardKeys(r, prefix+"p", 150)
		var model []sstable.Key
		for i, user := range users {
			for range 1 + r.IntN(3) {
				seq := sstable.Seq(len(model) + 1)
				model = append(model, sstable.MakeKey(user, seq, sstable.Kind(i%2)))
			}
		}
		arena, err := newArena(256<<10, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range arena.words {
			arena.words[i] = r.Uint64() // of its last life
		}
		var l skiplist
		l.init(arena, []byte(prefix))
		fillSkiplist(&l, model, seed, 1+int(seed%4))
		slices.SortFunc(model, sstable.Compare)
		compareSkiplist(t, seed, &l, model, users, r)
	}
}

// TestSkiplistContention inserts neighbours from several goroutines: all want the same gap.
func TestSkiplistContention(t *testing.T) {
	const goroutines, each, words = 4, 30_000, nodeHeader + heightMax + 1
	arena, err := newArena(8*(firstOffset+goroutines*each*words), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.free()
	var l skiplist
	l.init(arena, nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			key := make([]byte, 8)
			for i := range each {
				n := int(next.Add(1))
				if n%2 == 1 {
					n = 4*goroutines*each - n // downward, from the other end
				}
				binary.BigEndian.PutUint64(key, uint64(n))
				at := firstOffset + uint32(g*each+i)*words
				k := sstable.MakeKey(key, sstable.Seq(n+1), sstable.KindPut)
				height := heightOf(1, uint32(n))
				l.arena.writeNode(at, height, k, nil)
				l.insert(at, height)
			}
		})
	}
	wg.Wait()
	for level := range heightMax {
		count, last := 0, sstable.Key{}
		for at := uint32(l.link(headNode, level)); at != 0; at = uint32(l.link(at, level)) {
			if k := l.arena.key(at); count > 0 && sstable.Compare(last, k) >= 0 {
				t.Fatalf("level %d: %v before %v", level, last, k)
			} else {
				last = k
			}
			count++
		}
		if level == 0 && count != goroutines*each {
			t.Fatalf("%d entries of %d", count, goroutines*each)
		}
	}
}

// fillSkiplist inserts keys from several goroutines; the value of a key is its printed form.
func fillSkiplist(l *skiplist, keys []sstable.Key, seed uint64, goroutines int) {
	var wg sync.WaitGroup
	at := uint32(firstOffset)
	for g := range goroutines {
		var mine []sstable.Key
		var offsets []uint32
		for i, k := range keys {
			if i%goroutines == g {
				mine, offsets = append(mine, k), append(offsets, at)
				height := heightOf(seed, uint32(k.Seq()))
				at += uint32(nodeBytes(len(k.User), len(k.String()), height) / 8)
			}
		}
		wg.Go(func() {
			for i, k := range mine {
				height := heightOf(seed, uint32(k.Seq()))
				end := l.arena.writeNode(offsets[i], height, k, []byte(k.String()))
				l.insert(offsets[i], height)
				if i+1 < len(mine) && end != offsets[i+1] {
					panic("an entry takes other space than was said")
				}
				if node := l.seekGE(k); node == 0 || sstable.Compare(l.arena.key(node), k) != 0 {
					panic("an inserted key is not found")
				}
			}
		})
	}
	wg.Wait()
}

func compareSkiplist(
	t *testing.T, seed uint64, l *skiplist, model []sstable.Key, users [][]byte, r *rand.Rand,
) {
	t.Helper()
	fail := func(what string, node uint32, i int) {
		t.Helper()
		if i < 0 || i >= len(model) {
			if node != 0 {
				t.Fatalf("seed %d: %s is %v, want none", seed, what, l.arena.key(node))
			}
		} else if node == 0 || sstable.Compare(l.arena.key(node), model[i]) != 0 ||
			string(l.arena.value(node)) != model[i].String() {
			t.Fatalf("seed %d: %s is node %d, want %v", seed, what, node, model[i])
		}
	}
	node := l.first()
	for i := 0; i <= len(model); i++ {
		fail("next", node, i)
		if node != 0 {
			node = l.next(node)
		}
	}
	fail("last", l.last(), len(model)-1)
	it := listIter{list: l}
	it.Last()
	for i := len(model) - 1; i >= -1; i-- {
		fail("prev", it.node, i)
		it.Prev()
	}
	for _, user := range append(users, hardKeys(r, string(l.prefix)+"q", 50)...) {
		k := sstable.MakeKey(user, sstable.Seq(r.IntN(len(model)+2)), 0xff)
		i, _ := slices.BinarySearchFunc(model, k, sstable.Compare)
		fail("seekGE "+k.String(), l.seekGE(k), i)
		fail("seekLT "+k.String(), l.seekLT(k), i-1)
		for _, other := range users {
			code := cmp.Compare(l.code(user), l.code(other))
			if order := bytes.Compare(user, other); code != 0 && code != order {
				t.Fatalf("seed %d: prefix %q: the codes of %q and %q order them wrongly",
					seed, l.prefix, user, other)
			}
		}
	}
}
