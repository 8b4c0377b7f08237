package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// WriteJSON writes the report as one indented JSON object.
func (p *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(p)
}

// WriteText writes the report as a table for people.
func (p *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	m := &p.Machine
	fmt.Fprintf(&b, "%s, %d cores, %s %s, %s, %s\n", m.CPU, m.Cores, m.OS, m.Kernel, m.Go, m.Arch)
	last := ""
	for _, r := range p.Results {
		if s := r.setting(); s != last {
			fmt.Fprintf(&b, "%s\n", s)
			last = s
		}
	}
	b.WriteByte('\n')
	writeTable(&b, p.rows())
	for _, r := range p.Results {
		r.writeNotes(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// setting is what results must share to be compared.
func (r *Result) setting() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	add("%s", r.Target)
	if r.Durability != "" {
		add("%s", r.Durability)
	}
	add("%s keys of %d B, values of %d B", count(float64(r.Keys)), r.KeyBytes, r.ValueBytes)
	add("%d %s", r.Workers, plural(r.Workers, "worker"))
	add("%s", r.Loop())
	if r.Verified {
		add("verified")
	}
	return strings.Join(parts, " · ")
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

func (p *Report) rows() [][]string {
	rows := [][]string{{
		"workload", "op", "ops", "ops/s", "MB/s", "mean", "p50", "p90", "p99", "p99.9", "max",
		"errors",
	}}
	for _, r := range p.Results {
		name := r.Workload
		for i := range r.Operations {
			o := &r.Operations[i]
			rows = append(rows, append([]string{name, o.Kind}, o.cells(r.Seconds)...))
			name = ""
		}
	}
	return rows
}

func (o *Operation) cells(seconds float64) []string {
	rate := 0.0
	if seconds > 0 {
		rate = float64(o.Bytes) / seconds / 1e6
	}
	return []string{
		count(float64(o.Ops)), count(o.OpsPerSecond), strconv.FormatFloat(rate, 'f', 1, 64),
		duration(o.MeanMicros), duration(o.P50Micros), duration(o.P90Micros),
		duration(o.P99Micros), duration(o.P999Micros), duration(o.MaxMicros),
		count(float64(o.Errors)),
	}
}

// writeTable aligns columns: the first two to the left, figures to the right.
func writeTable(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if i < 2 {
				line.WriteString(cell + pad + "  ")
			} else {
				line.WriteString(pad + cell + "  ")
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

func (r *Result) writeNotes(b *strings.Builder) {
	before := b.Len()
	note := func(format string, args ...any) {
		fmt.Fprintf(b, "\n%s: %s", r.Workload, fmt.Sprintf(format, args...))
	}
	for _, o := range r.Operations {
		if o.Entries > 0 {
			note("%s pairs read, %s/s", count(float64(o.Entries)), count(o.EntriesPerSec))
		}
	}
	if r.SettledSecs >= 0.05 {
		note("background work went on for %s after the last write", duration(1e6*r.SettledSecs))
	}
	if r.ComparedPing > 0 {
		note("p50 of a read is %.2f times that of a ping", r.ComparedPing)
	}
	if r.Hash != "" {
		note("result hash %s", r.Hash)
	}
	for _, s := range r.TargetStats {
		note("%s %s", s.Name, s.Value)
	}
	if r.FirstError != "" {
		note("first error: %s", r.FirstError)
	}
	if r.Offence != "" {
		note("WRONG: %s", r.Offence)
	}
	for _, s := range r.Warnings {
		note("warning: %s", s)
	}
	if b.Len() > before {
		b.WriteByte('\n')
	}
}

// count writes a count or rate with its thousands apart.
func count(v float64) string {
	if v != 0 && v < 100 && v != math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// duration writes microseconds with three digits and the unit that suits them.
func duration(us float64) string {
	ns := us * 1e3
	switch {
	case ns <= 0:
		return "0"
	case ns < 999.5:
		return fmt.Sprintf("%.0f ns", ns)
	case ns < 999.5e3:
		return threeDigits(ns/1e3) + " µs"
	case ns < 999.5e6:
		return threeDigits(ns/1e6) + " ms"
	default:
		return threeDigits(ns/1e9) + " s"
	}
}

func threeDigits(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
}
