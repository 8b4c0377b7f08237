package compaction

// Debt estimates the bytes that compactions have to read and write before the tree is in shape:
// what is above its target in each level goes down one level and rewrites its share there, and
// that adds to the next. 0 if and only if no level is above its target. Continuous in the
// sizes, for a fixed set of level-0 tables.
func (c Config) Debt(s *Sizes, zeroTables float64) uint64 {
	c = c.WithDefaults()
	t := c.Targets(s)
	scores := c.Scores(s, &t, zeroTables)
	var debt, carried float64
	if scores[0] > 1 {
		carried = float64(s[0]) * (1 - 1/scores[0])
		debt = carried + float64(s[t.Base])*(1-1/scores[0])
	}
	for i := t.Base; i < bottomLevel; i++ {
		size := float64(s[i]) + carried
		carried = max(size-float64(t.Bytes[i]), 0)
		if carried > 0 {
			debt += carried * (1 + float64(s[i+1])/max(size, float64(t.Bytes[0])))
		}
	}
	return uint64(debt)
}

const (
	// softRuns is the number of level-0 tables at pressure 1, in multiples of what it gathers.
	softRuns = 3
	// softDebtBase and softDebtZero are the debt at pressure 1, in multiples of BaseBytes and of
	// what level 0 gathers: with the defaults 8 GiB, in a large tree 14, which is several seconds
	// of compaction on any machine and so leaves time to react. Level 0 has a share because each of
	// its merges leaves a debt of about 7 times what it brings down, which must not slow down an
	// easy load. With 32 of it and nothing else TestPacingLoop had 100 tables in level 0.
	softDebtBase, softDebtZero = 24, 8
)

// Pressure says how far compaction is behind: 0 is in shape, 1 is as far behind as it should ever
// get, more is worse, without a bound. It is the larger of two straight lines, in the count of
// level-0 tables above what it gathers and in the debt. Above 0, Picker.Pick finds a job if nothing
// is busy.
func (c Config) Pressure(s *Sizes, zeroTables float64) float64 {
	c = c.WithDefaults()
	t := c.Targets(s)
	gathers := c.zeroTables(&t)
	runs := (zeroTables - gathers) / (gathers * (softRuns - 1))
	soft := softDebtBase*c.BaseBytes + softDebtZero*t.Bytes[0]
	debt := float64(c.Debt(s, zeroTables)) / float64(soft)
	return max(runs, debt, 0)
}

// Progress is how far a running job has come.
type Progress struct {
	Job  *Job
	Read uint64 // entries of its inputs
}

// Pressure is Config.Pressure for the tree as it stands and the jobs that run in it. What a job has
// read counts as if it were in the target level: most of a large level 0 goes down in one job, and
// a pressure that did not fall until its end would have writers stop and go with each.
// One that has just been installed may still be among them. O(n) in tables: for once per change.
func Pressure(l *Levels, c Config, running []Progress) float64 {
	s, zero := l.Sizes(), float64(len(l[0]))
	for _, p := range running {
		share := min(float64(p.Read)/float64(max(p.Job.inputEntries(), 1)), 1)
		moved := min(uint64(share*float64(tablesBytes(p.Job.Inputs[0]))), s[p.Job.Level])
		s[p.Job.Level] -= moved
		s[p.Job.Target] += moved
		if p.Job.Level == 0 {
			zero = max(zero-share*float64(len(p.Job.Inputs[0])), 0)
		}
	}
	return c.Pressure(&s, zero)
}
