package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
)

// exportOptions are the flags of export.
type exportOptions struct {
	dir, jsonl, data string
	keys             keyRange
	resume           bool
}

func (p *program) exportCommand() *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export --dir DIR | --jsonl FILE",
		Short: "Write the store out as a directory of files, or as lines of JSON",
		Long: `Export writes every pair as a file below DIR: the key "a/b" becomes DIR/a/b. With
--jsonl every pair becomes a line of FILE (- is stdout).

A key that is no path below DIR ("../x", "/x", "a//b"), or that needs a file where another key
needs a directory, is left out and makes the exit code 1: export such keys with --jsonl. Of several
values that a key of a cluster has the one that was written last is exported, and the exit code
is 1: keep one or join them first (kvd get KEY says how).

A running node is read page by page while it goes on taking writes. For one moment of everything,
take a checkpoint and export that with --data.`,
		Args: noArgs,
	}
	p.addClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "write files below this directory, which must be new or empty")
	f.StringVar(&o.jsonl, "jsonl", "", "write pairs to this new file, - for stdout")
	f.StringVar(&o.data, "data", "", "read this data directory or checkpoint, without a node")
	f.BoolVar(&o.resume, "resume", false,
		"DIR may hold files: equal ones stay, others are replaced")
	o.keys.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (o.dir == "") == (o.jsonl == "") {
			return usagef("give one of --dir and --jsonl")
		}
		return p.runExport(cmd.Context(), o)
	}
	return cmd
}

// sink is where an export goes. write may be called until it fails; finish is told whether every
// pair of the range was written.
type sink interface {
	write(key, value []byte) error
	finish(complete bool) error
}

func (p *program) runExport(ctx context.Context, o exportOptions) (err error) {
	lower, upper, err := o.keys.bounds()
	if err != nil {
		return err
	}
	report := new(bulkReport)
	s, err := p.openStore(ctx, o.data, true, report)
	if err != nil {
		return err
	}
	to, err := p.openSink(o, report)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	show := p.startProgress("export", -1)
	err = s.Scan(ctx, lower, upper, 0, func(key, value []byte) error {
		show.add(len(value))
		return to.write(key, value)
	})
	show.stop()
	err = errors.Join(err, to.finish(err == nil), s.Close())
	if o.jsonl == "-" {
		report.printNotes(p, "kvd export")
	} else {
		did := "exported"
		if err != nil {
			did = "broke off: wrote"
		}
		err = report.conclude(p, "kvd export", did, err)
	}
	if err != nil {
		return err
	}
	return report.outcome("keys")
}

func (p *program) openSink(o exportOptions, report *bulkReport) (sink, error) {
	switch {
	case o.dir != "":
		return newDirectorySink(o.dir, o.resume, report)
	case o.jsonl == "-":
		return newLineSink(p.stdout, report), nil
	}
	if _, err := os.Lstat(o.jsonl); !errors.Is(err, fs.ErrNotExist) {
		taken := fmt.Errorf("%s exists: give a new file, or remove it first", o.jsonl)
		return nil, cmp.Or(err, taken)
	}
	temp := o.jsonl + ".partial"
	f, err := os.Create(temp)
	if err != nil {
		return nil, err
	}
	s := newLineSink(f, report)
	s.close = func(complete bool) error {
		err := errors.Join(f.Sync(), f.Close())
		if err == nil && complete {
			err = os.Rename(temp, o.jsonl)
		}
		switch {
		case err != nil:
			return fmt.Errorf("what was exported is in %s: %w", temp, err)
		case !complete:
			return fmt.Errorf("what was exported is in %s", temp)
		}
		return nil
	}
	return s, nil
}

// lineSink writes lines of JSON.
type lineSink struct {
	w      *bufio.Writer
	e      *json.Encoder
	report *bulkReport
	failed bool // write has reported what flush would report again
	close  func(complete bool) error
}

func newLineSink(w io.Writer, report *bulkReport) *lineSink {
	s := &lineSink{w: bufio.NewWriterSize(w, 256<<10), report: report}
	s.e = json.NewEncoder(s.w)
	s.e.SetEscapeHTML(false)
	s.close = func(bool) error { return nil }
	return s
}

func (s *lineSink) write(key, value []byte) error {
	if err := s.e.Encode(makePairJSON(key, value)); err != nil {
		s.failed = true
		return err
	}
	s.report.wrote(key, value)
	return nil
}

func (s *lineSink) finish(complete bool) error {
	err := s.w.Flush()
	complete = complete && err == nil
	if s.failed {
		err = nil
	}
	return errors.Join(err, s.close(complete))
}
