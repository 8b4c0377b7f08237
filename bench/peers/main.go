package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// leastKeys is the smallest tree of which a figure means anything.
const leastKeys = 1000

// plan is the command line.
type plan struct {
	config
	engines        []string
	rounds         int
	sizes          []int // numbers of keys to load one after the other
	json, markdown string
}

func main() {
	if childMain() {
		return
	}
	p, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string) (plan, error) {
	var p plan
	var names, rowNames, scale string
	var quick bool
	var cacheMB, memtableMB, pretouchGB, limitMB int64
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	f.IntVar(&p.Keys, "keys", 1_000_000, "pairs to load")
	f.IntVar(&p.ValueBytes, "value", 100, "bytes of a value (at least 20)")
	f.StringVar(&scale, "scale", "",
		"numbers of keys by commas: time of one Get and one Put for each, no other rows")
	f.IntVar(&p.rounds, "rounds", 2, "rounds; the table shows medians")
	f.StringVar(&names, "engines", "", "engines to run, by commas (default all)")
	f.StringVar(&rowNames, "rows", "", "rows to run, parts of names by commas (default all)")
	f.StringVar(&p.json, "json", "", "also write every figure to this file")
	f.StringVar(&p.markdown, "markdown", "", "also write the table to this file")
	f.StringVar(&p.Dir, "dir", "", "where the databases live (default a new temporary directory)")
	f.BoolVar(&quick, "quick", false, "100,000 keys, half a second per cell: a look, not a result")
	f.Int64Var(&cacheMB, "cache", 256, "block cache of every engine, MiB")
	f.Int64Var(&memtableMB, "memtable", 64, "memtable of every engine, MiB")
	f.Int64Var(&pretouchGB, "pretouch", 8, "memory to touch before each engine, GiB")
	f.DurationVar(&p.Cell, "cell", 2*time.Second, "length of a row that runs for a time")
	f.DurationVar(&p.Cap, "cap", 0,
		"a row that runs by count is cut off after this (default 10s, with --large or --scale 24h)")
	f.BoolVar(&p.Large, "large", false, "the rows of a tree larger than memory, no others")
	f.Int64Var(&limitMB, "limit", 0, "memory of each engine with its page cache, MiB (0: any)")
	f.DurationVar(&p.Sustain, "sustain", 10*time.Minute, "length of a sustained overwrite")
	f.Float64Var(&p.Pace, "pace", 100_000, "writes per second beside the reader of paced rows")
	f.Uint64Var(&p.Seed, "seed", 1, "decides keys, values and orders")
	if err := f.Parse(args); err != nil {
		return p, err
	}
	if f.NArg() > 0 {
		return p, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if quick {
		p.Keys, p.Cell = min(p.Keys, 100_000), min(p.Cell, 500*time.Millisecond)
	}
	p.CacheBytes, p.MemtableBytes, p.Pretouch = cacheMB<<20, memtableMB<<20, pretouchGB<<30
	p.Limit = limitMB << 20
	if p.Large {
		p.Pretouch = 0 // what it would touch is dropped for file pages anyway
	}
	sizes, err := sizes(scale)
	if err != nil {
		return p, err
	}
	if p.sizes, p.Scale = sizes, len(sizes) > 0; !p.Scale {
		p.sizes = []int{p.Keys}
	}
	if p.Cap == 0 {
		p.Cap = 10 * time.Second
		if p.Large || p.Scale {
			p.Cap = 24 * time.Hour
		}
	}
	p.Rows = split(rowNames)
	p.engines = split(names)
	if p.engines == nil {
		for _, e := range engines() {
			p.engines = append(p.engines, e.name)
		}
	}
	return p, p.check()
}

func (p *plan) check() error {
	switch {
	case p.Large && p.Scale:
		return errors.New("large and scale are runs of their own")
	case p.Keys < leastKeys:
		return fmt.Errorf("%d keys are too few: at least %d", p.Keys, leastKeys)
	case p.ValueBytes < 20 || p.ValueBytes > 1<<20:
		return fmt.Errorf("values of %d bytes: 20 to 1048576", p.ValueBytes)
	case p.rounds < 1:
		return fmt.Errorf("%d rounds: at least 1", p.rounds)
	case p.Pretouch < 0:
		return errors.New("pretouch cannot be negative")
	case p.CacheBytes < 1<<20 || p.MemtableBytes < 1<<20:
		return errors.New("cache and memtable need at least 1 MiB")
	case p.Cell <= 0 || p.Cap <= 0 || p.Sustain <= 0:
		return errors.New("cell, cap and sustain must be longer than nothing")
	case p.Pace <= 0:
		return errors.New("the pace must be above 0")
	case p.Limit < 0:
		return errors.New("the limit cannot be negative")
	}
	for _, n := range p.engines {
		if _, err := engineNamed(n); err != nil {
			return err
		}
	}
	known := false
	for _, r := range p.rows() {
		known = known || p.Rows.has(r.name)
	}
	if !known {
		return fmt.Errorf("no row matches %q", strings.Join(p.Rows, ","))
	}
	return nil
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// run measures everything and prints the table. An engine that fails loses its cells, not the
// table; the error says so at the end.
func run(ctx context.Context, p plan) error {
	if p.Dir == "" {
		dir, err := os.MkdirTemp("", "peers")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		p.Dir = dir
	}
	d, err := newData(p.config)
	if err != nil {
		return err
	}
	r := report{
		Machine: describe(d), Config: p.config, Rounds: p.rounds, Sizes: p.sizes,
		Engines: p.engines,
	}
	var failures []error
	for _, p.Keys = range p.sizes {
		progressf("%d keys", p.Keys)
		failures = append(failures, p.rotate(ctx, &r)...)
	}
	fmt.Print(r.text())
	if p.markdown != "" {
		err := os.WriteFile(p.markdown, []byte(r.markdownText()), 0o644)
		failures = append(failures, err)
	}
	if p.json != "" {
		failures = append(failures, r.writeJSON(p.json))
	}
	return errors.Join(failures...)
}

// rotate runs the rounds. Each starts with another engine, so that none is always first after a
// pause or always last on a full disk.
func (p *plan) rotate(ctx context.Context, r *report) (failures []error) {
	start := time.Now()
	for round := range p.rounds {
		for i := range p.engines {
			if ctx.Err() != nil {
				return append(failures, ctx.Err())
			}
			c := p.config
			c.Round = round + 1
			c.Engine = p.engines[(i+round*max(1, len(p.engines)/2))%len(p.engines)]
			c.Dir = filepath.Join(p.Dir, c.Engine)
			syscall.Sync() // dirty pages of the one before are not this one's
			if c.Pretouch > 0 {
				if _, err := runSession(ctx, c, func(record) {}); err != nil {
					return append(failures, err)
				}
				c.Pretouch = 0
			}
			m, err := runSession(ctx, c, func(rec record) {
				if rec.Note != "" {
					progressf("%-10s %s", c.Engine, rec.Note)
					return
				}
				progressf("[%4.0fs] round %d %-10s %-24s %14.1f", time.Since(start).Seconds(),
					c.Round, c.Engine, rec.Name, rec.Value)
			})
			if err != nil {
				err = fmt.Errorf("%s, round %d: %w", c.Engine, c.Round, err)
				progressf("%v", err)
				failures = append(failures, err)
			}
			r.Measured = append(r.Measured, m)
			failures = append(failures, os.RemoveAll(c.Dir))
		}
	}
	return failures
}

func progressf(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) }
