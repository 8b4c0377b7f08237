package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/lsm/vfs"
	"kvd/sstable"
)

// debugCommand looks into files. All of its commands work offline and change nothing.
func (p *program) debugCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Look into the files of a database that no node has open",
	}
	onlyCommands(cmd)
	cmd.AddCommand(p.debugWalCommand(), p.debugTableCommand(), p.debugManifestCommand(),
		p.debugFindCommand(), p.debugVerifyCommand(), p.debugSalvageCommand())
	return cmd
}

func someFiles(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("takes one or more files")
	}
	return nil
}

// eachFile runs fn for every file and goes on after a failure.
func eachFile(files []string, fn func(name string) error) error {
	var errs []error
	for _, name := range files {
		if err := fn(name); err != nil {
			if !strings.Contains(err.Error(), name) {
				err = fmt.Errorf("%s: %w", name, err)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// entryJSON is one version of a key.
type entryJSON struct {
	File   string `json:"file"`
	Level  *int   `json:"level,omitempty"`
	Offset *int64 `json:"offset,omitempty"`
	Seq    uint64 `json:"seq"`
	Kind   string `json:"kind"`
	pairJSON
	Bytes int  `json:"bytes"`
	Old   bool `json:"old,omitempty"`
}

func makeEntryJSON(file string, seq sstable.Seq, kind sstable.Kind, key, value []byte) entryJSON {
	e := entryJSON{File: file, Seq: uint64(seq), Kind: kind.String(), Bytes: len(value)}
	if kind == sstable.KindPut {
		e.pairJSON = makePairJSON(key, value)
	} else {
		e.pairJSON = keyJSON(key)
	}
	return e
}

// valueColumn shows a value, cut to fit a line.
func valueColumn(kind sstable.Kind, value []byte) string {
	const most = 60
	if kind != sstable.KindPut {
		return ""
	}
	if len(value) > most {
		return printable(value[:most]) + fmt.Sprintf("... (%d bytes)", len(value))
	}
	return printable(value)
}

func (p *program) debugWalCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wal FILE...",
		Short: "Print every write in segments of the log",
		Args:  someFiles,
		RunE: func(_ *cobra.Command, args []string) error {
			return eachFile(args, p.debugWal)
		},
	}
}

func (p *program) debugWal(name string) error {
	t := p.newTable("OFFSET", "SEQ", "KIND", "KEY", "VALUE")
	info, err := lsm.InspectLog(vfs.OS, name, func(w lsm.LogWrite) error {
		e := makeEntryJSON(name, w.Seq, w.Kind, w.Key, w.Value)
		e.Offset = &w.Offset
		t.add(e, fmt.Sprint(w.Offset), fmt.Sprint(w.Seq), w.Kind.String(), printable(w.Key),
			valueColumn(w.Kind, w.Value))
		return nil
	})
	if err := errors.Join(t.flush(), err); err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "%s: segment %d: %d frames, %d records, %d writes, sequence %d to %d, "+
		"positions %d to %d, synced to %d\n", name, info.Header.Segment, info.Frames, info.Records,
		info.Writes, info.FirstSeq, info.LastSeq, info.FirstPos, info.End, info.Durable)
	fmt.Fprintf(p.stderr, "%s: ends at offset %d: %s", name, info.StopOffset, info.Stop)
	if info.Beyond > 0 {
		fmt.Fprintf(p.stderr, "; %d valid frames beyond that: a torn end, or damage "+
			"(kvd debug verify tells which)", info.Beyond)
	}
	fmt.Fprintln(p.stderr)
	return nil
}

func (p *program) debugTableCommand() *cobra.Command {
	var entries bool
	cmd := &cobra.Command{
		Use:   "sst FILE...",
		Short: "Print the properties of tables, check them, list their entries",
		Args:  someFiles,
	}
	cmd.Flags().BoolVar(&entries, "entries", false, "list the entries too")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return eachFile(args, func(name string) error { return p.debugTable(name, entries) })
	}
	return cmd
}

func (p *program) debugTable(name string, entries bool) error {
	if _, err := os.Stat(name); err != nil {
		return err
	}
	layout, err := lsm.InspectLayout(vfs.OS, filepath.Dir(name))
	if err != nil {
		return err
	}
	table := layout.Table(name)
	if table == nil {
		return fmt.Errorf("%s does not list this table: it is left over, or not finished",
			layout.Manifest)
	}
	return layout.InspectTable(vfs.OS, *table, func(r *sstable.Reader) error {
		if err := p.printTable(name, table.Level, r.Properties()); err != nil {
			return err
		}
		if entries {
			if err := p.printEntries(name, r); err != nil {
				return err
			}
		}
		if err := r.Verify(); err != nil {
			return err
		}
		fmt.Fprintf(p.stderr, "%s: every block is sound\n", name)
		return nil
	})
}

func (p *program) printTable(name string, level int, m sstable.Properties) error {
	t := p.newTable("TABLE", name)
	if p.output == outputJSON {
		t.add(map[string]any{"file": name, "level": level, "bytes": m.Bytes, "entries": m.Entries,
			"tombstones": m.Tombstones, "blocks": m.Blocks, "raw_bytes": m.RawBytes,
			"smallest": m.Smallest.String(), "largest": m.Largest.String(),
			"min_seq": m.MinSeq, "max_seq": m.MaxSeq, "filter_keys": m.FilterKeys})
		return t.flush()
	}
	row := func(name, format string, args ...any) { t.add(nil, name, fmt.Sprintf(format, args...)) }
	row("number", "%d, UID %016x, level %d", m.Num, m.UID, level)
	row("size", "%d bytes in %d blocks of data, %d before compression, %d of keys and values",
		m.Bytes, m.Blocks, m.BlockBytes, m.RawBytes)
	row("entries", "%d, %d of them tombstones, %d keys in the filter", m.Entries, m.Tombstones,
		m.FilterKeys)
	row("keys", "%v to %v", m.Smallest, m.Largest)
	row("sequence", "%d to %d", m.MinSeq, m.MaxSeq)
	return t.flush()
}

func (p *program) printEntries(name string, r *sstable.Reader) error {
	t := p.newTable("SEQ", "KIND", "KEY", "VALUE")
	it := r.NewIter(sstable.IterOptions{NoFill: true})
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		t.add(makeEntryJSON(name, k.Seq(), k.Kind(), k.User, it.Value()), fmt.Sprint(k.Seq()),
			k.Kind().String(), printable(k.User), valueColumn(k.Kind(), it.Value()))
	}
	return errors.Join(it.Err(), it.Close(), t.flush())
}

func (p *program) debugManifestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "manifest FILE...",
		Short: "Print every edit of manifests",
		Args:  someFiles,
		RunE: func(_ *cobra.Command, args []string) error {
			return eachFile(args, p.debugManifest)
		},
	}
}

func (p *program) debugManifest(name string) error {
	t := p.newTable("EDIT", "WHAT")
	err := lsm.InspectManifest(vfs.OS, name, func(e lsm.ManifestEdit) error {
		add := func(format string, args ...any) {
			what := fmt.Sprintf(format, args...)
			t.add(map[string]any{"file": name, "edit": e.Number, "what": what},
				fmt.Sprint(e.Number), what)
		}
		if e.DatabaseID != 0 {
			add("database %016x", e.DatabaseID)
		}
		if e.LogSegment != 0 {
			add("log from segment %06d, position %d", e.LogSegment, e.LogStart)
		}
		if e.LastSeq != 0 {
			add("last sequence %d", e.LastSeq)
		}
		if e.NextFile != 0 {
			add("next file %d", e.NextFile)
		}
		for _, r := range e.Removed {
			add("remove table %06d from level %d", r.Num, r.Level)
		}
		for _, a := range e.Added {
			add("add table %06d to level %d: %d entries, %d bytes, %v to %v", a.Meta.Num, a.Level,
				a.Meta.Entries, a.Meta.Bytes, a.Meta.Smallest, a.Meta.Largest)
		}
		return nil
	})
	return errors.Join(t.flush(), err)
}
