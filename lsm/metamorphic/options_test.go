package metamorphic

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"kvd/compaction"
	"kvd/lsm"
	"kvd/lsm/vfs"
)

// settings are the options of one Open, and the durability that overrides that of every write; -1
// leaves it as the list says.
type settings struct {
	memtable, cache   int64
	block, filter     int
	base, table       uint64
	multiplier, level int
	scrub             int // milliseconds
	durability        int
}

const settingsFormat = "memtable=%d,cache=%d,block=%d,filter=%d,base=%d,table=%d," +
	"multiplier=%d,level0=%d,scrub=%d,durability=%d"

func (s settings) String() string {
	return fmt.Sprintf(settingsFormat, s.memtable, s.cache, s.block, s.filter, s.base, s.table,
		s.multiplier, s.level, s.scrub, s.durability)
}

func parseSettings(text string) (s settings, err error) {
	_, err = fmt.Sscanf(text, settingsFormat, &s.memtable, &s.cache, &s.block, &s.filter, &s.base,
		&s.table, &s.multiplier, &s.level, &s.scrub, &s.durability)
	if err == nil && (s.durability < -1 || s.durability > int(lsm.NoSync)) {
		err = fmt.Errorf("no durability: %d", s.durability)
	}
	if err != nil {
		return s, fmt.Errorf("options %s: %w", text, err)
	}
	return s, nil
}

func (s settings) options(fsys vfs.FS) lsm.Options {
	return lsm.Options{
		FS:               fsys,
		MemtableBytes:    s.memtable,
		CacheBytes:       s.cache,
		BlockBytes:       s.block,
		FilterBitsPerKey: s.filter,
		ScrubPeriod:      time.Duration(s.scrub) * time.Millisecond,
		Compaction: compaction.Config{
			BaseBytes: s.base, TableBytes: s.table, Multiplier: s.multiplier, LevelZeroTrigger: s.level,
		},
	}
}

// plan is what one replay of a list runs under: the settings of the first Open, of the second, and
// so on, from the front again after the last.
type plan struct {
	name string
	sets []settings
}

func (p plan) at(open int) settings { return p.sets[open%len(p.sets)] }

func (p plan) String() string {
	line := "options " + p.name
	for _, s := range p.sets {
		line += " " + s.String()
	}
	return line
}

// parsePlans reads the lines of a list that begin with "options".
func parsePlans(text string) ([]plan, error) {
	var plans []plan
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "options" {
			continue
		}
		if len(fields) < 3 {
			return nil, fmt.Errorf("options want a name and settings: %s", line)
		}
		p := plan{name: fields[1]}
		for _, word := range fields[2:] {
			s, err := parseSettings(word)
			if err != nil {
				return nil, err
			}
			p.sets = append(p.sets, s)
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// corners are the plans that every seed runs under.
func corners() []plan {
	usual := settings{64 << 20, 64 << 20, 4096, 10, 256 << 20, 8 << 20, 10, 4, 0, -1}
	tiny := settings{1 << 10, -1, 1, -1, 256, 1, 2, 1, -1, int(lsm.NoSync)}
	deep := settings{1 << 10, 1, 64, 1, 256, 512, 2, 2, 0, int(lsm.Sync)}
	flat := settings{4 << 10, 1 << 20, 64 << 10, 20, 1 << 40, 1 << 40, 10, 4, 20, int(lsm.Async)}
	middle := settings{32 << 10, 16 << 10, 512, 10, 16 << 10, 4 << 10, 4, 2, 1, -1}
	heaped := settings{2 << 10, 64 << 10, 1 << 10, 10, 4 << 10, 16 << 10, 3, 30, -1, int(lsm.NoSync)}
	return []plan{
		{"usual", []settings{usual}},
		{"tiny", []settings{tiny}},
		{"deep", []settings{deep}},
		{"flat", []settings{flat}},
		{"middle", []settings{middle}},
		{"heaped", []settings{heaped}},
		{"changing", []settings{usual, deep, flat, tiny, heaped, middle}},
	}
}

// randomPlan draws one more.
func randomPlan(r *rand.Rand, name string) plan {
	p := plan{name: name}
	for range 1 + r.IntN(4) {
		p.sets = append(p.sets, settings{
			memtable:   pick[int64](r, 1, 2<<10, 4<<10, 8<<10, 32<<10, 256<<10, 1<<20, 16<<20),
			cache:      pick[int64](r, -1, 1, 4<<10, 64<<10, 1<<20, 64<<20),
			block:      pick(r, 1, 64, 256, 1<<10, 4<<10, 16<<10, 64<<10),
			filter:     pick(r, -1, 1, 5, 10, 20),
			base:       pick[uint64](r, 1, 256, 1<<10, 8<<10, 64<<10, 1<<40),
			table:      pick[uint64](r, 1, 512, 4<<10, 64<<10, 1<<40),
			multiplier: pick(r, 2, 3, 4, 10, 100),
			level:      pick(r, 1, 2, 4, 8),
			scrub:      pick(r, -1, 0, 1, 50),
			durability: pick(r, -1, -1, int(lsm.Sync), int(lsm.Async), int(lsm.NoSync)),
		})
	}
	return p
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }
