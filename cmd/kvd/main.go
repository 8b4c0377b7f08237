package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"kvd/lsm/procs"
	"kvd/netquic"
)

// program is what every command works with: the standard streams and the settings that all
// commands share. One is made per run; nothing in this package is global.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	configFile string
	origins    map[string]string // setting -> where its value came from
	output     string            // -o
	client     clientSettings
}

func main() {
	if serves(os.Args[1:]) {
		netquic.KeepMonitorAwake()
		go procs.Follow(context.Background())
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// serves reports whether these arguments may run a node: the other commands end too soon to gain
// by a second start.
func serves(args []string) bool {
	return len(args) == 0 || args[0] == "serve" || strings.HasPrefix(args[0], "-")
}

// run is main as a function: it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{stdin: stdin, stdout: stdout, stderr: stderr, origins: map[string]string{}}
	root := p.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ctx, stop := interruptible()
	defer stop()
	cmd, err := root.ExecuteContextC(ctx)
	return p.report(cmd, err)
}

// rootCommand is the parts list.
func (p *program) rootCommand() *cobra.Command {
	root := p.serveCommand()
	root.Use = "kvd"
	root.Short = "A key-value store: the node and its command line"
	root.Long = "kvd without a command serves a node, as `kvd serve` does."
	root.Version = version()
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.SuggestionsMinimumDistance = 2
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return p.configure(cmd) }
	root.SetFlagErrorFunc(flagError)

	shared := root.PersistentFlags()
	shared.StringVar(&p.configFile, "config", "", "read settings from this TOML file")
	p.addOutputFlag(root)

	root.AddCommand(
		p.serveCommand(),
		p.putCommand(), p.getCommand(), p.delCommand(), p.scanCommand(),
		p.importCommand(), p.exportCommand(),
		p.statusCommand(), p.checkpointCommand(), p.compactCommand(),
		p.scrubCommand(), p.ringCommand(), p.explainCommand(), p.certCommand(),
		p.debugCommand(), p.demoCommand(), p.configCommand(), p.versionCommand(),
	)
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil {
		onlyCommands(c)
	}
	return root
}

// flagError is a mistake in the flags of cmd. What was meant for a key or a value may be one.
func flagError(cmd *cobra.Command, err error) error {
	e := &usageError{err: err}
	if strings.Contains(cmd.Use, "KEY") {
		e.hint = "a key or a value that begins with - goes behind --, flags before it; see: " +
			cmd.CommandPath() + " --help"
	}
	return e
}

// onlyCommands makes cmd one that does nothing without one of its commands.
func onlyCommands(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		if len(args) > 0 {
			return usagef("unknown command %q; there are: %s", args[0], strings.Join(names, ", "))
		}
		return usagef("needs one of its commands: %s", strings.Join(names, ", "))
	}
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, as --version does",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(p.stdout, "kvd version", version())
			return err
		},
	}
}

// interruptible returns a context that ends with the first SIGINT or SIGTERM, for the command to
// clean up. The second ends the process at once.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitFailed)
	}()
	return ctx, cancel
}

// version is what the build recorded: a module version or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+changes"
			}
		}
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if commit != "" {
		return commit + dirty
	}
	return "devel"
}
