package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
)

// stageScale measures one read and one write of a compacted tree. The run repeats it over trees of
// growing size, with the same cache and memtable.
func (s *session) stageScale(open opener) error {
	return s.fresh(open, s.base, "scale", func(t store, dir string) error {
		o, err := s.write(t, 1, s.shuffled(), 1, s.Cap)
		if err != nil {
			return err
		}
		if err := s.rest(t, s.shuffled(), 1, o.ops); err != nil {
			return err
		}
		if err := s.compact(t, dir, longestSettle); err != nil {
			return err
		}
		// A scan fills the cache if it holds the tree, and if not the reads after it do.
		if _, err := t.Scan(nil, -1, func(_, _ []byte) bool { return true }); err != nil {
			return err
		}
		for range 2 { // the first is not counted
			if o, err = s.readFor(t, 1, s.Cell, 1, 1, false, readUniform); err != nil {
				return err
			}
		}
		s.show(rowScaleGet, 1e9/o.rate())
		version, all := uint64(1), outcome{}
		for all.took < s.Cell { // a small tree is overwritten more than once
			version++
			if o, err = s.write(t, 1, s.overwriting(), version, s.Cell-all.took); err != nil {
				return err
			}
			all.ops += o.ops
			all.took += o.took
		}
		s.show(rowScalePut, 1e9/all.rate())
		return s.verify(t, s.shuffled(), s.keys, 1, version)
	})
}

// rocksScale is stageScale.
func rocksScale(s *session) error {
	dir := filepath.Join(s.Dir, "scale")
	defer os.RemoveAll(dir)
	cells, err := s.dbBench(dir,
		"filluniquerandom,compact,waitforcompaction,readseq,readrandom,readrandom,overwrite",
		"--manual_wal_flush=1", s.seconds(s.Cell))
	if err != nil {
		return err
	}
	last := len(cells) - 1
	s.show(rowScaleGet, 1e9/cells[last-1].rate)
	s.show(rowScalePut, 1e9/cells[last].rate)
	return nil
}

// sizes parses the numbers of keys of --scale.
func sizes(s string) ([]int, error) {
	var out []int
	for _, part := range split(s) {
		n, err := strconv.Atoi(part)
		if err != nil || n < leastKeys {
			return nil, fmt.Errorf("scale: %q is no number of keys from %d", part, leastKeys)
		}
		out = append(out, n)
	}
	return out, nil
}

func (r *report) scaled(engine, row string, keys int) (float64, bool) {
	v, ok := r.over(engine, func(m measured) (float64, bool) {
		v, ok := m.Cells[row]
		return v, ok && m.Keys == keys
	})
	return v.median, ok
}

// scaleTable has a line for each number of keys.
func (r *report) scaleTable() table {
	head := []string{"keys"}
	for _, e := range r.Engines {
		head = append(head, e+" Get ns", e+" Put ns")
	}
	t := table{head}
	for _, n := range r.Sizes {
		cells := []string{strconv.Itoa(n)}
		for _, e := range r.Engines {
			for _, row := range []string{rowScaleGet, rowScalePut} {
				cell := "-"
				if v, ok := r.scaled(e, row, n); ok {
					cell = significant(v)
				}
				cells = append(cells, cell)
			}
		}
		t = append(t, cells)
	}
	return t
}

// scaleChart draws a bar for each engine and number of keys, all of a row to one scale.
func (r *report) scaleChart(title, row string) string {
	const width = 50
	longest := 0.0
	for _, e := range r.Engines {
		for _, n := range r.Sizes {
			v, _ := r.scaled(e, row, n)
			longest = max(longest, v)
		}
	}
	var b strings.Builder
	fmt.Fprintln(&b, title)
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	for _, e := range r.Engines {
		for _, n := range r.Sizes {
			if v, ok := r.scaled(e, row, n); ok {
				bar := strings.Repeat("#", int(width*v/longest+0.5))
				fmt.Fprintf(w, "%s\t%d\t%s %s\n", e, n, bar, significant(v))
			}
		}
	}
	_ = w.Flush() // a strings.Builder does not fail
	return b.String()
}
