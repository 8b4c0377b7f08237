package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is everything that was measured, as it is written to --json.
type report struct {
	Machine  machine
	Config   config
	Rounds   int
	Sizes    []int // numbers of keys
	Engines  []string
	Measured []measured
}

// spread is the figures of one engine in one row over the rounds.
type spread struct{ median, low, high float64 }

// spreadOf gives false when no round has the figure.
func (r *report) spreadOf(engine, name string) (spread, bool) {
	return r.over(engine, func(m measured) (float64, bool) { v, ok := m.Cells[name]; return v, ok })
}

// cpuOf is spreadOf for processor time.
func (r *report) cpuOf(engine, name string) (spread, bool) {
	return r.over(engine, func(m measured) (float64, bool) { v, ok := m.CPU[name]; return v, ok })
}

func (r *report) over(engine string, of func(measured) (float64, bool)) (spread, bool) {
	var all []float64
	for _, m := range r.Measured {
		if v, ok := of(m); ok && m.Engine == engine {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return spread{}, false
	}
	slices.Sort(all)
	mid := len(all) / 2
	median := all[mid]
	if len(all)%2 == 0 {
		median = (all[mid-1] + all[mid]) / 2
	}
	return spread{median, all[0], all[len(all)-1]}, true
}

// ours is the column the ratios are about; rival is the peer that has a ratio of its own.
const (
	ours  = "kvd"
	rival = "pebble"
)

// even is how far from 1 a ratio may be and still say nothing.
const even = 0.03

// ratios of one row: how many times better ours is than the best peer and than the rival. Zero is
// unknown.
type ratios struct {
	best, rival float64
	bestName    string
}

func (r *report) ratiosOf(line row) ratios {
	var out ratios
	own, ok := r.spreadOf(ours, line.name)
	if !ok || own.median == 0 {
		return out
	}
	for _, e := range r.Engines {
		peer, ok := r.spreadOf(e, line.name)
		if !ok || e == ours || peer.median == 0 {
			continue
		}
		ratio := own.median / peer.median
		if line.latency {
			ratio = 1 / ratio
		}
		if e == rival {
			out.rival = ratio
		}
		if out.best == 0 || ratio < out.best {
			out.best, out.bestName = ratio, e
		}
	}
	return out
}

// mark says at a glance who is ahead of the best peer.
func mark(ratio float64) string {
	switch {
	case ratio == 0:
		return ""
	case ratio > 1+even:
		return "leads"
	case ratio < 1-even:
		return "TRAILS"
	}
	return "even"
}

// table is a grid of text, the first line of which is its head.
type table [][]string

func (r *report) measuredRows() []row {
	var out []row
	for _, line := range r.Config.rows() {
		for _, e := range r.Engines {
			if _, ok := r.spreadOf(e, line.name); ok {
				out = append(out, line)
				break
			}
		}
	}
	return out
}

func (r *report) main() table {
	head := []string{"kops/s (latency: us)"}
	for _, e := range r.Engines {
		head = append(head, r.heading(e))
	}
	t := table{append(head, ours+"/best", "best peer", ours+"/"+rival, "")}
	for _, line := range r.measuredRows() {
		cells := []string{line.title}
		for _, e := range r.Engines {
			cells = append(cells, r.cell(e, line))
		}
		q := r.ratiosOf(line)
		t = append(t, append(cells, ratio(q.best), q.bestName, ratio(q.rival), mark(q.best)))
	}
	return t
}

// heading stars the engines that load in a stronger class than ours does.
func (r *report) heading(name string) string {
	if e, err := engineNamed(name); err == nil && e.loadClass() != buffered {
		return name + "*"
	}
	return name
}

func (r *report) cell(engine string, line row) string {
	v, ok := r.spreadOf(engine, line.name)
	if !ok {
		return "-"
	}
	if line.latency {
		return significant(v.median)
	}
	return significant(v.median / 1e3)
}

func (r *report) spreads() table {
	head := []string{"min..max, % of the median"}
	t := table{append(head, r.Engines...)}
	for _, line := range r.measuredRows() {
		cells := []string{line.title}
		for _, e := range r.Engines {
			v, ok := r.spreadOf(e, line.name)
			if !ok || v.median == 0 {
				cells = append(cells, "-")
				continue
			}
			cells = append(cells,
				fmt.Sprintf("%.0f..%.0f", 100*v.low/v.median, 100*v.high/v.median))
		}
		t = append(t, cells)
	}
	return t
}

// costs is the table of processor time, whose ratio too is above 1 where ours is better.
func (r *report) costs() table {
	head := append([]string{"CPU us per operation"}, r.Engines...)
	t := table{append(head, rival+"/"+ours)}
	for _, line := range r.measuredRows() {
		cells, any := r.cells(line.title, significant, func(m measured) (float64, bool) {
			v, ok := m.CPU[line.name]
			return v, ok
		})
		own, _ := r.cpuOf(ours, line.name)
		peer, _ := r.cpuOf(rival, line.name)
		q := 0.0
		if own.median > 0 {
			q = peer.median / own.median
		}
		if any {
			t = append(t, append(cells, ratio(q)))
		}
	}
	return t
}

// collected is the table of the Go collector's share. It tells what memory that is handed out and
// dropped costs beside the work itself.
func (r *report) collected() table {
	t := table{append([]string{"GC % of CPU"}, r.Engines...)}
	tenths := func(v float64) string { return fmt.Sprintf("%.1f", v) }
	for _, line := range r.measuredRows() {
		cells, any := r.cells(line.title, tenths, func(m measured) (float64, bool) {
			v, ok := m.GC[line.name]
			return v, ok
		})
		if any {
			t = append(t, cells)
		}
	}
	return t
}

func (r *report) factsTable() table {
	t := table{append([]string{"beside the rows"}, r.Engines...)}
	for _, f := range facts() {
		cells, any := r.cells(f, significant, func(m measured) (float64, bool) {
			v, ok := m.Cells[f]
			return v, ok
		})
		if any {
			t = append(t, cells)
		}
	}
	return t
}

// cells is a line of medians; false when no engine has the figure.
func (r *report) cells(title string, format func(float64) string,
	of func(measured) (float64, bool),
) (line []string, any bool) {
	line = []string{title}
	for _, e := range r.Engines {
		v, ok := r.over(e, of)
		if !ok {
			line = append(line, "-")
			continue
		}
		any = true
		line = append(line, format(v.median))
	}
	return line, any
}

func ratio(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v)
}

// significant prints three digits.
func significant(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// header is what a reader needs before a figure means anything.
func (r *report) header() []string {
	m, c := r.Machine, r.Config
	lines := []string{
		fmt.Sprintf("machine: %s, %d cores, %.0f GB, Linux %s; load average %s at the start",
			m.CPU, m.Cores, m.MemoryGB, m.Kernel, m.Load),
		fmt.Sprintf("build: %s GOMAXPROCS=%d %s", m.Go, m.GOMAXPROCS, m.Build),
		fmt.Sprintf("data: %s keys of 16 B, values of %d B half compressible, seed %d",
			strings.Trim(fmt.Sprint(r.Sizes), "[]"), c.ValueBytes, c.Seed),
		fmt.Sprintf("each engine: %d MiB cache, %d MiB memtable, 4 KiB blocks, snappy, "+
			"10-bit filters; %d rounds, %v per timed row",
			c.CacheBytes>>20, c.MemtableBytes>>20, r.Rounds, c.Cell),
		"memory of each engine, page cache included: " + limited(c.Limit),
		fmt.Sprintf("inside every clock: %.0f ns to make a pair, %.0f ns to make a key",
			m.WriteNanos, m.ReadNanos),
	}
	for _, name := range r.Engines {
		e, err := engineNamed(name)
		if err != nil {
			continue
		}
		var acks []string
		for c := buffered; c <= synced; c++ {
			if a, ok := e.acks[c]; ok {
				acks = append(acks, fmt.Sprintf("%v = %s", c, a))
			}
		}
		version := m.Versions[name]
		lines = append(lines, strings.TrimSpace(name+" "+version)+": "+strings.Join(acks, "; "))
	}
	return lines
}

func limited(bytes int64) string {
	if bytes == 0 {
		return "not limited"
	}
	return fmt.Sprintf("at most %d MiB", bytes>>20)
}

// notes are what went otherwise than planned, each once.
func (r *report) notes() []string {
	out := []string{
		"* has no buffered class: its unsynced rows survive kill -9, ours need not",
	}
	if !r.Config.Large && !r.Config.Scale {
		out = append(out, "left = as the load left it, background work over; "+
			"compacted = after a full compaction")
	}
	seen := map[string]bool{}
	add := func(s string) {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	for _, name := range r.Engines {
		for _, m := range r.Measured {
			if m.Engine != name {
				continue
			}
			for _, n := range m.Notes {
				add(name + ": " + n)
			}
			if m.Failed != "" {
				add(fmt.Sprintf("%s FAILED in round %d: %s", name, m.Round, m.Failed))
			}
			if f := m.Cells[factForeign]; f > 10 {
				add(fmt.Sprintf("%s, round %d: other programs used %.0f %% of a core: "+
					"the figures are unsafe", name, m.Round, f))
			}
		}
		if e, err := engineNamed(name); err == nil {
			for _, line := range r.Config.rows() {
				if why, ok := e.skip[line.name]; ok && r.Config.Rows.has(line.name) {
					add(fmt.Sprintf("%s, %s: %s", name, line.title, why))
				}
			}
		}
	}
	return out
}

// tables in the order in which they are printed.
func (r *report) tables() []table {
	if r.Config.Scale {
		return []table{r.scaleTable()}
	}
	t := []table{r.main()}
	if r.Rounds > 1 {
		t = append(t, r.spreads())
	}
	return append(t, r.costs(), r.collected(), r.factsTable())
}

// charts are drawn with characters, below the tables.
func (r *report) charts() []string {
	if !r.Config.Scale {
		return nil
	}
	return []string{r.scaleChart("Get, ns", rowScaleGet), r.scaleChart("Put, ns", rowScalePut)}
}

func (r *report) text() string {
	var b strings.Builder
	for _, l := range r.header() {
		fmt.Fprintln(&b, l)
	}
	for _, t := range r.tables() {
		fmt.Fprintln(&b)
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, cells := range t {
			fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
		_ = w.Flush() // a strings.Builder does not fail
	}
	fmt.Fprintln(&b)
	for _, c := range r.charts() {
		fmt.Fprintln(&b, c)
	}
	for _, n := range r.notes() {
		fmt.Fprintln(&b, n)
	}
	return b.String()
}

func (r *report) markdownText() string {
	var b strings.Builder
	bullets := func(lines []string) {
		for _, l := range lines {
			fmt.Fprintln(&b, "-", strings.ReplaceAll(l, "*", `\*`))
		}
		fmt.Fprintln(&b)
	}
	bullets(r.header())
	for _, t := range r.tables() {
		for i, cells := range t {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
			if i == 0 {
				fmt.Fprintf(&b, "|---%s\n", strings.Repeat("|---:", len(cells)-1)+"|")
			}
		}
		fmt.Fprintln(&b)
	}
	for _, c := range r.charts() {
		fmt.Fprintf(&b, "```\n%s```\n\n", c)
	}
	bullets(r.notes())
	return b.String()
}

func (r *report) writeJSON(path string) error {
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(encoded, '\n'), 0o644)
}
