package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kvd/lsm"
)

// importOptions are the flags of import.
type importOptions struct {
	dir, jsonl, data string
	prefix           string
	durability       durabilityFlag
	chosen           bool // durability was given
	resume           bool
	verify           bool
	skipLarge        bool
}

func (p *program) importCommand() *cobra.Command {
	o := importOptions{durability: durabilityFlag(lsm.Async)}
	cmd := &cobra.Command{
		Use:   "import --dir DIR | --jsonl FILE",
		Short: "Write a directory of files, or lines of JSON, into the store",
		Long: `Import writes every regular file below DIR as a pair: the key is the path below DIR
with slashes, the value is the content. With --jsonl every line of FILE (- is stdin) is a pair:
{"key":"k","value":"v"}, with key_b64 and value_b64 for what is not UTF-8.

When it reports success everything is durable, whatever --durability says: that is for the
batches on the way. Each batch is read back and compared (--verify). An import that broke off is
continued by --resume, which leaves alone what is there already.`,
		Example: "  kvd import --dir /etc --prefix etc/\n" +
			"  kvd export --jsonl - --addr old:7400 | kvd import --jsonl -",
		Args: noArgs,
	}
	p.addClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "read the files below this directory")
	f.StringVar(&o.jsonl, "jsonl", "", "read pairs from this file, - for stdin")
	f.StringVar(&o.data, "data", "", "write into this data directory, without a node")
	f.StringVar(&o.prefix, "prefix", "", "put this before every key")
	f.Var(&o.durability, "durability",
		"of each batch, by a node by itself: sync, async or nosync; a cluster syncs all")
	f.BoolVar(&o.resume, "resume", false, "leave alone what is there already")
	f.BoolVar(&o.verify, "verify", true, "read every pair back and compare")
	f.BoolVar(&o.skipLarge, "skip-large", false, "files above the limit of a value are no failure")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (o.dir == "") == (o.jsonl == "") {
			return usagef("give one of --dir and --jsonl")
		}
		o.chosen = cmd.Flags().Changed("durability")
		return p.runImport(cmd.Context(), o)
	}
	return cmd
}

// runImport opens source and store, imports and reports.
func (p *program) runImport(ctx context.Context, o importOptions) error {
	source, total, err := p.openSource(ctx, o)
	if err != nil {
		return err
	}
	defer source.close()
	report := new(bulkReport)
	s, err := p.openStore(ctx, o.data, false, report)
	if err != nil {
		return err
	}
	if _, inCluster := s.(clusterStore); inCluster {
		if o.chosen && lsm.Durability(o.durability) != lsm.Sync {
			return errors.Join(usagef("--durability %v is for a node by itself: a cluster syncs "+
				"every write of an import", &o.durability), s.Close())
		}
		o.durability = durabilityFlag(lsm.Sync)
	}
	show := p.startProgress("import", total)
	im := importer{store: s, options: o, report: report, show: show, load: source.load}
	err = im.run(ctx, source.walk)
	show.stop()
	closed := s.Close()
	did, what := "imported", "files"
	if err = errors.Join(err, closed); err != nil {
		did = "broke off; not made durable: wrote"
		// A node keeps synced batches; a database of this process was synced by closing it.
		if lsm.Durability(o.durability) == lsm.Sync || o.data != "" && closed == nil {
			did = "broke off: wrote durably"
		}
	}
	if err = report.conclude(p, "kvd import", did, err); err != nil {
		return err
	}
	if o.jsonl != "" {
		what = "pairs"
	}
	return report.outcome(what)
}

// item is one pair on its way into the store. A file's value is read by whoever writes it.
type item struct {
	key   []byte
	value []byte
	file  string // its name below the directory; empty when value is the value
	size  int64
}

// queued is the memory that the item holds while it waits for a worker, in bytes.
func (it item) queued() int64 { return min(int64(len(it.value)), importQueueBytes) }

// source is where an import comes from.
type source struct {
	walk  func(ctx context.Context, emit func(item) error, report *bulkReport) error
	load  func(it item) ([]byte, error)
	close func()
}

// openSource opens what is to be imported. total is the size of it, -1 if that is not known.
func (p *program) openSource(ctx context.Context, o importOptions) (s source, total int64,
	err error) {
	if o.dir != "" {
		return p.openDirectory(ctx, o)
	}
	in, name := io.NopCloser(p.stdin), "stdin"
	if o.jsonl != "-" {
		if in, err = os.Open(o.jsonl); err != nil {
			return s, 0, err
		}
		name = o.jsonl
	}
	s.close = func() { _ = in.Close() } // only read
	s.load = func(it item) ([]byte, error) { return it.value, nil }
	s.walk = func(ctx context.Context, emit func(item) error, _ *bulkReport) error {
		return readJSONL(ctx, name, in, emit)
	}
	return s, -1, nil
}

func (p *program) openDirectory(ctx context.Context, o importOptions) (s source, total int64,
	err error) {
	// A root cannot be left by a symbolic link that somebody plants while the import runs.
	root, err := os.OpenRoot(o.dir)
	if err != nil {
		return s, 0, err
	}
	total = -1
	if isTerminal(p.stderr) {
		total = 0
		// Failures show up again in the walk that counts.
		_ = walkFiles(ctx, root, func(_ string, d fs.DirEntry) error {
			if info, err := d.Info(); err == nil && info.Size() <= lsm.MaxValueBytes {
				total += info.Size()
			}
			return nil
		}, func(string, string, bool) {})
	}
	s.close = func() { _ = root.Close() } // only read
	s.load = func(it item) ([]byte, error) { return root.ReadFile(it.file) }
	s.walk = func(ctx context.Context, emit func(item) error, report *bulkReport) error {
		return walkFiles(ctx, root, func(name string, d fs.DirEntry) error {
			info, err := d.Info()
			if err != nil {
				report.leaveOut(name, err.Error(), true)
				return nil
			}
			return emit(item{key: []byte(o.prefix + name), file: name, size: info.Size()})
		}, report.leaveOut)
	}
	return s, total, nil
}

// walkFiles calls file for every regular file of root and leaveOut for everything else.
func walkFiles(ctx context.Context, root *os.Root, file func(name string, d fs.DirEntry) error,
	leaveOut func(name, reason string, failure bool)) error {
	return fs.WalkDir(anyNames{root}, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && name == ".":
			return err
		case err != nil:
			leaveOut(name, err.Error(), true)
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			leaveOut(name, kindOfFile(d.Type()), false)
			return nil
		}
		return file(name, d)
	})
}

// anyNames is a root as a file system that, unlike root.FS(), has files whose names are not UTF-8.
type anyNames struct{ *os.Root }

func (a anyNames) Open(name string) (fs.File, error) { return a.Root.Open(name) }

func kindOfFile(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeDevice != 0:
		return "device"
	}
	return "not a regular file"
}

// How long one step of a bulk command and a whole compaction may take: enough for a node that is
// catching up with its compactions.
const (
	bulkTimeout    = 2 * time.Minute
	compactTimeout = 6 * time.Hour
)
