package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"kvd/lsm"
	"kvd/replication"
)

func (p *program) demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "Run a throw-away cluster on real files, kill nodes, and prove that nothing is lost",
		Long: `Demo starts five nodes of its own on free ports and a temporary directory, imports
every file below DIR (by default the sources of the Go installation) at W=QUORUM, reads all of it
back, kills two nodes while clients write, brings them back, one of them without its disk, and
proves on their disks that all replicas are equal and every write that was acknowledged is there.
It leaves nothing behind. With --keep the nodes stay up, for you to play with, until Ctrl-C.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("takes at most a directory, got %d arguments", len(args))
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&o.writing, "write-for", 6*time.Second,
		"how long to write, before and after the kill together")
	cmd.Flags().BoolVar(&o.keep, "keep", false, "leave the nodes up at the end, until Ctrl-C")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			o.source = args[0]
		}
		return p.demo(cmd.Context(), o)
	}
	return cmd
}

// demoOptions are the flags of demo.
type demoOptions struct {
	source  string
	writing time.Duration
	keep    bool
}

// demo is the run: its phases, and the cleaning up.
type demo struct {
	p       *program
	options demoOptions
	source  string
	temp    string
	nodes   []*demoNode
	place   *replication.Placement
	client  *replication.ClusterClient
	files   []string // keys, which are paths below source, ascending
	bytes   int64
	written []writtenPair
	start   time.Time
}

func (p *program) demo(ctx context.Context, o demoOptions) (err error) {
	d := &demo{p: p, options: o, start: time.Now()}
	if d.source, err = demoSource(ctx, o.source); err != nil {
		return err
	}
	if d.temp, err = os.MkdirTemp("", "kvd-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.clean()) }()
	// Whoever is impatient interrupts twice. That must not end the cleaning up, which is short.
	defer context.AfterFunc(ctx, func() { signal.Ignore(os.Interrupt, syscall.SIGTERM) })()
	p.client = clientSettings{tls: filepath.Join(d.temp, "tls"), timeout: 30 * time.Second}
	for _, phase := range []func(context.Context) error{
		d.startNodes, d.load, d.readBack, d.writeThroughFailure, d.bringBack, d.prove,
	} {
		err := phase(ctx)
		if ctx.Err() != nil {
			return errors.New("interrupted; the nodes and their files are gone")
		}
		if err != nil {
			return err
		}
	}
	if o.keep {
		if err := d.keep(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		return nil // Ctrl-C is how that ends
	}
	d.say("\nAll of it held, in %s. The nodes and their files are gone again. Now with "+
		"your own:\n\n%s"+
		"  kvd                          start a node on ./kvd-data\n"+
		"  kvd put greeting 'hello'     write, in another terminal\n"+
		"  kvd get greeting             read\n"+
		"  kvd import --dir SOME/DIR    a directory of files\n"+
		"  kvd demo --keep              this cluster again, to play with\n",
		short(time.Since(d.start)), installHint())
	return nil
}

// say prints a line of the story. With -o json stdout has the figures only.
func (d *demo) say(format string, args ...any) {
	out := d.p.stdout
	if d.p.output == outputJSON {
		out = d.p.stderr
	}
	fmt.Fprintf(out, format+"\n", args...)
}

// figure prints one measured fact for programs.
func (d *demo) figure(name string, facts map[string]any) error {
	if d.p.output != outputJSON {
		return nil
	}
	facts["phase"] = name
	return d.p.printJSON(facts)
}

// demoSource returns the directory to import.
func demoSource(ctx context.Context, dir string) (string, error) {
	if dir == "" {
		out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
		if err != nil {
			return "", usagef("there is no Go installation here whose sources to import; " +
				"name a directory: kvd demo DIR")
		}
		dir = filepath.Join(strings.TrimSpace(string(out)), "src")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	found := false
	err = walkFiles(ctx, root, func(_ string, e fs.DirEntry) error {
		info, err := e.Info()
		if err != nil || info.Size() > lsm.MaxValueBytes {
			return nil
		}
		found = true
		return fs.SkipAll
	}, func(string, string, bool) {})
	if err == nil && !found {
		err = fmt.Errorf("%s: no file below it that could be imported", dir)
	}
	return dir, err
}

// load imports the files, one pair each.
func (d *demo) load(ctx context.Context) error {
	root, err := os.OpenRoot(d.source)
	if err != nil {
		return err
	}
	defer root.Close()
	large, other := 0, 0
	err = walkFiles(ctx, root, func(name string, e fs.DirEntry) error {
		info, err := e.Info()
		switch {
		case err != nil:
			other++
		case info.Size() > replication.MaxObjectValueBytes:
			large++
		default:
			d.files = append(d.files, name)
			d.bytes += info.Size()
		}
		return nil
	}, func(string, string, bool) { other++ })
	if err != nil {
		return err
	}
	slices.Sort(d.files) // by the path, which is the key, not by directories as they were walked
	show := d.p.startProgress("import", d.bytes)
	report := new(bulkReport)
	im := importer{store: clusterStore{d.client, report}, report: report, show: show,
		options: importOptions{dir: d.source, durability: durabilityFlag(lsm.Sync)},
		load:    func(it item) ([]byte, error) { return root.ReadFile(it.file) }}
	start := time.Now()
	err = im.run(ctx, func(_ context.Context, emit func(item) error, _ *bulkReport) error {
		for _, name := range d.files {
			if err := emit(item{key: []byte(name), file: name}); err != nil {
				return err
			}
		}
		return nil
	})
	took := time.Since(start)
	show.stop()
	if err != nil {
		return err
	}
	if report.failed > 0 {
		return fmt.Errorf("%d files of %s cannot be read: %v", report.failed, d.source,
			report.notes[0])
	}
	d.say("Imported %s files of %s at W=QUORUM, each synced on two nodes: %s in %s, %s.%s",
		grouped(report.pairs), d.source,
		megabytes(report.bytes), short(took), rate(report.bytes, took), leftOut(large, other))
	return d.figure("import", map[string]any{"files": report.pairs, "bytes": report.bytes,
		"seconds": took.Seconds(), "too_large": large, "other": other})
}

func leftOut(large, other int) string {
	s := ""
	if large > 0 {
		s += fmt.Sprintf(" %d files above the limit of %s were left out.", large,
			megabytes(replication.MaxObjectValueBytes))
	}
	if other > 0 {
		s += fmt.Sprintf(" %d that are no regular files, too.", other)
	}
	return s
}

// readBack gets every pair and compares it with its file, byte for byte.
func (d *demo) readBack(ctx context.Context) error {
	const readers = 16
	root, err := os.OpenRoot(d.source)
	if err != nil {
		return err
	}
	defer root.Close()
	show := d.p.startProgress("read", d.bytes)
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	times := make([][]time.Duration, readers)
	start := time.Now()
	for r := range readers {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(d.files) {
					return nil
				}
				name := d.files[i]
				asked := time.Now()
				v, err := d.client.Get(ctx, []byte(name), replication.ReadOptions{})
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				times[r] = append(times[r], time.Since(asked))
				want, err := root.ReadFile(name)
				if err != nil {
					return err
				}
				if err := sameAsFile(name, v.All, want); err != nil {
					return err
				}
				show.add(len(want))
			}
		})
	}
	err = group.Wait()
	took := time.Since(start)
	show.stop()
	if err != nil {
		return err
	}
	all := slices.Concat(times...)
	d.say("Read all of them back at R=QUORUM and compared every byte: %s, %s gets a second, half "+
		"of them within %s, 99 of 100 within %s.", rate(d.bytes, took),
		grouped(int64(float64(len(all))/took.Seconds())), short(percentile(all, 50)),
		short(percentile(all, 99)))
	return d.figure("read", map[string]any{"files": len(all), "bytes": d.bytes,
		"seconds": took.Seconds(), "p50_seconds": percentile(all, 50).Seconds(),
		"p99_seconds": percentile(all, 99).Seconds()})
}

// sameAsFile says how what a read gave differs from the file.
func sameAsFile(name string, values [][]byte, want []byte) error {
	switch {
	case len(values) != 1:
		return fmt.Errorf("%s has %d values, not the one that was written", name, len(values))
	case !bytes.Equal(values[0], want):
		at := 0
		for at < min(len(values[0]), len(want)) && values[0][at] == want[at] {
			at++
		}
		return fmt.Errorf("%s comes back different from its file: %d bytes, not %d, and different "+
			"from byte %d on", name, len(values[0]), len(want), at)
	}
	return nil
}

// percentile sorts times and returns the one that q of 100 do not exceed.
func percentile(times []time.Duration, q int) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[(len(times)-1)*q/100]
}
