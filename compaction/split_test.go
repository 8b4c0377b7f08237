package compaction

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"kvd/sstable"
)

// wideJob returns a merge of level 0 into so many tables of the base level, with 10 keys in each.
func wideJob(m *memory, tables int) Job {
	var l Levels
	var all []entry
	for i := range tables {
		var list []entry
		for n := range 10 {
			user := fmt.Appendf(nil, "k%04d", 10*i+n)
			list = append(list, entry{sstable.MakeKey(user, 1, sstable.KindPut), []byte("old")})
			all = append(all, entry{sstable.MakeKey(user, 2, sstable.KindPut), []byte("new")})
		}
		l[6] = append(l[6], m.table(list))
	}
	l[0] = []*sstable.Meta{m.table(all)}
	return jobOf(&l, Config{TableBytes: l[6][0].Bytes}.WithDefaults(), 6, 0, 6, l[0], l[6])
}

func TestSplit(t *testing.T) {
	for _, c := range []struct{ tables, workers, want int }{
		{1, 2, 1}, {splitTables, 2, 1}, {2*splitTables - 1, 2, 1},
		{2 * splitTables, 2, 2}, {2 * splitTables, 1, 1}, {2 * splitTables, 0, 1},
		{100, 2, 2}, {100, 3, 3}, {100, 1000, partsMax},
	} {
		j := wideJob(makeMemory(), c.tables)
		parts := j.split(c.workers)
		if len(parts) != c.want {
			t.Errorf("%+v: %d parts", c, len(parts))
		}
		if parts[0].lo != nil || parts[len(parts)-1].hi != nil {
			t.Errorf("%+v: the first or the last part has a bound", c)
		}
		total := 0
		for i, p := range parts {
			if i > 0 && string(p.lo) != string(parts[i-1].hi) {
				t.Errorf("%+v: a gap before part %d", c, i)
			}
			n := len(p.among(j.Inputs[1]))
			if total += n; n < c.tables/len(parts) || n > c.tables/len(parts)+1 {
				t.Errorf("%+v: part %d has %d tables", c, i, n)
			}
			if len(p.among(j.Inputs[0])) != 1 {
				t.Errorf("%+v: part %d misses level 0", c, i)
			}
		}
		if total != c.tables {
			t.Errorf("%+v: %d tables in all parts", c, total)
		}
	}
	deep := wideJob(makeMemory(), 100)
	deep.Level = 5
	if n := deep.Workers(8); n != 1 {
		t.Errorf("a job of level 5 has %d parts", n)
	}
}

// TestRunParts: whatever the number of parts, the outputs are the same entries in order, and all
// that was read is counted.
func TestRunParts(t *testing.T) {
	for _, workers := range []int{0, 1, 2, 3, 8} {
		m := makeMemory()
		j := wideJob(m, 50)
		env := m.env()
		env.Workers, env.Read = workers, new(atomic.Uint64)
		res, err := Run(context.Background(), j, Config{}, env)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, added := range res.Added {
			for _, e := range m.tables[added.Num] {
				if want := fmt.Sprintf("k%04d", n); string(e.key.User) != want ||
					string(e.value) != "new" {
					t.Fatalf("%d workers: entry %d is %v=%s", workers, n, e, e.value)
				}
				n++
			}
		}
		if s := res.Stats; n != 500 || s.EntriesIn != 1000 || s.Shadowed != 500 {
			t.Errorf("%d workers: %d entries, %+v", workers, n, s)
		}
		if m.open != 0 || m.synced != len(res.Added) {
			t.Errorf("%d workers: %d open, %d synced", workers, m.open, m.synced)
		}
	}
}

// TestRunPartsAbort: when one part fails, nothing of the others is left, and its error comes out.
func TestRunPartsAbort(t *testing.T) {
	for _, op := range []string{"open", "next", "create", "add", "finish", "close", "sync"} {
		for _, n := range []int{1, 2, 3, 5, 8} {
			m := makeMemory()
			j := wideJob(m, 50)
			left := len(m.tables)
			m.fail = failAt(op, n)
			env := m.env()
			env.Workers = 3
			if _, err := Run(context.Background(), j, Config{}, env); !errors.Is(err, errInjected) {
				t.Errorf("%s %d: %v", op, n, err)
			}
			if m.open != 0 || len(m.tables) != left || m.aborted != len(m.levels) {
				t.Errorf("%s %d: %d open, %d tables for %d, %d of %d aborted", op, n, m.open,
					len(m.tables), left, m.aborted, len(m.levels))
			}
		}
	}
}
