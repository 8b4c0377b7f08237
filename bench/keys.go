package bench

import (
	"fmt"
	"math/bits"
)

// Limits of a key space. Keys shorter than MinKeyBytes leave no room for a useful count.
const (
	DefaultKeyBytes = 16
	MinKeyBytes     = 8
	MaxKeyBytes     = 64 << 10
)

// Layers of the key space: the last hexadecimal digit of a Number.
const (
	layerLoaded   = 0
	layerInserted = 1 // to layerMissing-1
	layerMissing  = 15
	layerCount    = 16
)

// Number is the place of a key in the key space: 16 * slot + layer. Numbers order as their keys do.
type Number uint64

// Slot is the index of the loaded key at or before n.
func (n Number) Slot() uint64 { return uint64(n) / layerCount }

func (n Number) layer() uint64 { return uint64(n) % layerCount }

// Keyspace maps indexes to keys and back. It holds no state: any goroutine may use it.
type Keyspace struct {
	keys   uint64
	bytes  int
	digits int
	order  Permutation
}

// NewKeyspace makes a space of keys loaded keys of keyBytes bytes each; seed decides the random
// orders.
func NewKeyspace(keys uint64, keyBytes int, seed uint64) (*Keyspace, error) {
	if keyBytes < MinKeyBytes || keyBytes > MaxKeyBytes {
		return nil, fmt.Errorf("bench: key size %d out of bounds: %d to %d bytes",
			keyBytes, MinKeyBytes, MaxKeyBytes)
	}
	digits := min(keyBytes, 16)
	most := uint64(1) << (4 * (digits - 1))
	if keys == 0 || keys > most {
		return nil, fmt.Errorf("bench: %d keys out of bounds: 1 to %d with keys of %d bytes",
			keys, most, keyBytes)
	}
	return &Keyspace{keys, keyBytes, digits, NewPermutation(keys, seed)}, nil
}

// Loaded is the number of loaded key i, in key order.
func (s *Keyspace) Loaded(i uint64) Number { return Number(i * layerCount) }

// Shuffled is the number of the loaded key that stands at place i of a random order.
func (s *Keyspace) Shuffled(i uint64) Number { return s.Loaded(s.order.At(i)) }

// Missing is the number of a key that no run writes, right after loaded key i.
func (s *Keyspace) Missing(i uint64) Number { return Number(i*layerCount + layerMissing) }

// Inserted is the number of the j-th key beyond the loaded ones. They fall between the loaded keys
// in random order, as the hashed keys of YCSB do; after 14 times the loaded count they repeat.
func (s *Keyspace) Inserted(j uint64) Number {
	layer := layerInserted + j/s.keys%(layerMissing-layerInserted)
	return Number(s.order.At(j%s.keys)*layerCount + layer)
}

// AppendKey appends the key of n to dst.
func (s *Keyspace) AppendKey(dst []byte, n Number) []byte {
	const hex = "0123456789abcdef"
	for shift := 4 * (s.digits - 1); shift >= 0; shift -= 4 {
		dst = append(dst, hex[n>>shift&15])
	}
	for i := s.digits; i < s.bytes; i++ {
		dst = append(dst, '.')
	}
	return dst
}

// Parse is the reverse of AppendKey. It reports false for a key that is not of this space.
func (s *Keyspace) Parse(key []byte) (Number, bool) {
	if len(key) != s.bytes {
		return 0, false
	}
	var n Number
	for _, c := range key[:s.digits] {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | Number(c-'0')
		case 'a' <= c && c <= 'f':
			n = n<<4 | Number(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, n.Slot() < s.keys
}

// Permutation is a bijection of [0, n) on itself that looks random. It needs no memory: it mixes
// the bits of the next power of two and walks the cycle until it is back inside.
type Permutation struct {
	n, mask, seed uint64
	shift         uint
}

// NewPermutation makes the permutation of [0, n) that seed names. n is at least 1.
func NewPermutation(n, seed uint64) Permutation {
	width := uint(bits.Len64(n - 1))
	return Permutation{
		n: n, mask: 1<<width - 1, seed: mix(seed), shift: max(1, (width+1)/2),
	}
}

// At is where i goes. i must be below n. It takes about 10 ns (BenchmarkPermutation).
func (p Permutation) At(i uint64) uint64 {
	for {
		// Odd factors and right shifts onto the same word are bijections of the masked range.
		i = (i + p.seed) * 0x9e3779b97f4a7c15 & p.mask
		i ^= i >> p.shift
		i = (i + p.seed>>17) * 0xbf58476d1ce4e5b9 & p.mask
		i ^= i >> p.shift
		i = (i + p.seed>>31) * 0x94d049bb133111eb & p.mask
		i ^= i >> p.shift
		if i < p.n {
			return i
		}
	}
}

// mix spreads the bits of x over the word (the finaliser of SplitMix64, Steele et al. 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
