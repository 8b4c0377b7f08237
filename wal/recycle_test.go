package wal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A file is recycled fifty times; after each life it is cut at every byte, beyond which it holds
// what it held in the life before. Only records of this life are replayed, and a prefix of them.
// Half of the lives begin at the position of the one before, as after a torn tail: then nothing
// but the nonce tells the old frames from the new ones.
func TestRecycledSegmentShowsNoOldRecords(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var before []byte
	start := Pos(0)
	for life := range 50 {
		h := Header{Segment: uint64(life + 1), Nonce: r.Uint64(), Prewritten: int64(len(before))}
		f := newFake(t, h, before)
		w := NewWriter(f, h, start)
		size, step := r.IntN(2<<10), int64(1)
		if life%10 == 9 {
			size, step = r.IntN(10<<10), 64
		}
		recs := recycleLife(t, r, w, life, size)
		used := w.seg.fresh
		for cut := int64(HeaderBytes); cut <= used; cut += step {
			if cut > w.seg.off+frameHeaderBytes {
				step = 512 // padding
			}
			data := overlay(slices.Clone(f.data), nil, 0)
			if n := min(int64(len(before)), used); cut < n {
				copy(data[cut:n], before[cut:n])
			} else {
				clear(data[cut:used])
			}
			got, res, err := replay(start, segmentOf(h.Segment, data))
			if err != nil || !isPrefix(got, recs) {
				t.Fatalf("seed %d, life %d, cut at %d: %d records, %+v, %v",
					seed, life, cut, len(got), res, err)
			}
			if cut >= w.seg.off && len(got) != len(recs) {
				t.Fatalf("seed %d, life %d: %d of %d records", seed, life, len(got), len(recs))
			}
		}
		if r.IntN(2) == 0 {
			start = w.End()
		}
		before = slices.Clone(f.data[:min(len(f.data), 12<<10)])
	}
}

// recycleLife writes records of about size bytes and returns them.
func recycleLife(t *testing.T, r *rand.Rand, w *Writer, life, size int) (recs []string) {
	for left := size; left > 0; {
		rec := fmt.Sprintf("life %d:%s", life, strings.Repeat("x", r.IntN(1+min(left, 1000))))
		left -= len(rec)
		recs = append(recs, rec)
		p := w.Append([]byte(rec))
		if r.IntN(3) == 0 {
			if err := w.Write(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Write(NoPos); err != nil {
		t.Fatal(err)
	}
	return recs
}
