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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"kvd/lsm"
	"kvd/replication"
)

func (p *program) demoCommand() *cobra.Command {
	var writing time.Duration
	cmd := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "Run a throw-away node on real files, kill -9 it, and prove that nothing is lost",
		Long: `Demo starts a node of its own on free ports and a temporary directory, imports every
file below DIR (by default the sources of the Go installation), reads all of it back, kills the
node in the middle of synced writes, starts it again and looks for every write that was
acknowledged. It leaves nothing behind.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("takes at most a directory, got %d arguments", len(args))
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&writing, "write-for", 2*time.Second,
		"how long to write before the kill")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		source := ""
		if len(args) == 1 {
			source = args[0]
		}
		return p.demo(cmd.Context(), source, writing)
	}
	return cmd
}

// demo is the run: its phases, and the cleaning up.
type demo struct {
	p      *program
	source string
	temp   string
	node   *childNode
	client *replication.Client
	files  []string // keys, which are paths below source, ascending
	bytes  int64
	start  time.Time
}

func (p *program) demo(ctx context.Context, source string, writing time.Duration) (err error) {
	d := &demo{p: p, start: time.Now()}
	if d.source, err = demoSource(ctx, source); err != nil {
		return err
	}
	if d.temp, err = os.MkdirTemp("", "kvd-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.clean()) }()
	// Whoever is impatient interrupts twice. That must not end the cleaning up, which is short.
	defer context.AfterFunc(ctx, func() { signal.Ignore(os.Interrupt, syscall.SIGTERM) })()
	p.client.knownNodes = filepath.Join(d.temp, "known_nodes")
	p.client.pin = ""
	p.client.timeout = 30 * time.Second
	for _, phase := range []func(context.Context) error{
		d.startNode, d.load, d.readBack, d.scanAll,
		func(ctx context.Context) error { return d.killAndRecover(ctx, writing) },
	} {
		err := phase(ctx)
		if ctx.Err() != nil {
			return errors.New("interrupted; the node and its files are gone")
		}
		if err != nil {
			return err
		}
	}
	d.say("\nAll of it held, in %s. The node and its files are gone again. Now with your own:\n\n"+
		"  kvd                          start a node on ./kvd-data\n"+
		"  kvd put greeting 'hello'     write, in another terminal\n"+
		"  kvd get greeting             read\n"+
		"  kvd import --dir SOME/DIR    a directory of files\n"+
		"  kvd status                   what the node is doing\n", short(time.Since(d.start)))
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

// clean ends the node and removes everything.
func (d *demo) clean() error {
	if d.client != nil {
		_ = d.client.Close() // its node is about to go
	}
	if d.node != nil {
		d.node.kill()
	}
	return os.RemoveAll(d.temp)
}

func (d *demo) startNode(ctx context.Context) (err error) {
	d.node, err = startChildNode(filepath.Join(d.temp, "data"), "127.0.0.1:0",
		d.p.client.knownNodes, d.p.stderr)
	if err != nil {
		return err
	}
	d.say("A node runs at %s, its data in %s.", d.node.ready.Listen, d.node.ready.Data)
	return d.connect(ctx)
}

func (d *demo) connect(ctx context.Context) (err error) {
	d.p.client.addr = d.node.ready.Listen
	d.client, err = d.p.dial(ctx)
	return err
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
		case info.Size() > lsm.MaxValueBytes:
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
	im := importer{store: d.client, report: report, show: show,
		options: importOptions{dir: d.source, durability: durabilityFlag(lsm.Async)},
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
	d.say("Imported %s files of %s: %s in %s, %s.%s", grouped(report.pairs), d.source,
		megabytes(report.bytes), short(took), rate(report.bytes, took), leftOut(large, other))
	return d.figure("import", map[string]any{"files": report.pairs, "bytes": report.bytes,
		"seconds": took.Seconds(), "too_large": large, "other": other})
}

func leftOut(large, other int) string {
	s := ""
	if large > 0 {
		s += fmt.Sprintf(" %d files above the limit of %s were left out.", large,
			megabytes(lsm.MaxValueBytes))
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
			var value []byte
			for {
				i := int(next.Add(1)) - 1
				if i >= len(d.files) {
					return nil
				}
				name := d.files[i]
				asked := time.Now()
				var err error
				if value, err = d.client.Get(ctx, []byte(name), value[:0]); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				times[r] = append(times[r], time.Since(asked))
				want, err := root.ReadFile(name)
				if err != nil {
					return err
				}
				if !bytes.Equal(value, want) {
					return fmt.Errorf("%s comes back different from its file", name)
				}
				show.add(len(value))
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
	d.say("Read all of them back and compared every byte: %s, %s gets a second, half of them "+
		"within %s, 99 of 100 within %s.", rate(d.bytes, took),
		grouped(int64(float64(len(all))/took.Seconds())), short(percentile(all, 50)),
		short(percentile(all, 99)))
	return d.figure("read", map[string]any{"files": len(all), "bytes": d.bytes,
		"seconds": took.Seconds(), "p50_seconds": percentile(all, 50).Seconds(),
		"p99_seconds": percentile(all, 99).Seconds()})
}

// percentile sorts times and returns the one that q of 100 do not exceed.
func percentile(times []time.Duration, q int) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[(len(times)-1)*q/100]
}

// scanAll walks over all pairs and checks the order and that none is missing or made up.
func (d *demo) scanAll(ctx context.Context) error {
	i := 0
	start := time.Now()
	err := d.client.Scan(ctx, nil, nil, 0, func(key, value []byte) error {
		if i >= len(d.files) || string(key) != d.files[i] {
			return fmt.Errorf("scan: pair %d is %s, not the one to come", i, printable(key))
		}
		i++
		return nil
	})
	took := time.Since(start)
	if err == nil && i != len(d.files) {
		err = fmt.Errorf("scan: %d pairs of %d", i, len(d.files))
	}
	if err != nil {
		return err
	}
	d.say("Scanned all %s in the order of their keys, none missing, none extra: %s.",
		grouped(int64(i)), rate(d.bytes, took))
	return d.figure("scan", map[string]any{"pairs": i, "seconds": took.Seconds()})
}

// writtenPair is a pair of the writers, with what is known of it.
type writtenPair struct {
	key, value   string
	acknowledged bool
}

// killAndRecover kills the node while 8 writers write with Sync, starts it again, and looks for
// every pair.
func (d *demo) killAndRecover(ctx context.Context, writing time.Duration) error {
	written, err := d.writeUntilKilled(ctx, writing)
	if err != nil {
		return err
	}
	listen := d.node.ready.Listen
	_ = d.client.Close() // its node is gone
	d.client = nil
	start := time.Now()
	d.node, err = startChildNode(filepath.Join(d.temp, "data"), listen,
		d.p.client.knownNodes, d.p.stderr)
	if err != nil {
		return fmt.Errorf("start after the kill: %w", err)
	}
	recovery := time.Since(start)
	if err := d.connect(ctx); err != nil {
		return err
	}
	acknowledged, survived, open := 0, 0, 0
	for _, w := range written {
		value, err := d.client.Get(ctx, []byte(w.key), nil)
		there := err == nil && string(value) == w.value
		switch {
		case err != nil && !errors.Is(err, lsm.ErrNotFound):
			return err
		case err == nil && !there:
			return fmt.Errorf("%s has a value that nobody wrote", w.key)
		case w.acknowledged && !there:
			return fmt.Errorf("%s was acknowledged and is lost", w.key)
		case w.acknowledged:
			acknowledged++
		case there:
			survived++
		default:
			open++
		}
	}
	d.say("Started again in %s. All %s acknowledged writes are there. Of the %d under way at the "+
		"kill, %d made it and %d did not: either is right, nobody was told.", short(recovery),
		grouped(int64(acknowledged)), survived+open, survived, open)
	return d.figure("recover", map[string]any{"acknowledged": acknowledged, "lost": 0,
		"unacknowledged_survived": survived, "unacknowledged_gone": open,
		"recovery_seconds": recovery.Seconds()})
}

// writeUntilKilled runs the writers, kills the node in the middle, and returns all they wrote.
func (d *demo) writeUntilKilled(ctx context.Context, writing time.Duration) (
	[]writtenPair, error) {
	const writers = 8
	results := make([][]writtenPair, writers)
	times := make([][]time.Duration, writers)
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for w := range writers {
		wg.Go(func() { results[w], times[w] = d.writeLoop(ctx, w) })
	}
	select {
	case <-time.After(writing):
	case <-ctx.Done():
	}
	d.node.kill()
	time.AfterFunc(time.Second, stop) // for whoever still waits for an answer
	wg.Wait()
	written := slices.Concat(results...)
	all := slices.Concat(times...)
	if len(all) == 0 {
		return nil, errors.New("no write was acknowledged before the kill")
	}
	d.say("Wrote %s pairs with 8 writers, each write synced to the disk: %s a second, half of "+
		"them within %s, 99 of 100 within %s. Then killed the node with SIGKILL in the middle.",
		grouped(int64(len(all))), grouped(int64(float64(len(all))/writing.Seconds())),
		short(percentile(all, 50)), short(percentile(all, 99)))
	return written, d.figure("write", map[string]any{"acknowledged": len(all),
		"seconds": writing.Seconds(), "p50_seconds": percentile(all, 50).Seconds(),
		"p99_seconds": percentile(all, 99).Seconds()})
}

// writeLoop writes one pair after the other until the first that fails.
func (d *demo) writeLoop(ctx context.Context, w int) (
	pairs []writtenPair, times []time.Duration) {
	for i := 0; ; i++ {
		pair := writtenPair{key: fmt.Sprintf("kvd-demo/writer%d/%06d", w, i),
			value: fmt.Sprintf("pair %d of writer %d, %s", i, w, strings.Repeat("x", 100))}
		asked := time.Now()
		err := d.client.Put(ctx, []byte(pair.key), []byte(pair.value), lsm.Sync)
		pair.acknowledged = err == nil
		pairs = append(pairs, pair)
		if err != nil {
			return pairs, times
		}
		times = append(times, time.Since(asked))
	}
}
