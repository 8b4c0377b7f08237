package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// The forms of output: for people, for programs, and bytes as they are.
const (
	outputTable = "table"
	outputJSON  = "json"
	outputRaw   = "raw"
)

func (p *program) addOutputFlag(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVarP(&p.output, "output", "o", outputTable,
		"form of output: table, json (one object per line) or raw")
	setting(flags, "output")
}

func (p *program) checkOutput() error {
	switch p.output {
	case outputTable, outputJSON, outputRaw:
		return nil
	}
	return usagef("output %q: must be table, json or raw", p.output)
}

// printJSON writes v as one line.
func (p *program) printJSON(v any) error {
	e := json.NewEncoder(p.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table collects rows and prints them in the form asked for: aligned under a heading, as a JSON
// object per row, or as tab-separated fields.
type table struct {
	p    *program
	w    *tabwriter.Writer
	fail error
}

func (p *program) newTable(heading ...string) *table {
	t := &table{p: p, w: tabwriter.NewWriter(p.stdout, 0, 8, 2, ' ', 0)}
	if p.output == outputTable {
		t.add(nil, heading...)
	}
	return t
}

func (t *table) add(object any, fields ...string) {
	var err error
	switch t.p.output {
	case outputTable:
		_, err = fmt.Fprintln(t.w, strings.Join(fields, "\t"))
	case outputRaw:
		_, err = fmt.Fprintln(t.p.stdout, strings.Join(fields, "\t"))
	case outputJSON:
		err = t.p.printJSON(object)
	}
	if t.fail == nil {
		t.fail = err
	}
}

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	return t.fail
}

// printable shows bytes on one line without surprises for the terminal: as they are when all of
// them are plain text, else quoted as in Go.
func printable(b []byte) string {
	if len(b) == 0 || !utf8.Valid(b) {
		return strconv.Quote(string(b))
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) || r == '"' || r == '\\' {
			return strconv.Quote(string(b))
		}
	}
	return string(b)
}

// harmless shows a sentence on one line. Escapes replace only what a terminal might obey.
func harmless(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			quoted := strconv.Quote(s)
			return quoted[1 : len(quoted)-1]
		}
	}
	return s
}

// isTerminal reports whether w is a terminal, where people watch.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// megabytes prints a number of bytes in the unit a person would choose. Units are decimal, as
// disks and networks are sold.
func megabytes(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	exp := min(int(math.Log10(float64(n)))/3, len(units))
	return fmt.Sprintf("%.1f %cB", float64(n)/math.Pow(1000, float64(exp)), units[exp-1])
}

// rate prints bytes per second.
func rate(bytes int64, d time.Duration) string {
	return megabytes(int64(float64(bytes)/max(d.Seconds(), 1e-9))) + "/s"
}

// grouped prints a count with thousands apart: 12 345.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// plural prints a count of things: 1 key, 2 keys.
func plural[N int | int64 | uint64](n N, thing string) string {
	return fmt.Sprintf("%d %s", n, noun(n, thing))
}

// noun is the word for so many: key, keys, losses, entries.
func noun[N int | int64 | uint64](n N, thing string) string {
	switch {
	case n == 1:
		return thing
	case strings.HasSuffix(thing, "s"):
		return thing + "es"
	case strings.HasSuffix(thing, "ry"):
		return strings.TrimSuffix(thing, "y") + "ies"
	}
	return thing + "s"
}

// short prints a duration with three digits: 1.23s, 45.6ms, 789µs.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
