package compaction

import (
	"math/rand/v2"
	"slices"
	"testing"

	"kvd/sstable"
)

// randomLevel returns disjoint tables over one-byte keys.
func randomLevel(r *rand.Rand, num *uint64) []*sstable.Meta {
	var out []*sstable.Meta
	for at := r.IntN(20); at < 235; at += 1 + r.IntN(20) {
		lo := byte(at)
		at += r.IntN(8)
		*num++
		out = append(out, rangeTable(*num, lo, byte(at)))
	}
	return out
}

func rangeTable(num uint64, lo, hi byte) *sstable.Meta {
	return &sstable.Meta{Num: num, Bytes: num, Entries: 1, MinSeq: 1, MaxSeq: 1,
		Smallest: sstable.MakeKey([]byte{lo}, 1, sstable.KindPut),
		Largest:  sstable.MakeKey([]byte{hi}, 1, sstable.KindPut)}
}

// TestOverlaps compares the searches with looking at every table.
func TestOverlaps(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var num uint64
	for range 200 {
		l := Levels{1: randomLevel(r, &num)}
		for range 100 {
			lo, hi := []byte{byte(r.IntN(256))}, []byte{byte(r.IntN(256))}
			if lo[0] > hi[0] {
				lo, hi = hi, lo
			}
			if r.IntN(8) == 0 {
				lo = nil
			}
			if r.IntN(8) == 0 {
				hi = nil
			}
			var want []*sstable.Meta
			for _, m := range l[1] {
				if m.Overlaps(lo, hi) {
					want = append(want, m)
				}
			}
			if got := l.Overlaps(1, lo, hi); !slices.Equal(got, want) {
				t.Fatalf("[%v %v] of %v: %v, want %v", lo, hi, nums(l[1]), nums(got), nums(want))
			}
		}
	}
}

// TestApply replaces random stretches of a level and compares with doing it the slow way: what
// Check accepts Apply must accept and the reverse. The level changed stays as it was.
func TestApply(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	var num uint64
	accepted, refused := 0, 0
	var memo sizeMemo
	for range 20_000 {
		l := Levels{3: randomLevel(r, &num)}
		before := slices.Clone(l[3])
		var c Change
		var want []*sstable.Meta
		keepOne := r.IntN(2)
		for _, m := range l[3] {
			if r.IntN(3) < keepOne {
				c.Removed[3] = append(c.Removed[3], m)
			} else {
				want = append(want, m)
			}
		}
		for _, m := range c.Removed[3] {
			if r.IntN(2) == 0 {
				num++
				end := m.Largest.User[0] + byte(r.IntN(3)*r.IntN(3))
				c.Added[3] = append(c.Added[3], rangeTable(num, m.Smallest.User[0], end))
			}
		}
		expect := Levels{3: append(want, c.Added[3]...)}
		expect.Sort()
		valid := expect.Check() == nil
		next, err := l.Apply(&c)
		if !slices.Equal(l[3], before) {
			t.Fatal("Apply changed its input")
		}
		if (err == nil) != valid {
			t.Fatalf("Apply: %v; Check: %v", err, expect.Check())
		}
		if err != nil {
			refused++
			continue
		}
		accepted++
		if !slices.Equal(next[3], expect[3]) {
			t.Fatalf("got %v, want %v", nums(next[3]), nums(expect[3]))
		}
		memo.of(&l)
		if got := memo.of(&next); got != next.Sizes() {
			t.Fatalf("remembered sizes %v, want %v", got, next.Sizes())
		}
	}
	if accepted < 1000 || refused < 1000 {
		t.Errorf("%d accepted, %d refused: the test tests little", accepted, refused)
	}
}

func TestApplyRefuses(t *testing.T) {
	type lists = [NumLevels][]*sstable.Meta
	l := Levels{0: {rangeTable(9, 1, 5)}, 2: {rangeTable(1, 1, 5), rangeTable(2, 7, 9)}}
	for name, c := range map[string]Change{
		"a table that is not there":   {Removed: lists{2: {rangeTable(3, 1, 5)}}},
		"a table beyond the last":     {Removed: lists{2: {rangeTable(3, 50, 51)}}},
		"an unknown level-0 table":    {Removed: lists{0: {rangeTable(3, 1, 5)}}},
		"overlap with the one before": {Added: lists{2: {rangeTable(3, 5, 6)}}},
		"overlap with the one after":  {Added: lists{2: {rangeTable(3, 6, 7)}}},
		"added tables that overlap": {Added: lists{2: {rangeTable(3, 20, 22),
			rangeTable(4, 22, 23)}}},
	} {
		if _, err := l.Apply(&c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestPressure: 0 exactly when no level is above its target, and no jumps as a level grows.
func TestPressure(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	c := Config{BaseBytes: 1 << 20}.WithDefaults()
	for range 20_000 {
		s := Sizes{bottomLevel: 1 << (10 + r.Uint64N(24))}
		for i := 1; i < bottomLevel; i++ {
			if r.IntN(2) == 0 {
				s[i] = r.Uint64N(s[bottomLevel])
			}
		}
		zero := float64(r.IntN(8))
		s[0] = uint64(zero) * r.Uint64N(1<<19)
		targets := c.Targets(&s)
		scores := c.Scores(&s, &targets, zero)
		above := slices.Max(scores[:]) > 1
		if p := c.Pressure(&s, zero); (p > 0) != above && c.Debt(&s, zero) != 0 {
			t.Fatalf("pressure %v with scores %v, sizes %v, targets %v", p, scores, s, targets)
		}
	}
	// A job that has just been installed, and one that has read all of level 0.
	job := Job{Level: 0, Target: 6, Inputs: [2][]*sstable.Meta{{{Bytes: 9 << 20, Entries: 9}}, nil}}
	after := Levels{6: {{Bytes: 9 << 20, Entries: 9}}}
	if p := Pressure(&after, c, []Progress{{&job, 9}}); p != 0 {
		t.Errorf("after a job was installed the pressure is %v", p)
	}
	before := Levels{0: job.Inputs[0]}
	for read, want := range map[uint64]bool{0: true, 9: false, 99: false} {
		if p := Pressure(&before, c, []Progress{{&job, read}}); p > 0 != want {
			t.Errorf("with %d of 9 entries read the pressure is %v", read, p)
		}
	}
	huge := Config{BaseBytes: 1 << 63, TableBytes: 1 << 63}
	if p := Pressure(&before, huge, nil); p != 0 {
		t.Errorf("with a base level of 8 EiB the pressure is %v", p)
	}
	var prev float64
	for size := uint64(1 << 20); size < 1<<30; size += 1 << 14 {
		s := Sizes{5: size, bottomLevel: 10 << 30}
		p := c.Pressure(&s, 0)
		if p < prev || p > prev+0.02 {
			t.Fatalf("pressure goes from %.4f to %.4f at %d bytes", prev, p, size)
		}
		prev = p
	}
}
