package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

func (p *program) debugSalvageCommand() *cobra.Command {
	var data, to string
	cmd := &cobra.Command{
		Use:   "salvage --data DIR --to NEWDIR",
		Short: "Write all that still verifies to a new database; exit code 1 if anything is lost",
		Long: `Salvage reads what is left of a damaged database, block by block, and writes
everything that verifies to a new one. It needs neither CURRENT nor the manifest, nor the index of a
table. DIR is only read. What is lost is listed with the range of keys it was in: keys there may be
missing, show an older value, or be back after they were deleted. All else is exactly as it was.

Take a copy of a failing disk first, salvage to another disk, then start the node on NEWDIR. Files
that are not the engine's, such as the node's key in tls, are not copied.`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&data, "data", "", "the damaged data directory")
	cmd.Flags().StringVar(&to, "to", "", "the directory to make; it must not exist or be empty")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case data == "":
			return usagef("--data is missing")
		case to == "":
			return usagef("--to is missing")
		}
		return p.debugSalvage(cmd.Context(), data, to)
	}
	return cmd
}

func (p *program) debugSalvage(ctx context.Context, data, to string) error {
	dir, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	target, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	show := p.startProgress("salvage", -1)
	r, err := lsm.Salvage(ctx, vfs.OS, dir, target, lsm.SalvageOptions{Wrote: show.add})
	show.stop()
	if r == nil {
		return err
	}
	if err := errors.Join(p.printSalvage(r, target, err == nil), err); err != nil {
		return err
	}
	if len(r.Losses) > 0 {
		return fmt.Errorf("%s: %s; the rest is in %s", data, plural(len(r.Losses), "loss"), to)
	}
	return nil
}

func (p *program) printSalvage(r *lsm.SalvageReport, to string, wrote bool) error {
	for i := range r.Losses {
		if err := p.printLoss(&r.Losses[i]); err != nil {
			return err
		}
	}
	for _, n := range r.Notes {
		var err error
		if p.output == outputJSON {
			err = p.printJSON(map[string]any{"note": n.Reason, "file": n.File, "offset": n.Offset})
		} else {
			_, err = fmt.Fprintf(p.stdout, "note: %s: %s\n", place(n.File, n.Offset), n.Reason)
		}
		if err != nil {
			return err
		}
	}
	if !wrote {
		return nil
	}
	if p.output == outputJSON {
		return p.printJSON(map[string]any{"to": to, "keys": r.Keys, "manifest": r.Manifest,
			"tables": r.Tables, "entries": r.Entries, "log_segments": r.Segments,
			"log_records": r.Records, "losses": len(r.Losses), "lost_entries": r.LostEntries})
	}
	result := "nothing is lost"
	if len(r.Losses) > 0 {
		result = plural(len(r.Losses), "loss")
	}
	_, err := fmt.Fprintf(p.stdout, "salvaged: %s from %s and %s of the log; %s\n",
		plural(r.Keys, "key"), plural(r.Tables, "table"), plural(r.Records, "record"), result)
	return err
}

func place(file string, offset int64) string {
	if offset < 0 {
		return file
	}
	return fmt.Sprintf("%s at offset %d", file, offset)
}

// lossJSON is a loss as a JSON object. A bound that is no text is in from_b64 or to_b64; one that
// is missing is open.
type lossJSON struct {
	Lost       string  `json:"lost"`
	File       string  `json:"file"`
	Offset     int64   `json:"offset"`
	From       *string `json:"from,omitempty"`
	FromBase64 []byte  `json:"from_b64,omitempty"`
	To         *string `json:"to,omitempty"`
	ToBase64   []byte  `json:"to_b64,omitempty"`
	Entries    uint64  `json:"entries,omitempty"`
	FirstSeq   uint64  `json:"first_seq,omitempty"`
	LastSeq    uint64  `json:"last_seq,omitempty"`
	MayBeOld   uint64  `json:"may_be_old"`
}

func (p *program) printLoss(l *lsm.Loss) error {
	if p.output == outputJSON {
		row := lossJSON{Lost: l.Reason, File: l.File, Offset: l.Offset, Entries: l.Entries,
			FirstSeq: uint64(l.FirstSeq), LastSeq: uint64(l.LastSeq), MayBeOld: l.MayBeOld}
		row.From, row.FromBase64 = boundJSON(l.From)
		row.To, row.ToBase64 = boundJSON(l.To)
		return p.printJSON(row)
	}
	keys := "any key"
	switch {
	case l.From != nil && l.To != nil:
		keys = fmt.Sprintf("keys from %s to %s", printable(l.From), printable(l.To))
	case l.From != nil:
		keys = "keys from " + printable(l.From)
	case l.To != nil:
		keys = "keys up to " + printable(l.To)
	}
	entries := ""
	if l.Entries > 0 {
		entries = plural(l.Entries, "write") + " of "
	}
	if l.LastSeq > 0 {
		keys += fmt.Sprintf(", sequence %d to %d", l.FirstSeq, l.LastSeq)
	}
	if l.MayBeOld > 0 {
		keys += fmt.Sprintf("; up to %s with a later write may be old or deleted",
			plural(l.MayBeOld, "key"))
	}
	_, err := fmt.Fprintf(p.stdout, "lost: %s: %s: %s%s\n", place(l.File, l.Offset), l.Reason,
		entries, keys)
	return err
}

func boundJSON(key []byte) (text *string, binary []byte) {
	if s := string(key); key != nil && utf8.ValidString(s) {
		return &s, nil
	}
	return nil, key
}
