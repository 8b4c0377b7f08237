package sstable

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// modelRate is the false positive rate of a blocked filter: the keys per line are Poisson, and a
// line with j keys passes a stranger with (1-(1-1/512)^(j*probes))^probes.
func modelRate(keys, lines int, probes uint32) float64 {
	mean, rate := float64(keys)/float64(lines), 0.0
	p := math.Exp(-mean)
	for j := range 1000 {
		if j > 0 {
			p *= mean / float64(j)
		}
		set := 1 - math.Pow(1-1.0/lineBits, float64(j)*float64(probes))
		rate += p * math.Pow(set, float64(probes))
	}
	return rate
}

func TestFilterRate(t *testing.T) {
	const keys, strangers = 100_000, 400_000
	for _, bits := range []int{4, 8, 10, 16} {
		hashes := make([]uint64, keys)
		for i := range hashes {
			hashes[i] = Hash(fmt.Appendf(nil, "key-%08d", i))
		}
		lines, probes := filterShape(keys, bits)
		f := buildFilter(make([]uint64, lines*lineWords), probes, hashes)
		for i, h := range hashes {
			if !f.mayContain(h) {
				t.Fatalf("%d bits: key %d is not there", bits, i)
			}
		}
		hits := 0
		for i := range strangers {
			if f.mayContain(Hash(fmt.Appendf(nil, "stranger-%d", i))) {
				hits++
			}
		}
		rate, model := float64(hits)/strangers, modelRate(keys, lines, probes)
		t.Logf("%d bits per key, %d probes: %.3f %%, model %.3f %%",
			bits, probes, 100*rate, 100*model)
		slack := 0.15*model + 4*math.Sqrt(model/strangers)
		if math.Abs(rate-model) > slack {
			t.Errorf("%d bits per key: rate %.4f, model %.4f", bits, rate, model)
		}
		if bits == 10 && rate > 0.011 {
			t.Errorf("rate %.4f at 10 bits per key", rate)
		}
	}
}

func TestFilterGolden(t *testing.T) {
	f := buildFilter(make([]uint64, 2*lineWords), 6, []uint64{0x8000000012345678, 42})
	want := [16]uint64{
		0: 1, 2: 1 << 26, 4: 1 << 20, 6: 1 << 54, 7: 1<<42 | 1<<17, // 42
		8: 1 << 36, 10: 1 << 44, 12: 1 << 16, 13: 1 << 7, 14: 1 << 26, 15: 1 << 39,
	}
	got := [16]uint64(f.words)
	if got != want {
		t.Errorf("words %#x", got)
	}
}

func TestNoFilter(t *testing.T) {
	m := build(t, WriterOptions{FilterBitsPerKey: -1}, goldenEntries)
	rd := open(t, m, nil)
	if !rd.MayContain(1) || rd.Verify() != nil {
		t.Fatal("a table without filter must say yes")
	}
	checkGets(t, rd, goldenEntries)
}

// Versions of one user key count once.
func TestFilterVersionsCountOnce(t *testing.T) {
	var es []entry
	for i := range 1000 {
		es = append(es, entry{MakeKey([]byte("one"), Seq(2000-i), KindPut), make([]byte, 100)})
	}
	rd := open(t, build(t, WriterOptions{}, es), nil)
	if p := rd.Properties(); p.FilterKeys != 1 || rd.filter.lines != 1 || p.Blocks < 10 {
		t.Fatalf("%d keys in %d lines", p.FilterKeys, rd.filter.lines)
	}
	checkGets(t, rd, es)
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), uint64(3), uint8(10))
	f.Fuzz(func(t *testing.T, section []byte, seed uint64, bits uint8) {
		g := decodeFilter(section[:len(section)/lineBytes*lineBytes], uint32(bits%maxProbes)+1)
		g.mayContain(seed)
		r := rand.New(rand.NewPCG(seed, 1))
		hashes := make([]uint64, 1+len(section))
		for i := range hashes {
			hashes[i] = r.Uint64() >> (seed % 64)
		}
		lines, probes := filterShape(len(hashes), int(bits%maxFilterBitsPerKey)+1)
		built := buildFilter(make([]uint64, lines*lineWords), probes, hashes)
		read := decodeFilter(appendFilter(nil, built.words), probes)
		for _, h := range hashes {
			if !read.mayContain(h) {
				t.Fatalf("hash %#x is not there", h)
			}
		}
	})
}
