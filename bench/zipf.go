package bench

import (
	"math"
	"math/rand/v2"
)

// ZipfTheta is the skew of YCSB: with a million keys the hottest one gets 6 % of the requests and
// the hottest percent about two thirds.
const ZipfTheta = 0.99

// Zipf draws ranks from [0, n), rank 0 the most often, by the method of Gray et al., "Quickly
// generating billion-record synthetic databases" (SIGMOD 1994), which YCSB uses too. It is a value
// without state: the caller brings the randomness.
type Zipf struct {
	n                       uint64
	total, eta, alpha, pair float64
}

// NewZipf makes the distribution over n ranks. n is at least 1, theta between 0 and 1.
func NewZipf(n uint64, theta float64) Zipf {
	z := Zipf{n: n, total: zeta(n, theta), alpha: 1 / (1 - theta), pair: 1 + math.Pow(0.5, theta)}
	z.eta = (1 - math.Pow(2/float64(n), 1-theta)) / (1 - zeta(2, theta)/z.total)
	return z
}

// Next draws a rank.
func (z *Zipf) Next(r *rand.Rand) uint64 {
	u := r.Float64()
	switch t := u * z.total; {
	case t < 1:
		return 0
	case t < z.pair:
		return min(1, z.n-1)
	}
	rank := uint64(float64(z.n) * math.Pow(z.eta*u-z.eta+1, z.alpha))
	return min(rank, z.n-1)
}

// zeta is the sum of k^-theta for k in 1..n. Beyond the first ten thousand terms it uses the
// Euler-Maclaurin formula, exact to 12 digits, so that a billion keys need no billion powers.
func zeta(n uint64, theta float64) float64 {
	const exact = 10_000
	sum := 0.0
	for k := uint64(1); k <= min(n, exact); k++ {
		sum += math.Pow(float64(k), -theta)
	}
	if n <= exact {
		return sum
	}
	a, b := float64(exact), float64(n)
	integral := (math.Pow(b, 1-theta) - math.Pow(a, 1-theta)) / (1 - theta)
	ends := (math.Pow(b, -theta) - math.Pow(a, -theta)) / 2
	slopes := theta * (math.Pow(a, -theta-1) - math.Pow(b, -theta-1)) / 12
	return sum + integral + ends + slopes
}
