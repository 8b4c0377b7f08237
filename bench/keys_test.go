package bench

import (
	"math"
	"math/rand/v2"
	"sort"
	"testing"
)

func TestKeyBytes(t *testing.T) {
	s, err := NewKeyspace(5000, 16, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(s.AppendKey(nil, s.Loaded(1000))); got != "0000000000003e80" {
		t.Errorf("loaded key 1000 is %q", got)
	}
	if got := string(s.AppendKey(nil, s.Missing(1000))); got != "0000000000003e8f" {
		t.Errorf("missing key 1000 is %q", got)
	}
}

func TestKeysOrderAndParse(t *testing.T) {
	for _, size := range []int{8, 13, 16, 40} {
		s, err := NewKeyspace(300, size, 7)
		if err != nil {
			t.Fatal(err)
		}
		last := ""
		for i := range uint64(300) {
			for _, n := range []Number{s.Loaded(i), s.Missing(i)} {
				key := string(s.AppendKey(nil, n))
				if len(key) != size || key <= last {
					t.Fatalf("size %d: key %q after %q", size, key, last)
				}
				if back, ok := s.Parse([]byte(key)); !ok || back != n || back.Slot() != i {
					t.Fatalf("size %d: %q parses to %x, %v; want %x", size, key, back, ok, n)
				}
				last = key
			}
		}
	}
	s, _ := NewKeyspace(10, 16, 1)
	for _, alien := range []string{
		"", "user:1", "00000000000000g0", "ffffffffffffffff", "ABCDEF0123456789",
	} {
		if n, ok := s.Parse([]byte(alien)); ok {
			t.Errorf("%q parses to %x", alien, n)
		}
	}
}

func TestKeyspaceBounds(t *testing.T) {
	for _, c := range []struct {
		keys uint64
		size int
		ok   bool
	}{
		{1, 8, true}, {1 << 28, 8, true}, {1<<28 + 1, 8, false}, {1 << 60, 16, true},
		{1<<60 + 1, 16, false}, {0, 16, false}, {5, 7, false}, {5, MaxKeyBytes + 1, false},
	} {
		if _, err := NewKeyspace(c.keys, c.size, 1); (err == nil) != c.ok {
			t.Errorf("%d keys of %d bytes: %v", c.keys, c.size, err)
		}
	}
}

func TestPermutationIsOne(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 5, 16, 17, 1000, 1024, 1025, 65537} {
		p := NewPermutation(n, 42)
		seen := make([]bool, n)
		fixed := 0
		for i := range n {
			at := p.At(i)
			if at >= n || seen[at] {
				t.Fatalf("n %d: %d goes to %d, out of bounds or taken", n, i, at)
			}
			seen[at] = true
			if at == i {
				fixed++
			}
		}
		if n > 100 && fixed > 12 { // a random one has one fixed point
			t.Errorf("n %d: %d fixed points", n, fixed)
		}
	}
}

// A fill in permuted order must look random to a store: neighbours in time far apart in place, and
// every stretch of it spread over the whole space.
func TestPermutationSpreads(t *testing.T) {
	const n = 100_000
	p := NewPermutation(n, 3)
	near := 0
	for i := uint64(1); i < n; i++ {
		d := math.Abs(float64(p.At(i)) - float64(p.At(i-1)))
		if d < n/100 {
			near++
		}
	}
	if share := float64(near) / n; share > 0.03 { // uniform: 2 %
		t.Errorf("%.1f %% of neighbours fall within 1 %% of each other", 100*share)
	}
	for start := uint64(0); start < n; start += 10_000 {
		var buckets [10]int
		for i := start; i < start+10_000; i++ {
			buckets[p.At(i)/(n/10)]++
		}
		for b, got := range buckets {
			if got < 850 || got > 1150 { // mean 1000, deviation 30
				t.Errorf("from %d: bucket %d has %d of 10,000", start, b, got)
			}
		}
	}
	if NewPermutation(n, 4).At(77) == p.At(77) && NewPermutation(n, 4).At(78) == p.At(78) {
		t.Error("the seed changes nothing")
	}
}

func TestInsertedKeysAreNew(t *testing.T) {
	const keys = 50
	s, _ := NewKeyspace(keys, 16, 9)
	seen := map[Number]bool{}
	for i := range uint64(keys) {
		seen[s.Loaded(i)], seen[s.Missing(i)] = true, true
	}
	for j := range uint64(14 * keys) {
		n := s.Inserted(j)
		if seen[n] || n.Slot() >= keys {
			t.Fatalf("insert %d gives key %x, taken or out of the space", j, n)
		}
		seen[n] = true
	}
	if len(seen) != 16*keys {
		t.Errorf("%d of %d numbers are in use", len(seen), 16*keys)
	}
}

func TestZipfSkew(t *testing.T) {
	const n, draws = 1_000_000, 500_000
	z := NewZipf(n, ZipfTheta)
	r := rand.New(rand.NewPCG(1, 2))
	counts := map[uint64]int{}
	hotPercent := 0
	for range draws {
		k := z.Next(r)
		if k >= n {
			t.Fatalf("rank %d of %d", k, uint64(n))
		}
		counts[k]++
		if k < n/100 {
			hotPercent++
		}
	}
	// The exact shares follow from the definition.
	total := zeta(n, ZipfTheta)
	within := func(what string, got, want, slack float64) {
		t.Helper()
		if math.Abs(got-want) > slack*want {
			t.Errorf("%s: %.4f of the draws, want %.4f", what, got, want)
		}
	}
	within("rank 0", float64(counts[0])/draws, 1/total, 0.03)
	within("rank 1", float64(counts[1])/draws, math.Pow(2, -ZipfTheta)/total, 0.03)
	within("hottest percent", float64(hotPercent)/draws, zeta(n/100, ZipfTheta)/total, 0.03)
}

func TestZipfTiny(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := uint64(1); n < 6; n++ {
		z := NewZipf(n, ZipfTheta)
		seen := map[uint64]bool{}
		for range 2000 {
			k := z.Next(r)
			if k >= n {
				t.Fatalf("rank %d of %d", k, n)
			}
			seen[k] = true
		}
		if uint64(len(seen)) != n {
			t.Errorf("%d of %d ranks drawn", len(seen), n)
		}
	}
}

func TestZetaShortcut(t *testing.T) {
	sum := 0.0
	for k := 1; k <= 200_000; k++ {
		sum += math.Pow(float64(k), -ZipfTheta)
	}
	if got := zeta(200_000, ZipfTheta); math.Abs(got-sum) > 1e-9 {
		t.Errorf("zeta is %.12f, the sum %.12f", got, sum)
	}
}

// The hot keys of the scrambled distribution lie scattered, and they are as hot as the ranks.
func TestZipfianKeysScatter(t *testing.T) {
	const keys = 10_000
	c := testChooser(t, "readzipfian", keys)
	counts := map[uint64]int{}
	var op operation
	for range 200_000 {
		c.next(&op)
		counts[op.number.Slot()]++
	}
	type hot struct{ slot, n uint64 }
	var all []hot
	for slot, n := range counts {
		all = append(all, hot{slot, uint64(n)})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].n > all[j].n })
	if share := float64(all[0].n) / 200_000; share < 0.09 || share > 0.11 { // 1/zeta(10^4) = 0.0986
		t.Errorf("the hottest key gets %.3f", share)
	}
	var tenths [10]int
	for _, h := range all[:100] {
		tenths[h.slot/(keys/10)]++
	}
	for i, n := range tenths {
		if n == 0 || n > 30 {
			t.Errorf("tenth %d holds %d of the 100 hottest keys", i, n)
		}
	}
}

func BenchmarkPermutation(b *testing.B) {
	p := NewPermutation(10_000_000, 1)
	var sum uint64
	for i := range b.N {
		sum += p.At(uint64(i) % 10_000_000)
	}
	_ = sum
}

func BenchmarkZipf(b *testing.B) {
	z := NewZipf(10_000_000, ZipfTheta)
	r := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		z.Next(r)
	}
}
