package compaction

// Config is the shape the tree is held in. The zero Config means the defaults; values are taken as
// they are down to one byte, so that a test can force a deep tree out of a few kilobytes.
type Config struct {
	// BaseBytes is the target size of the base level, the level that takes the merges of level 0.
	// Level 0 holds about LevelZeroTrigger flushes when it is merged and that merge rewrites the
	// overlapping part of the base level, so BaseBytes wants to be at least LevelZeroTrigger times
	// the flush size: smaller rewrites less per merge but passes the data on at once, larger
	// rewrites more. Default 256 MiB, for flushes of 64 MiB.
	BaseBytes uint64
	// TableBytes is where an output table is cut at the base level. It doubles with each level
	// below, up to eight times: big tables where the data is, small ones where it moves fast.
	// Default 8 MiB, hence 64 MiB at the bottom of a large tree.
	TableBytes uint64
	// Multiplier is the size of a level over the one above it. Default 10.
	Multiplier int
	// LevelZeroTrigger is the number of level-0 tables at which they are merged down. Default 4.
	LevelZeroTrigger int
}

const (
	defaultBaseBytes        = 256 << 20
	defaultTableBytes       = 8 << 20
	defaultMultiplier       = 10
	defaultLevelZeroTrigger = 4

	// maxTableDoublings bounds the growth of tables with depth: 8 times TableBytes.
	maxTableDoublings = 3
)

// WithDefaults returns c with every unset field filled in. It changes nothing when applied twice.
func (c Config) WithDefaults() Config {
	if c.BaseBytes == 0 {
		c.BaseBytes = defaultBaseBytes
	}
	if c.TableBytes == 0 {
		c.TableBytes = defaultTableBytes
	}
	if c.Multiplier < 2 {
		c.Multiplier = defaultMultiplier
	}
	if c.LevelZeroTrigger < 1 {
		c.LevelZeroTrigger = defaultLevelZeroTrigger
	}
	return c
}

// tableBytes returns where tables of the given level are cut.
func (c Config) tableBytes(base, level int) uint64 {
	return c.TableBytes << min(max(level-base, 0), maxTableDoublings)
}
