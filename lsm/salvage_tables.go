package lsm

import (
	"bytes"
	"cmp"
	"container/heap"
	"errors"
	"slices"

	"kvd/sstable"
)

// writeTables writes the newest version of every key that the tables have, unless it is a
// tombstone.
//
// The tables are arranged in runs, as few as possible, whose tables do not overlap, and the runs
// are merged. A run has one table open, and of that one block: that is the memory it takes.
func (s *salvage) writeTables() error {
	m := &salvageMerge{s: s}
	for _, tables := range runsOf(s.catalog.tables) {
		r := &salvageRun{m: m, tables: tables}
		ok, err := r.next()
		if err != nil {
			m.close()
			return err
		}
		if ok {
			m.runs = append(m.runs, r)
		}
	}
	heap.Init(m)
	err := m.run()
	m.close()
	if err == nil {
		err = s.flush()
	}
	s.losses(m)
	return err
}

// runsOf arranges tables that are sorted by their first key. One whose bounds nobody knows is a run
// of its own.
func runsOf(tables []*salvageTable) (runs [][]*salvageTable) {
next:
	for _, t := range tables {
		for i, run := range runs {
			last := run[len(run)-1]
			if t.from != nil && last.to != nil && bytes.Compare(last.to, t.from) < 0 {
				runs[i] = append(run, t)
				continue next
			}
		}
		runs = append(runs, []*salvageTable{t})
	}
	return runs
}

// salvageRun walks the tables of one run, one after the other.
type salvageRun struct {
	m      *salvageMerge
	tables []*salvageTable // the first one is open
	file   *source
	r      *sstable.Salvager
}

// next moves to the next entry; false at the end of the run.
func (r *salvageRun) next() (bool, error) {
	for len(r.tables) > 0 {
		t := r.tables[0]
		if r.r == nil {
			if err := r.open(t); err != nil {
				return false, err
			}
		}
		if r.r != nil {
			if r.r.Next() {
				return true, nil
			}
			t.found = r.r.Found()
			r.m.s.endTable(t, r.r, r.file)
			err := r.r.Err()
			r.close()
			if err != nil {
				return false, err
			}
		}
		r.m.endLosses(t)
		r.tables = r.tables[1:]
	}
	return false, nil
}

// open opens a table. One of which nothing can be read is a loss, and r.r stays nil.
func (r *salvageRun) open(t *salvageTable) (err error) {
	reason := t.gone
	if reason == "" {
		r.file, reason, err = openSource(r.m.s.fs, t.name)
	}
	if err == nil && reason == "" {
		r.r, err = sstable.NewSalvager(r.file, r.file.size, t.id, t.meta, func(l sstable.Lost) {
			r.m.lost(t, l)
		})
		if e, ok := errors.AsType[*sstable.CorruptError](err); ok {
			reason, err = e.Reason, nil
		}
		if reason != "" || err != nil {
			r.close()
		}
	}
	if err == nil && reason != "" {
		r.m.lost(t, sstable.Lost{Offset: -1, From: t.from, To: t.to, Reason: reason})
	}
	return err
}

func (r *salvageRun) close() {
	if r.file != nil {
		r.file.Close()
	}
	r.file, r.r = nil, nil
}

// endTable takes in what is known of a table once it was read.
func (s *salvage) endTable(t *salvageTable, r *sstable.Salvager, f *source) {
	if t.found > 0 {
		s.report.Tables++
		s.report.Entries += t.found
	}
	for _, e := range r.Harmless() {
		s.note(t.name, e.Offset, e.Reason)
	}
	if f.bad >= 0 {
		s.note(t.name, f.bad, "the disk fails to read from here")
	}
}

// lossesPerTable bounds the list. When a table has more, the last one is widened to hold the rest.
const lossesPerTable = 1000

// tableLoss is a loss while the merge is on its way.
type tableLoss struct {
	Loss
	table *salvageTable
	upTo  sstable.Seq // what is lost may have been as new as that
}

// salvageMerge merges runs: it is a heap of those that have an entry, the next one in front. Of
// equal keys the newest comes first, and of equal sequence numbers, which bottom tables forget, the
// one in the younger table.
type salvageMerge struct {
	s      *salvage
	runs   []*salvageRun
	all    []*tableLoss
	active []*tableLoss // that the walk has not passed yet
	user   []byte
}

func (m *salvageMerge) Len() int      { return len(m.runs) }
func (m *salvageMerge) Swap(i, j int) { m.runs[i], m.runs[j] = m.runs[j], m.runs[i] }
func (m *salvageMerge) Push(x any)    { m.runs = append(m.runs, x.(*salvageRun)) }
func (m *salvageMerge) Pop() any {
	last := m.runs[len(m.runs)-1]
	m.runs = m.runs[:len(m.runs)-1]
	return last
}

func (m *salvageMerge) Less(i, j int) bool {
	a, b := m.runs[i], m.runs[j]
	ka, kb := a.r.Key(), b.r.Key()
	return cmp.Or(bytes.Compare(ka.User, kb.User), cmp.Compare(kb.Seq(), ka.Seq()),
		cmp.Compare(b.tables[0].id.Num, a.tables[0].id.Num)) < 0
}

func (m *salvageMerge) run() error {
	started := false
	for n := 0; len(m.runs) > 0; n++ {
		if n%1024 == 0 && m.s.ctx.Err() != nil {
			return m.s.ctx.Err()
		}
		r := m.runs[0]
		k := r.r.Key()
		m.s.newest = max(m.s.newest, k.Seq())
		if !started || !bytes.Equal(k.User, m.user) {
			m.user, started = append(m.user[:0], k.User...), true
			if k.Kind() == sstable.KindPut {
				m.weigh(k, r.tables[0])
				if err := m.s.put(k.User, r.r.Value()); err != nil {
					return err
				}
			}
		}
		ok, err := r.next()
		if err != nil {
			return err
		}
		if ok {
			heap.Fix(m, 0)
		} else {
			heap.Pop(m)
		}
	}
	return nil
}

func (m *salvageMerge) close() {
	for _, r := range m.runs {
		r.close()
	}
}

// lost takes in a stretch of a table that cannot be read. It is told before any entry after the
// stretch is written, so weigh sees it in time.
func (m *salvageMerge) lost(t *salvageTable, l sstable.Lost) {
	if t.losses++; t.losses > lossesPerTable {
		last := m.all[len(m.all)-1]
		for i := len(m.all) - 1; last.table != t; i-- {
			last = m.all[i]
		}
		last.To = l.To
		last.Reason = "too many stretches to list; up to the last of them: " + l.Reason
		if !slices.Contains(m.active, last) {
			m.active = append(m.active, last)
		}
		return
	}
	loss := &tableLoss{table: t, upTo: sstable.SeqMax}
	loss.Loss = Loss{File: t.name, Offset: l.Offset, Reason: l.Reason, From: l.From, To: l.To}
	if t.meta != nil {
		loss.FirstSeq, loss.LastSeq, loss.upTo = t.meta.MinSeq, t.meta.MaxSeq, t.meta.MaxSeq
	}
	m.all = append(m.all, loss)
	m.active = append(m.active, loss)
}

// endLosses says how many entries the losses of a table are, if it is one.
func (m *salvageMerge) endLosses(t *salvageTable) {
	if t.meta == nil || t.losses == 0 || t.meta.Entries <= t.found {
		return
	}
	m.s.report.LostEntries += t.meta.Entries - t.found
	for i := len(m.all) - 1; i >= 0 && t.losses == 1; i-- {
		if m.all[i].table == t {
			m.all[i].Entries = t.meta.Entries - t.found
			return
		}
	}
}

// weigh counts a key that is about to be written to the losses that may have held a newer version.
func (m *salvageMerge) weigh(k sstable.Key, t *salvageTable) {
	kept := m.active[:0]
	for _, l := range m.active {
		if l.To != nil && bytes.Compare(l.To, k.User) < 0 {
			continue // passed
		}
		kept = append(kept, l)
		above := m.s.catalog.sound && t.level < l.table.level
		if bytes.Compare(l.From, k.User) <= 0 && k.Seq() < l.upTo && !above {
			l.MayBeOld++
		}
	}
	clear(m.active[len(kept):])
	m.active = kept
}

// losses moves the losses to the report.
func (s *salvage) losses(m *salvageMerge) {
	for _, l := range m.all {
		s.report.Losses = append(s.report.Losses, l.Loss)
	}
}
