package compaction_test

import (
	"fmt"

	"kvd/compaction"
	"kvd/sstable"
)

func table(num uint64, lo, hi string, s sstable.Seq) *sstable.Meta {
	return &sstable.Meta{Num: num, Bytes: 1 << 20, Entries: 1000, MinSeq: s, MaxSeq: s,
		Smallest: sstable.MakeKey([]byte(lo), s, sstable.KindPut),
		Largest:  sstable.MakeKey([]byte(hi), s, sstable.KindPut)}
}

func ExamplePicker() {
	tree := compaction.Levels{
		0: {table(7, "a", "m", 70), table(6, "k", "z", 60), table(5, "b", "c", 50),
			table(4, "c", "l", 40)},
		6: {table(2, "a", "h", 20), table(3, "m", "r", 30)},
	}
	busy := map[uint64]bool{}
	p := compaction.NewPicker(compaction.Config{})
	if j, ok := p.Pick(&tree, func(num uint64) bool { return busy[num] }); ok {
		fmt.Println(j)
	}
	// Output: L0->L6 [7 6 5 4]+[2 3] (level 0)
}
