package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"kvd/bench"
	"kvd/netquic"
)

// The exit codes. Scripts rely on them.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake in the command line: nothing was done.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

func main() {
	netquic.KeepMonitorAwake()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main as a function: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s := &settings{}
	root := &cobra.Command{
		Use:   "kvbench WORKLOAD...",
		Short: "Make load on a key-value store and measure it",
		Long: "Make load on a kvd node, or on the engine in this process, and measure it.\n\n" +
			list(),
		Example: `  kvbench fillrandom readrandom --target embedded:/tmp/db --durability nosync
  kvbench ping readrandom ycsb-a --workers 64 --html report.html
  kvbench ycsb-a --rate 20000 --duration 1m --verify`,
		ValidArgs:     strings.Fields(bench.WorkloadNames()),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			return checkWorkloads(args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(args); err != nil {
				return err
			}
			return measure(cmd.Context(), s, args, stdout, stderr)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	s.addTo(root.Flags())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "kvbench: %s\n", strings.TrimSpace(err.Error()))
	if _, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintln(stderr, "  see: kvbench --help")
		return exitUsage
	}
	return exitFailed
}

// list says what each workload does.
func list() string {
	var b strings.Builder
	b.WriteString("Workloads:\n")
	for _, w := range bench.Workloads() {
		fmt.Fprintf(&b, "  %-17s %s\n", w.Name, w.About)
	}
	return strings.TrimRight(b.String(), "\n")
}

func checkWorkloads(args []string) error {
	if len(args) == 0 {
		return usagef("name at least one workload: %s", bench.WorkloadNames())
	}
	for _, name := range args {
		if _, ok := bench.WorkloadByName(name); !ok {
			return usagef("no workload %q; there are: %s", name, bench.WorkloadNames())
		}
	}
	return nil
}
