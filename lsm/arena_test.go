package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"kvd/lsm/vfs"
	"kvd/sstable"
)

// apply is what a commit does to a memtable; it reports whether the batch had room.
func applyTo(m *memtable, b *Batch, base sstable.Seq) bool {
	at, links, ok := m.reserve(b)
	if ok {
		m.apply(b, at, links, base)
	}
	return ok
}

func getFrom(m *memtable, key string, at sstable.Seq) ([]byte, sstable.Kind, bool) {
	return m.get([]byte(key), indexHash([]byte(key)), at)
}

// TestArenaFullAtEveryByte fills a small memtable to every length and then offers it pairs that just
// fit and that just do not, of every length around what is left.
func TestArenaFullAtEveryByte(t *testing.T) {
	const size = 1 << 10
	a, err := newArena(size, 0)
	if err != nil {
		t.Fatal(err)
	}
	first, second := []byte("first"), []byte("second")
	value := bytes.Repeat([]byte{0xab}, size)
	for fill := range size {
		for off := -8; off <= 8; off++ {
			var m memtable
			clear(a.slots)
			m.init(a, nil)
			for i := range a.words[firstOffset:] {
				a.words[firstOffset+i] = 0xdbdbdbdbdbdbdbdb // of its last life
			}
			var b Batch
			b.Put(first, value[:fill])
			if !applyTo(&m, &b, 1) {
				return // the rest is longer than the arena
			}
			left := int(int64(len(a.bytes)) - m.used)
			b.Reset()
			b.Put(second, nil)
			n := left - int(b.nodeBytes) + off
			if n < 0 {
				continue
			}
			b.Reset()
			b.Put(second, value[:n])
			fits := b.nodeBytes <= int64(left)
			if applyTo(&m, &b, 2) != fits || m.used > int64(len(a.bytes)) {
				t.Fatalf("%d bytes left, %d needed: fits %v", left, b.nodeBytes, !fits)
			}
			for key, want := range map[string]int{"first": fill, "second": n} {
				got, _, ok := getFrom(&m, key, 2)
				if key == "second" && !fits {
					want, ok = 0, !ok
				}
				if !ok || !bytes.Equal(got, value[:want]) {
					t.Fatalf("fill %d, %d left, second of %d: %s has %d bytes, %v", fill, left, n,
						key, len(got), ok)
				}
			}
		}
	}
	t.Error("the arena was never full")
}

// TestBatchesAroundTheMemtable commits batches of a quarter, a half, one and two memtables, give or
// take every byte, as one pair and as several.
func TestBatchesAroundTheMemtable(t *testing.T) {
	mem := vfs.NewMem()
	o := tinyOptions(mem)
	db := mustOpen(t, "data", o)
	value := bytes.Repeat([]byte("0123456789abcdef"), int(o.MemtableBytes)/4)
	want := map[string]int{}
	var b Batch
	for _, base := range []int64{o.MemtableBytes / 4, o.MemtableBytes / 2, o.MemtableBytes,
		2 * o.MemtableBytes} {
		for off := -20; off <= 20; off++ {
			for pairs := 1; pairs <= 4; pairs += 3 {
				b.Reset()
				for i := range pairs {
					key, n := fmt.Sprintf("%d.%d.%d.%d", base, off, pairs, i), (int(base)+off)/pairs
					b.Put([]byte(key), value[:n])
					want[key] = n
				}
				if err := db.Apply(&b, NoSync); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for round := range 2 {
		for key, n := range want {
			if got, err := db.Get([]byte(key)); err != nil || !bytes.Equal(got, value[:n]) {
				t.Fatalf("round %d: %s: %d bytes of %d, %v", round, key, len(got), n, err)
			}
		}
		if err := db.Check(); err != nil {
			t.Fatal(err)
		}
		mustClose(t, db)
		db = mustOpen(t, "data", o)
	}
	mustClose(t, db)
}

// TestEndOfTheLargestMemtable works at the very end of the largest arena there may be, where the
// index of a word is near its 32 bits and a byte offset is beyond them. The pages in between are
// never touched.
func TestEndOfTheLargestMemtable(t *testing.T) {
	a, err := newArena(memtableBytesMax, 0)
	if err != nil {
		t.Skip("no address space of that size: ", err)
	}
	defer a.free()
	var m memtable
	m.init(a, nil)
	var b Batch
	b.Put([]byte("at the start"), []byte("1"))
	if !applyTo(&m, &b, 1) {
		t.Fatal("no room at the start")
	}
	b.Reset()
	b.Put([]byte("at the end"), bytes.Repeat([]byte("2"), 1000))
	b.Delete([]byte("at the start"))
	m.used = int64(len(a.bytes)) - b.nodeBytes
	if !applyTo(&m, &b, 2) || m.used != int64(len(a.bytes)) {
		t.Fatalf("no room at the end: %d of %d bytes", m.used, len(a.bytes))
	}
	if applyTo(&m, &b, 4) {
		t.Error("room beyond the end")
	}
	value, _, ok := getFrom(&m, "at the end", 9)
	if _, kind, found := getFrom(&m, "at the start", 9); !ok || len(value) != 1000 || !found ||
		kind != sstable.KindDelete {
		t.Errorf("%d bytes, %v, %v, %v", len(value), ok, kind, found)
	}
}

// TestFlushRefusesToLoseEntries: a memtable that does not give back what was committed to it is not
// flushed. The log still has it, and the next Open finds everything there.
func TestFlushRefusesToLoseEntries(t *testing.T) {
	const reaching = 40 << 32 // a node reaches over the next ones
	flushDamaged(t, reaching)
}

// A length that shrank made nodes of a value, more than there was room for: the sort panicked.
func TestFlushRefusesToInventEntries(t *testing.T) {
	const shrinking = -(48 << 32) // of 49 bytes: the zeros look like two nodes
	flushDamaged(t, shrinking)
}

// flushDamaged changes the length of the first value of a memtable and demands that the flush fails
// for that, and that nothing is lost.
func flushDamaged(t *testing.T, delta int64) {
	t.Helper()
	mem := vfs.NewMem()
	db := mustOpen(t, "data", roomyOptions(mem))
	for i := range 10 {
		value := append([]byte{byte(i)}, make([]byte, 48)...)
		if err := db.Put(fmt.Appendf(nil, "k%d", i%7), value, Sync); err != nil {
			t.Fatal(err)
		}
	}
	db.commit.Lock()
	db.commit.mem.arena.words[firstOffset] += uint64(delta)
	db.commit.Unlock()
	err := db.Flush()
	if !errors.Is(err, errEntriesLost) || !errors.Is(err, ErrReadOnly) {
		t.Errorf("Flush: %v", err)
	}
	if err := db.Put([]byte("k"), nil, NoSync); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Put: %v", err)
	}
	if err := db.Close(); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Close: %v", err)
	}
	db = mustOpen(t, "data", roomyOptions(mem))
	for i := range 7 {
		if got, err := db.Get(fmt.Appendf(nil, "k%d", i)); err != nil || int(got[0])%7 != i {
			t.Errorf("k%d is %v, %v", i, got, err)
		}
	}
	mustClose(t, db)
}
