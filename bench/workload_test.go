package bench

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
)

func testChooser(t testing.TB, name string, keys uint64) *chooser {
	t.Helper()
	spec, load, err := Spec{Workload: name, Keys: keys}.resolve()
	if err != nil {
		t.Fatal(err)
	}
	space, err := NewKeyspace(keys, spec.KeyBytes, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := &chooser{load: &load, space: space, front: &frontier{}, sequence: new(atomic.Uint64),
		limit: spec.Ops, random: rand.New(rand.NewPCG(1, 2)), zipf: NewZipf(keys, ZipfTheta)}
	c.front.start(keys)
	return c
}

func TestWorkloadShares(t *testing.T) {
	for _, w := range Workloads() {
		sum := 0.0
		for _, s := range w.Share {
			sum += s
		}
		if math.Abs(sum-1) > 1e-12 {
			t.Errorf("%s: shares sum to %v", w.Name, sum)
		}
		c := testChooser(t, w.Name, 1000)
		var got [kindCount]float64
		var op operation
		total := 0.0
		for total < 20_000 && c.next(&op) {
			got[op.kind]++
			total++
			if op.kind == Insert && !w.Fill {
				c.front.finish(op.place, true)
			}
		}
		for k := range got {
			if math.Abs(got[k]/total-c.load.Share[k]) > 0.01 {
				t.Errorf("%s: %s is %.3f of the operations, want %.3f",
					w.Name, Kind(k), got[k]/total, c.load.Share[k])
			}
		}
	}
}

func TestFillsCoverEveryKeyOnce(t *testing.T) {
	for _, name := range []string{"fillseq", "fillrandom"} {
		c := testChooser(t, name, 1000)
		seen := map[Number]int{}
		ordered := true
		var op operation
		for last := Number(0); c.next(&op); last = op.number {
			seen[op.number]++
			ordered = ordered && op.number >= last
		}
		if len(seen) != 1000 || ordered != (name == "fillseq") {
			t.Errorf("%s: %d different keys, in order: %v", name, len(seen), ordered)
		}
	}
}

func TestMissingKeysNeverExist(t *testing.T) {
	const keys = 200
	f := newFake()
	for _, name := range []string{"fillrandom", "ycsb-d"} {
		if _, err := Run(t.Context(), f, Spec{Workload: name, Keys: keys, Ops: 5000}); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.pairs) <= keys {
		t.Fatalf("%d pairs: nothing was inserted", len(f.pairs))
	}
	r, err := Run(t.Context(), f, Spec{Workload: "readmissing", Keys: keys, Ops: 5000})
	if err != nil {
		t.Fatal(err)
	}
	if o := r.Operation(Read); o.Missing != 5000 {
		t.Errorf("%d of 5000 missed, warnings %q", o.Missing, r.Warnings)
	}
}

func TestLatestFollowsInserts(t *testing.T) {
	const keys = 1000
	c := testChooser(t, "ycsb-d", keys)
	age := map[Number]uint64{}
	for i := range uint64(keys) {
		age[c.place(i)] = i
	}
	var op operation
	recent, reads := 0, 0
	for range 50_000 {
		c.next(&op)
		if op.kind == Insert {
			age[op.number] = op.place
			c.front.finish(op.place, true)
			continue
		}
		reads++
		born, ok := age[op.number]
		if !ok {
			t.Fatalf("read of key %x, which is not there yet", op.number)
		}
		if c.front.known.Load()-born <= 10 {
			recent++
		}
	}
	// zeta(10)/zeta(1000) at 0.99 = 0.39
	if share := float64(recent) / float64(reads); share < 0.36 || share > 0.42 {
		t.Errorf("%.2f of the reads are of the ten latest keys", share)
	}
}

func TestFrontierWaitsForTheOldest(t *testing.T) {
	var f frontier
	a, b, c := f.take(), f.take(), f.take()
	f.finish(c, true)
	f.finish(b, false)
	if f.known.Load() != 0 || f.failed.Load() != 1 {
		t.Errorf("known %d before the first insert ended", f.known.Load())
	}
	for range 10_000 { // a stuck insert holds the frontier however many others end
		f.finish(f.take(), true)
	}
	if f.known.Load() != 0 || len(f.under) != 1 {
		t.Errorf("known %d, %d under way, while the first is stuck", f.known.Load(), len(f.under))
	}
	f.finish(a, true)
	if f.known.Load() != 10_003 {
		t.Errorf("known %d, want 10003", f.known.Load())
	}
}

func TestScanLengths(t *testing.T) {
	c := testChooser(t, "ycsb-e", 1000)
	var op operation
	lengths := map[int]int{}
	for range 50_000 {
		if c.next(&op); op.kind == Scan {
			lengths[op.count]++
		}
	}
	if len(lengths) != 100 || lengths[0] != 0 || lengths[101] != 0 {
		t.Errorf("%d different lengths", len(lengths))
	}
	for n, times := range lengths {
		if times < 350 || times > 600 {
			t.Errorf("length %d drawn %d times of 47,500", n, times)
		}
	}
}

func TestOwnKeysAreDisjoint(t *testing.T) {
	const keys, workers = 103, 7
	owner := map[Number]uint64{}
	for w := range uint64(workers) {
		c := testChooser(t, "overwrite", keys)
		c.own, c.of = w, workers
		var op operation
		for range 2000 {
			c.next(&op)
			if o, ok := owner[op.number]; ok && o != w {
				t.Fatalf("key %x belongs to workers %d and %d", op.number, o, w)
			}
			owner[op.number] = w
		}
	}
	if len(owner) != keys {
		t.Errorf("%d of %d keys have an owner", len(owner), keys)
	}
}
