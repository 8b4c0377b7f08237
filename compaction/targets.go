package compaction

// Targets is how large each level should be for the data there is.
type Targets struct {
	// Base is the level that level 0 merges into. The levels between are empty.
	Base int
	// Drain is the first level worth keeping. Levels Base to Drain-1 are left over from when there
	// was more data; they are emptied downwards.
	Drain int
	// Bytes is the target of each level; 0 for levels above Base and for levels to be emptied.
	// The bottom level is never too large: its entry says only what was expected of it.
	Bytes [NumLevels]uint64
}

// What TestSimulateSizes writes for each byte, in trees of 128, 512 and 1500 flushes, and how much
// larger than their bottom level those are:
//
//	as it is                6.0   9.1  12.1    1.20  1.16  1.12
//	zeroMax 1               9.1  13.1  15.9    1.13  1.11  1.11
//	zeroMax 2               7.4  10.7  14.4    1.11  1.12  1.11
//	zeroMax 8               6.0   7.3   9.9    1.20  1.16  1.13    reads ask 32 tables
//	zeroShare 24            8.5   9.1  12.1    1.18  1.15  1.11
//	zeroShare 6             5.3   9.0  12.1    1.15  1.15  1.12    1.42 with 32 flushes
//	baseMax 1               7.3   9.1  12.1    1.25  1.16  1.12
//	baseMax 4               6.0   9.5  12.1    1.19  1.13  1.12
const (
	// zeroShare is the part of the tree that level 0 gathers before it is merged. All of the base
	// level is rewritten then, so the more comes at a time the less is written for each byte; but
	// every read asks every table of level 0.
	zeroShare = 12
	// zeroMax bounds it, in multiples of BaseBytes: with the defaults 16 tables, 1 GiB. Of tables
	// that are compressed (Config.Compress) 16 are less, and their number decides.
	zeroMax = 4
	// baseMax bounds the base level, in multiples of level 0.
	baseMax = 2
)

// zeroBytes returns how much level 0 gathers in a tree of so many bytes.
func (c Config) zeroBytes(total uint64) uint64 {
	return min(max(total/zeroShare, c.BaseBytes), zeroMax*c.BaseBytes)
}

// Targets sizes the levels from the bottom up (Dong et al., "Optimizing Space Amplification in
// RocksDB", CIDR 2017): the bottom level takes what there is, each level above it a Multiplier-th
// of the one below, until a level would be no larger than baseMax times what level 0 gathers: that
// one is the base, and no smaller than level 0. Hence all levels above the bottom together are a
// ninth to a fifth of it at Multiplier 10, and so is the space lost to overwritten entries.
//
// Targets are continuous in the size of the data: when a level is added on top, the old base had
// just reached the size at which the formula would make it a middle level. Spreading one ratio
// evenly over all levels is continuous too, but right after a level was added the ratio would be
// the square root of Multiplier and the levels above the bottom 40 % of it.
//
// A level is added as soon as it is wanted but given up only when the data would have to double to
// want it again: data that hovers around a threshold does not move up and down.
func (c Config) Targets(s *Sizes) Targets {
	c = c.WithDefaults()
	total := s.Total()
	bottom := total - total/uint64(c.Multiplier)
	zero := c.zeroBytes(total)
	t := Targets{
		Base: c.baseFor(bottom, zero), Drain: c.baseFor(2*bottom, c.zeroBytes(2*total)),
	}
	t.Bytes[0] = zero
	for i := 1; i < t.Base; i++ {
		if s[i] > 0 {
			t.Base = i
		}
	}
	size := bottom
	for i := bottomLevel; i >= t.Base; i-- {
		if i >= t.Drain {
			t.Bytes[i] = max(size, zero)
		}
		size /= uint64(c.Multiplier)
	}
	return t
}

// Compress tells whether a table of the given level is worth compressing in a tree of such sizes.
// The two levels at the bottom hold most of the data. Those above are rewritten soon, and in a
// small tree compressing them would be the largest single cost of doing so. A tree so large that
// level 0 grows with it may well be rewritten by way of the disk: with level 0 compressed too, one
// of 20 GB in 4 GB of memory took in 7 % more writes.
func (c Config) Compress(s *Sizes, level int) bool {
	c = c.WithDefaults()
	return level >= bottomLevel-1 || c.zeroBytes(s.Total()) > c.BaseBytes
}

// baseFor returns the level whose share of the given bottom level is small enough to be the base.
func (c Config) baseFor(bottom, zero uint64) int {
	level := bottomLevel
	for size := bottom; level > 1 && size > baseMax*zero; level-- {
		size /= uint64(c.Multiplier)
	}
	return level
}

// zeroTables returns how many tables level 0 gathers: LevelZeroTrigger, more in a large tree.
func (c Config) zeroTables(t *Targets) float64 {
	return float64(c.LevelZeroTrigger) * float64(t.Bytes[0]) / float64(c.BaseBytes)
}

// Scores says how badly each level wants to be compacted: 1 and above means now, more is more
// urgent. Level 0 is scored by its tables, since each one costs every read, and by its bytes, so
// that a few huge ones do not wait for more. zeroTables is the number of level-0 tables.
func (c Config) Scores(s *Sizes, t *Targets, zeroTables float64) [NumLevels]float64 {
	c = c.WithDefaults()
	var scores [NumLevels]float64
	if zeroTables > 0 {
		scores[0] = max(zeroTables/c.zeroTables(t), float64(s[0])/float64(t.Bytes[0]))
	}
	for i := t.Base; i < bottomLevel; i++ {
		switch {
		case t.Bytes[i] > 0:
			scores[i] = float64(s[i]) / float64(t.Bytes[i])
		case s[i] > 0:
			scores[i] = 1 + float64(s[i])/float64(t.Bytes[0])
		}
	}
	return scores
}
