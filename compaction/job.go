package compaction

import (
	"bytes"
	"fmt"
	"slices"

	"kvd/sstable"
)

// Job is one step of compaction: tables of Level and all tables of Target that share keys with
// them become new tables of Target. It refers to tables of the Levels it was made from and is valid
// as long as those tables are in the tree and no other job that shares one of them is started:
// the owner of the tree marks the Inputs busy until the job is installed or given up.
type Job struct {
	Level, Target int
	// Inputs are the tables to take from Level (newest first if that is 0, else neighbours
	// sorted by key) and those to take from Target, sorted by key. If Target equals Level, the
	// second list is empty.
	Inputs [2][]*sstable.Meta
	// Below are the tables of the levels under Target that share keys with the job, one sorted
	// list per level, Target+1 first. They are where older versions may be, and Below[0] is what
	// outputs are aligned with.
	Below [][]*sstable.Meta
	// TableBytes is where outputs are cut.
	TableBytes uint64
	// Move says that the one input changes level without being rewritten.
	Move bool
	// Idle says that the tree does not call for it.
	Idle bool
	// Reason says why the job was picked, in a word or two, for the log.
	Reason string
}

// makeJob fills in what follows from the inputs.
func makeJob(
	l *Levels, c Config, t *Targets, level, target int, upper, lower []*sstable.Meta,
) Job {
	j := Job{Level: level, Target: target, TableBytes: c.tableBytes(t, target)}
	j.Inputs = [2][]*sstable.Meta{upper, lower}
	lo, hi := j.Range()
	j.Below = make([][]*sstable.Meta, 0, bottomLevel-target)
	for i := target + 1; i < NumLevels; i++ {
		j.Below = append(j.Below, l.Overlaps(i, lo, hi))
	}
	return j
}

// Range returns the smallest and largest user key of the inputs.
func (j *Job) Range() (lo, hi []byte) {
	lo, hi = span(j.Inputs[0])
	if len(j.Inputs[1]) > 0 {
		low, high := span(j.Inputs[1])
		if lo == nil || bytes.Compare(low, lo) < 0 {
			lo = low
		}
		if hi == nil || bytes.Compare(high, hi) > 0 {
			hi = high
		}
	}
	return lo, hi
}

// span returns the smallest and largest user key of tables in any order; nil for no tables.
func span(tables []*sstable.Meta) (lo, hi []byte) {
	for i, m := range tables {
		if i == 0 || bytes.Compare(m.Smallest.User, lo) < 0 {
			lo = m.Smallest.User
		}
		if i == 0 || bytes.Compare(m.Largest.User, hi) > 0 {
			hi = m.Largest.User
		}
	}
	return lo, hi
}

// InputBytes returns the size of all inputs.
func (j *Job) InputBytes() uint64 { return tablesBytes(j.Inputs[0]) + tablesBytes(j.Inputs[1]) }

func (j *Job) inputEntries() (n uint64) {
	for _, tables := range j.Inputs {
		for _, m := range tables {
			n += m.Entries
		}
	}
	return n
}

// Change returns what installing the outputs of the job does to the levels. added is what Run
// returned; its elements are referred to, not copied.
func (j *Job) Change(added []sstable.Meta) Change {
	var c Change
	c.Removed[j.Level] = j.Inputs[0]
	if j.Target != j.Level {
		c.Removed[j.Target] = j.Inputs[1]
	}
	if j.Move {
		c.Added[j.Target] = j.Inputs[0]
		return c
	}
	list := make([]*sstable.Meta, len(added))
	for i := range added {
		list[i] = &added[i]
	}
	c.Added[j.Target] = list
	return c
}

// Check verifies the job against the tree it is about to run on: the inputs are all there is of
// their keys from Level down to Target, so that nothing newer ends up below something older and
// no two tables of Target overlap. The picker makes no other jobs; this is for tests and for
// callers who want to know.
func (j *Job) Check(l *Levels) error {
	lo, hi := j.Range()
	upLo, upHi := span(j.Inputs[0])
	if len(j.Inputs[0]) == 0 {
		return fmt.Errorf("compaction: %v has no inputs", j)
	}
	if j.Target < j.Level || j.Target < 1 || j.Target >= NumLevels {
		return fmt.Errorf("compaction: %v goes from level %d to %d", j, j.Level, j.Target)
	}
	if j.Move && (len(j.Inputs[0]) != 1 || len(j.Inputs[1]) > 0) {
		return fmt.Errorf("compaction: %v moves more than one table", j)
	}
	if !slices.Equal(l.Overlaps(j.Level, upLo, upHi), j.Inputs[0]) {
		return fmt.Errorf("compaction: %v leaves some of its keys behind in level %d", j, j.Level)
	}
	for i := j.Level + 1; i < j.Target; i++ {
		if len(l.Overlaps(i, lo, hi)) > 0 {
			return fmt.Errorf("compaction: %v passes older tables in level %d", j, i)
		}
	}
	if j.Target != j.Level && !slices.Equal(l.Overlaps(j.Target, lo, hi), j.Inputs[1]) {
		return fmt.Errorf("compaction: %v does not take all that overlaps in its target", j)
	}
	for i, run := range j.Below {
		if !slices.Equal(l.Overlaps(j.Target+1+i, lo, hi), run) {
			return fmt.Errorf("compaction: %v is wrong about level %d", j, j.Target+1+i)
		}
	}
	return nil
}

// String prints the job as in "L0->L5 [9 8 7]+[3 4] (level 0 tables)".
func (j Job) String() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "L%d->L%d %v", j.Level, j.Target, nums(j.Inputs[0]))
	if len(j.Inputs[1]) > 0 {
		fmt.Fprintf(&b, "+%v", nums(j.Inputs[1]))
	}
	if j.Move {
		b.WriteString(" move")
	}
	if j.Reason != "" {
		fmt.Fprintf(&b, " (%s)", j.Reason)
	}
	return b.String()
}

func nums(tables []*sstable.Meta) []uint64 {
	out := make([]uint64, len(tables))
	for i, m := range tables {
		out[i] = m.Num
	}
	return out
}
