package compaction

import (
	"fmt"
	"testing"

	"kvd/sstable"
)

func gapTable(num uint64, lo, hi string, seq sstable.Seq, tombstones, bytes uint64) *sstable.Meta {
	return &sstable.Meta{
		Num: num, Bytes: bytes, Entries: 10, Tombstones: tombstones, MinSeq: seq, MaxSeq: seq,
		Smallest: sstable.MakeKey([]byte(lo), seq, sstable.KindPut),
		Largest:  sstable.MakeKey([]byte(hi), seq, sstable.KindPut),
	}
}

// A manual job with free keys between its inputs wrote an output across them, where another job,
// which shared no table with it, had put a table meanwhile.
func TestManualJobSpansNoGap(t *testing.T) {
	c := Config{BaseBytes: 1000, TableBytes: 1000}
	var rewrite Levels
	rewrite[6] = []*sstable.Meta{
		gapTable(1, "a", "b", 1, 5, 100), gapTable(2, "m", "n", 2, 5, 100),
	}
	var down Levels
	down[6] = []*sstable.Meta{gapTable(1, "x", "z", 1, 0, 9000)}
	down[5] = []*sstable.Meta{
		gapTable(2, "a", "b", 2, 1, 500), gapTable(3, "m", "n", 3, 1, 490),
	}
	for name, l := range map[string]*Levels{"rewrite": &rewrite, "down": &down} {
		j, step := NewManual(l, nil, nil).Next(l, c, nil)
		if step != Ready || len(j.Inputs[0]) != 1 {
			t.Errorf("%s: %v, %v: want one table, as there is a gap after it", name, step, j)
		}
	}
	// Where the level below bridges the gap, nobody else can write there.
	down[6] = []*sstable.Meta{gapTable(1, "a", "z", 1, 0, 900)}
	if j, step := NewManual(&down, nil, nil).Next(&down, c, nil); step != Ready ||
		len(j.Inputs[0]) != 2 {
		t.Errorf("bridged: %v, %v: want both tables", step, j)
	}
}

// Tables that arrive ahead of the plan while it runs were taken too, for as long as any came.
func TestManualEndsWhileTablesArriveAhead(t *testing.T) {
	c := Config{BaseBytes: 1000, TableBytes: 1000}
	var l Levels
	l[6] = []*sstable.Meta{gapTable(1, "a", "b", 1, 0, 9000)}
	l[5] = []*sstable.Meta{gapTable(2, "k000000", "k000001", 2, 1, 500)}
	m := NewManual(&l, nil, nil)
	num := uint64(100)
	for i := 1; ; i++ {
		j, step := m.Next(&l, c, nil)
		if step == Done {
			return
		}
		if i == 100 {
			t.Fatalf("after %d jobs still going: %v", i, j)
		}
		lo, hi := j.Range()
		num += 2
		change := j.Change([]sstable.Meta{
			*gapTable(num, string(lo), string(hi), sstable.Seq(num), 0, 500),
		})
		var add Change
		add.Added[5] = []*sstable.Meta{gapTable(num+1, fmt.Sprintf("k%06d", 2*i),
			fmt.Sprintf("k%06d", 2*i+1), sstable.Seq(num+1), 1, 500)}
		for _, c := range []*Change{&change, &add} {
			var err error
			if l, err = l.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// While the plan rewrote what was the deepest level, an automatic job moved a table of it further
// down. The rest stayed behind: two levels were left of a whole compaction.
func TestManualFollowsADeeperBottom(t *testing.T) {
	c := Config{BaseBytes: 1000, TableBytes: 1000}
	var l Levels
	l[5] = []*sstable.Meta{gapTable(1, "a", "b", 1, 1, 500), gapTable(2, "m", "n", 2, 0, 9000)}
	m := NewManual(&l, nil, nil)
	j, step := m.Next(&l, c, nil)
	if step != Ready || j.Level != 5 || j.Target != 5 {
		t.Fatalf("first %v, %v: want the rewrite of the table with tombstones", step, j)
	}
	rewritten := j.Change([]sstable.Meta{*gapTable(3, "a", "b", 1, 0, 400)})
	var down Change
	down.Removed[5] = l[5][1:]
	down.Added[6] = []*sstable.Meta{gapTable(2, "m", "n", 2, 0, 9000)}
	for _, c := range []*Change{&rewritten, &down} {
		var err error
		if l, err = l.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	if j, step = m.Next(&l, c, nil); step != Ready || j.Level != 5 || j.Target != 6 {
		t.Errorf("then %v, %v: want what is left of level 5 to follow", step, j)
	}
}
