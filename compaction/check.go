package compaction

import (
	"bytes"
	"fmt"

	"kvd/sstable"
)

// Check verifies what a Levels promises of each level, as far as it can be seen without opening a
// table: order and disjointness, sane bounds and counts; and that file numbers are used once. That
// levels are newer than those below is not looked at: bounds do not tell which keys two tables
// share. O(n), and quadratic in level 0.
func (l *Levels) Check() error {
	seen := make(map[uint64]int)
	for i := range l {
		for _, m := range l[i] {
			if err := checkMeta(m); err != nil {
				return fmt.Errorf("compaction: level %d: %w", i, err)
			}
			if was, dup := seen[m.Num]; dup {
				return fmt.Errorf("compaction: table %d in level %d and %d", m.Num, was, i)
			}
			seen[m.Num] = i
		}
	}
	if err := checkRuns(l[0]); err != nil {
		return fmt.Errorf("compaction: level 0: %w", err)
	}
	for i := 1; i < NumLevels; i++ {
		for n := 1; n < len(l[i]); n++ {
			if err := checkNeighbours(l[i][n-1], l[i][n]); err != nil {
				return fmt.Errorf("compaction: level %d: %w", i, err)
			}
		}
	}
	return nil
}

// checkRuns verifies that of two level-0 tables that share keys the earlier in the list is newer
// in every entry: a reader stops at the first table that answers.
func checkRuns(tables []*sstable.Meta) error {
	for i, a := range tables {
		for _, b := range tables[i+1:] {
			if a.MaxSeq < b.MaxSeq {
				return fmt.Errorf("table %d (seq <= %d) before newer table %d (seq <= %d)",
					a.Num, a.MaxSeq, b.Num, b.MaxSeq)
			}
			if a.MinSeq <= b.MaxSeq && a.Overlaps(b.Smallest.User, b.Largest.User) {
				return fmt.Errorf("tables %d and %d share keys and sequence numbers",
					a.Num, b.Num)
			}
		}
	}
	return nil
}

func checkNeighbours(a, b *sstable.Meta) error {
	if bytes.Compare(a.Largest.User, b.Smallest.User) >= 0 {
		return fmt.Errorf("table %d ends at %v, not before table %d, which starts at %v",
			a.Num, a.Largest, b.Num, b.Smallest)
	}
	return nil
}

func checkMeta(m *sstable.Meta) error {
	switch {
	case sstable.Compare(m.Smallest, m.Largest) > 0:
		return fmt.Errorf("table %d: bounds %v and %v are reversed", m.Num, m.Smallest, m.Largest)
	case m.Entries == 0:
		return fmt.Errorf("table %d has no entries", m.Num)
	case m.Tombstones > m.Entries:
		return fmt.Errorf("table %d: %d tombstones among %d entries",
			m.Num, m.Tombstones, m.Entries)
	case m.MinSeq > m.MaxSeq:
		return fmt.Errorf("table %d: sequence bounds %d and %d are reversed",
			m.Num, m.MinSeq, m.MaxSeq)
	}
	return nil
}

// CheckTable reads a table from end to end and verifies that m describes it exactly: bounds,
// sequence numbers, counts and raw bytes, and that its keys ascend. It does not close it.
func CheckTable(m *sstable.Meta, it sstable.Iterator) error {
	got := sstable.Meta{Num: m.Num, UID: m.UID, Bytes: m.Bytes, MinSeq: sstable.SeqMax}
	var prev sstable.Key
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if got.Entries == 0 {
			got.Smallest = k.Clone()
		} else if sstable.Compare(prev, k) >= 0 {
			return fmt.Errorf("compaction: table %d: %v is followed by %v", m.Num, prev, k)
		}
		prev.User, prev.Trailer = append(prev.User[:0], k.User...), k.Trailer
		got.MinSeq, got.MaxSeq = min(got.MinSeq, k.Seq()), max(got.MaxSeq, k.Seq())
		got.Entries++
		if k.Kind() == sstable.KindDelete {
			got.Tombstones++
		}
		got.RawBytes += uint64(len(k.User)) + uint64(len(it.Value()))
	}
	if err := it.Err(); err != nil {
		return err
	}
	got.Largest = prev
	if !sameMeta(m, &got) {
		return fmt.Errorf("compaction: table %d is described as %+v but holds %+v", m.Num, *m, got)
	}
	return nil
}

func sameMeta(a, b *sstable.Meta) bool {
	return sstable.Compare(a.Smallest, b.Smallest) == 0 &&
		sstable.Compare(a.Largest, b.Largest) == 0 &&
		a.MinSeq == b.MinSeq && a.MaxSeq == b.MaxSeq && a.Entries == b.Entries &&
		a.Tombstones == b.Tombstones && a.RawBytes == b.RawBytes
}
