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

// settings are the flags.
type settings struct {
	budget time.Duration
	only   string
	record bool
	museum bool
	list   bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var s settings
	flag.DurationVar(&s.budget, "budget", 10*time.Minute, "time for all parts together")
	flag.StringVar(&s.only, "only", "", "the parts or exhibits to run, with commas between")
	flag.BoolVar(&s.record, "record", false, "add the figures to docs/ledger.jsonl and ledger.md; "+
		"with -museum, write docs/museum.md")
	flag.BoolVar(&s.museum, "museum", false, "seed one bug after the other and see that tests fail")
	flag.BoolVar(&s.list, "list", false, "list the parts, or with -museum the exhibits")
	flag.Parse()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "kvprove:", err)
		stop()
		os.Exit(1)
	}
}

var errUsage = errors.New("run it in the root of the source tree: no go.mod here")

func run(ctx context.Context, s settings) error {
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if _, err := os.Stat("go.mod"); err != nil {
		return errUsage
	}
	temp, err := os.MkdirTemp("", "kvprove")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if s.museum {
		return runMuseum(ctx, s, temp)
	}
	return runParts(ctx, s, temp)
}

// wanted reports whether name is among the comma-separated names of -only.
func (s *settings) wanted(name string) bool {
	if s.only == "" {
		return true
	}
	for _, n := range strings.Split(s.only, ",") {
		if strings.TrimSpace(n) == name {
			return true
		}
	}
	return false
}

// checkOnly demands that -only names what there is.
func (s *settings) checkOnly(names []string) error {
	known := " " + strings.Join(names, " ") + " "
	for _, n := range strings.Split(s.only, ",") {
		if n = strings.TrimSpace(n); n != "" && !strings.Contains(known, " "+n+" ") {
			return fmt.Errorf("-only: no %q; there are:%s", n, known)
		}
	}
	return nil
}

func moduleFile(name string) string { return filepath.FromSlash(name) }
