package lsm

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"kvd/lsm/vfs"
)

// held is an iterator that stays open while the tree changes, with the pairs of its moment.
type held struct {
	it         *Iter
	keys       []string
	pairs      map[string]string
	at         int
	key, value []byte // as they were handed out at the last move
}

// check says whether the iterator is where it should be, with what it handed out untouched.
func (h *held) check() error {
	k := h.keys[h.at]
	if string(h.key) != k || string(h.value) != h.pairs[k] {
		return fmt.Errorf("a held iterator is at %q = %.20q, want %q = %.20q", h.key, h.value, k,
			h.pairs[k])
	}
	return nil
}

// move goes to the next or previous pair, or to the first.
func (h *held) move(r *rand.Rand) error {
	ok := false
	switch {
	case h.key == nil || r.IntN(30) == 0:
		h.at, ok = 0, h.it.First()
	case r.IntN(3) == 0 && h.at > 0:
		h.at, ok = h.at-1, h.it.Prev()
	case h.at+1 < len(h.keys):
		h.at, ok = h.at+1, h.it.Next()
	default:
		h.at, ok = len(h.keys)-1, h.it.Last()
	}
	if !ok {
		return fmt.Errorf("a held iterator does not move: %v", h.it.Err())
	}
	h.key, h.value = h.it.Key(), h.it.Value()
	return nil
}

// TestHeldMemoryIsNotReused keeps iterators open while memtables are flushed and their arenas
// poisoned and reused, tables compacted away and cached blocks evicted. What an iterator handed
// out stays as it is until it moves, and it walks the pairs of its moment.
func TestHeldMemoryIsNotReused(t *testing.T) {
	moves := 0
	until := time.Now().Add(*budget)
	for seed := uint64(0); seed < 4 || time.Now().Before(until); seed++ {
		r := rand.New(rand.NewPCG(seed, 8))
		o := tinyOptions(vfs.NewMem())
		o.CacheBytes = []int64{-1, 2 << 10, 8 << 10, 1 << 20}[seed%4]
		db := mustOpen(t, "data", o)
		model := map[string]string{}
		var open []*held
		for step := range 1500 {
			key, value := fmt.Sprint(r.IntN(200)), fmt.Sprintf("%d:%x", step, make([]byte, r.IntN(100)))
			model[key] = value
			if err := db.Put([]byte(key), []byte(value), NoSync); err != nil {
				t.Fatal(err)
			}
			poison(db)
			if len(open) < 6 && r.IntN(20) == 0 {
				h := &held{it: db.NewIter(IterOptions{}), pairs: maps.Clone(model)}
				h.keys = slices.Sorted(maps.Keys(h.pairs))
				if err := h.move(r); err != nil {
					t.Fatal(err)
				}
				open = append(open, h)
			}
			for i, h := range open {
				if err := h.check(); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, step, err)
				}
				if r.IntN(2) == 0 {
					if err := h.move(r); err != nil {
						t.Fatalf("seed %d, step %d: %v", seed, step, err)
					}
					moves++
				}
				if r.IntN(200) == 0 {
					if err := h.it.Close(); err != nil {
						t.Fatal(err)
					}
					open = slices.Delete(open, i, i+1)
					break
				}
			}
		}
		for _, h := range open {
			if err := h.it.Close(); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, db)
	}
	count(t, "operations", int64(moves))
}

// poison overwrites the arenas that wait for their next use.
func poison(db *DB) {
	db.arenas.mu.Lock()
	defer db.arenas.mu.Unlock()
	for _, a := range db.arenas.spare {
		copy(a.bytes, bytes.Repeat([]byte{0xdb}, len(a.bytes)))
	}
}
