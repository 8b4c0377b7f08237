package compaction

import (
	"bytes"

	"kvd/sstable"
)

// part is a range of user keys of a job that is merged by itself: from lo on, below hi; nil is
// without a bound.
type part struct {
	lo, hi []byte
}

// splitTables is the least size of a part, in output tables: what a goroutine is worth, and each
// part ends with a table that is not full.
const splitTables = 2

// partsMax bounds the memory of a job: each part reads all tables of level 0, of which there may be
// 48 when compaction is behind, with a buffer of 256 KiB for each.
const partsMax = 4

// split divides a merge of level 0 into at most n parts of about equal size. Nothing else may use
// the base level meanwhile, and in a large tree that is a gigabyte and more to rewrite. Jobs of
// other levels run side by side instead. Parts are cut between tables of the target level: no other
// keys are known, and so each of these tables is in one part. If level 0 has keys of one end only,
// the other parts are done at once.
func (j *Job) split(n int) []part {
	lower := j.Inputs[1]
	total := tablesBytes(lower)
	if j.Level != 0 || j.TableBytes == 0 {
		n = 1
	} else {
		n = min(n, partsMax, int(total/(splitTables*j.TableBytes)))
	}
	parts := make([]part, 1, max(n, 1))
	var passed uint64
	for _, m := range lower {
		if len(parts) < n && passed*uint64(n) >= total*uint64(len(parts)) {
			parts[len(parts)-1].hi = m.Smallest.User
			parts = append(parts, part{lo: m.Smallest.User})
		}
		passed += m.Bytes
	}
	return parts
}

// Workers returns how many of n goroutines Run has use for.
func (j *Job) Workers(n int) int { return len(j.split(n)) }

// among returns those of a sorted run that may have keys of the part.
func (p part) among(run []*sstable.Meta) []*sstable.Meta {
	for len(run) > 0 && p.lo != nil && bytes.Compare(run[0].Largest.User, p.lo) < 0 {
		run = run[1:]
	}
	for n := len(run); n > 0 && !p.holds(run[n-1].Smallest.User); n-- {
		run = run[:n-1]
	}
	return run
}

// begin moves to the first entry.
func (p part) begin(it sstable.Iterator) bool {
	if p.lo == nil {
		return it.First()
	}
	return it.SeekGE(p.lo)
}

// holds tells of a key that is not before the part whether it is in it.
func (p part) holds(user []byte) bool { return p.hi == nil || bytes.Compare(user, p.hi) < 0 }
