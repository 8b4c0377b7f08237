package compaction

// Config is the shape the tree is held in. The zero Config means the defaults; values are taken as
// they are down to one byte, so that a test can force a deep tree out of a few kilobytes.
type Config struct {
	// BaseBytes is how much level 0 gathers before it is merged into the base level, and the least
	// target of that and the levels below. That merge rewrites all of the base level, so the more
	// there is in level 0 the less is written for each byte of it, and the more tables has each
	// read to ask. In a tree of more than 12 times BaseBytes it is a 12th of the tree, up to four
	// times BaseBytes. Default 256 MiB, for flushes of 64 MiB.
	BaseBytes uint64
	// TableBytes is where an output table is cut at the base level. It grows with what level 0
	// gathers and doubles with each level below, up to eight times: big tables where the data is,
	// small ones where it moves fast. Default 8 MiB, hence 64 MiB at the bottom of a large tree.
	TableBytes uint64
	// Multiplier is the size of a level over the one above it. Default 10.
	Multiplier int
	// LevelZeroTrigger is the number of level-0 tables at which they are merged down, should they
	// be smaller than BaseBytes; in a large tree it is up to four times as many. Default 4.
	LevelZeroTrigger int
}

const (
	defaultBaseBytes        = 256 << 20
	defaultTableBytes       = 8 << 20
	defaultMultiplier       = 10
	defaultLevelZeroTrigger = 4

	// maxConfigBytes leaves room for the multiples that are taken of sizes.
	maxConfigBytes = 1 << 50
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
	c.BaseBytes = min(c.BaseBytes, maxConfigBytes)
	c.TableBytes = min(c.TableBytes, maxConfigBytes)
	if c.Multiplier < 2 {
		c.Multiplier = defaultMultiplier
	}
	if c.LevelZeroTrigger < 1 {
		c.LevelZeroTrigger = defaultLevelZeroTrigger
	}
	return c
}

// tableBytes returns where tables of the given level are cut.
func (c Config) tableBytes(t *Targets, level int) uint64 {
	size := c.TableBytes << min(max(level-t.Base, 0), maxTableDoublings)
	grown := uint64(float64(size) * float64(t.Bytes[0]) / float64(c.BaseBytes))
	return min(grown, c.TableBytes<<maxTableDoublings)
}
