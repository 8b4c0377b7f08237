package compaction

// Targets is how large each level should be for the data there is.
type Targets struct {
	// Base is the level that level 0 merges into. The levels between are empty.
	Base int
	// Drain is the first level worth keeping. Levels Base to Drain-1 are left over from when there
	// was more data; they are emptied downwards.
	Drain int
	// Bytes is the target of each level; 0 for level 0 (which counts tables instead), for levels
	// above Base and for levels to be emptied. The bottom level is never too large: its entry
	// says only what was expected of it.
	Bytes [NumLevels]uint64
}

// Targets sizes the levels from the bottom up (Dong et al., "Optimizing Space Amplification in
// RocksDB", CIDR 2017): the bottom level takes what there is, each level above it a Multiplier-th
// of the one below, until a level would be no larger than BaseBytes: that one is the base.
// Hence all levels above the bottom together are about a ninth of it at Multiplier 10, and so is
// the space lost to overwritten entries.
//
// The base level keeps its BaseBytes whatever the remainder of the division, so targets are
// continuous in the size of the data: when a level is added on top, the old base had just reached
// the size at which the formula would make it a middle level. Spreading
// one ratio evenly over all levels is continuous too, but right after a level was added the
// ratio would be the square root of Multiplier and the levels above the bottom 40 % of it.
//
// A level is added as soon as it is wanted but given up only when the data would have to double to
// want it again: data that hovers around a threshold does not move up and down.
func (c Config) Targets(s *Sizes) Targets {
	c = c.WithDefaults()
	total := s.Total()
	bottom := total - total/uint64(c.Multiplier)
	t := Targets{Base: c.baseFor(bottom), Drain: c.baseFor(2 * bottom)}
	for i := 1; i < t.Base; i++ {
		if s[i] > 0 {
			t.Base = i
		}
	}
	size := bottom
	for i := bottomLevel; i >= t.Base; i-- {
		if i >= t.Drain {
			t.Bytes[i] = max(size, c.BaseBytes)
		}
		size /= uint64(c.Multiplier)
	}
	return t
}

// baseFor returns the level whose share of the given bottom level is BaseBytes or less.
func (c Config) baseFor(bottom uint64) int {
	level := bottomLevel
	for size := bottom; level > 1 && size > c.BaseBytes; level-- {
		size /= uint64(c.Multiplier)
	}
	return level
}

// Scores says how badly each level wants to be compacted: 1 and above means now, more is more
// urgent. Level 0 is scored by its tables, since each one costs every read, and by its bytes, so
// that a few huge ones do not wait for more. zeroTables is the number of level-0 tables.
func (c Config) Scores(s *Sizes, t *Targets, zeroTables int) [NumLevels]float64 {
	c = c.WithDefaults()
	var scores [NumLevels]float64
	if zeroTables > 0 {
		scores[0] = max(float64(zeroTables)/float64(c.LevelZeroTrigger),
			float64(s[0])/float64(c.BaseBytes))
	}
	for i := t.Base; i < bottomLevel; i++ {
		switch {
		case t.Bytes[i] > 0:
			scores[i] = float64(s[i]) / float64(t.Bytes[i])
		case s[i] > 0:
			scores[i] = 1 + float64(s[i])/float64(c.BaseBytes)
		}
	}
	return scores
}
