package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

func (p *program) debugFindCommand() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "find KEY --data DIR",
		Short: "Print every place where a key is or was: tables, log, what is hidden and deleted",
		Args:  exactly(1, "a key"),
	}
	cmd.Flags().StringVar(&data, "data", "", "the data directory or checkpoint")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if data == "" {
			return usagef("--data is missing")
		}
		return p.debugFind(data, []byte(args[0]))
	}
	return cmd
}

func (p *program) debugFind(dir string, key []byte) error {
	layout, err := lsm.InspectLayout(vfs.OS, dir)
	if err != nil {
		return err
	}
	t := p.newTable("SEQ", "KIND", "WHERE", "FILE", "VALUE")
	found := 0
	err = layout.Find(vfs.OS, key, func(at lsm.Place) error {
		found++
		e := makeEntryJSON(at.File, at.Seq, at.Kind, key, at.Value)
		e.Old = at.Old
		where := fmt.Sprintf("level %d", at.Level)
		switch {
		case at.Level >= 0:
			e.Level = &at.Level
		case at.Old:
			e.Offset, where = &at.Offset, fmt.Sprintf("old log @%d", at.Offset)
		default:
			e.Offset, where = &at.Offset, fmt.Sprintf("log @%d", at.Offset)
		}
		t.add(e, fmt.Sprint(at.Seq), at.Kind.String(), where, at.File,
			valueColumn(at.Kind, at.Value))
		return nil
	})
	if err := errors.Join(t.flush(), err); err != nil {
		return err
	}
	if found == 0 {
		return &notFoundError{key}
	}
	return nil
}

func (p *program) debugVerifyCommand() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "verify --data DIR",
		Short: "Read and check every byte of a database; exit code 1 if any is damaged",
		Args:  noArgs,
	}
	cmd.Flags().StringVar(&data, "data", "", "the data directory or checkpoint")
	cmd.RunE = func(*cobra.Command, []string) error {
		if data == "" {
			return usagef("--data is missing")
		}
		return p.debugVerify(data)
	}
	return cmd
}

func (p *program) debugVerify(dir string) error {
	show := p.startProgress("verify", -1)
	v, err := lsm.Verify(vfs.OS, dir, func(string) { show.add(0) })
	show.stop()
	if err != nil {
		return err
	}
	for _, d := range v.Damages {
		if p.output != outputJSON {
			fmt.Fprintf(p.stdout, "damaged: %v\n", d)
			continue
		}
		row := map[string]any{"damaged": d.Error()}
		if e, ok := errors.AsType[*lsm.CorruptError](d); ok {
			row = map[string]any{"damaged": e.Reason, "file": e.File, "offset": e.Offset}
		}
		if err := p.printJSON(row); err != nil {
			return err
		}
	}
	for _, name := range v.Leftovers {
		if p.output != outputJSON {
			fmt.Fprintf(p.stdout, "left over: %s\n", name)
		} else if err := p.printJSON(map[string]any{"left_over": name}); err != nil {
			return err
		}
	}
	if err := p.printVerified(v); err != nil {
		return err
	}
	if len(v.Damages) > 0 {
		return fmt.Errorf("%s: %s", dir, plural(len(v.Damages), "damage"))
	}
	return nil
}

// printVerified prints what was found sound. People are spared those figures next to damage.
func (p *program) printVerified(v lsm.Verification) error {
	if p.output == outputJSON {
		return p.printJSON(map[string]any{"tables": v.Tables, "table_bytes": v.TableBytes,
			"entries": v.Entries, "log_segments": v.Segments, "log_records": v.Records,
			"last_seq": v.LastSeq, "torn_bytes": v.TornBytes, "damages": len(v.Damages)})
	}
	var err error
	if len(v.Damages) == 0 {
		_, err = fmt.Fprintf(p.stdout, "sound: %s (%s, %s), %s in %s of the log; last "+
			"sequence %d\n", plural(v.Tables, "table"), megabytes(int64(v.TableBytes)),
			plural(v.Entries, "entry"), plural(v.Records, "record"),
			plural(v.Segments, "segment"), v.LastSeq)
	}
	if v.TornBytes > 0 && err == nil {
		_, err = fmt.Fprintf(p.stdout, "torn: %d bytes at the end of the log were never synced; "+
			"the next start trims them\n", v.TornBytes)
	}
	return err
}
