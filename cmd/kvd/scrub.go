package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/replication"
)

func (p *program) scrubCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Make a node read and check everything it has on disk now; exit code 1 on damage",
		Long: `Scrub makes the node read every table, its manifest and its log from the disk and
check them, at full speed, while it goes on serving. A node does the same in the background, slowly,
within each scrub-period. What is damaged is written anew from what the node has in memory, where it
has it; the exit code is 1 all the same.`,
		Args: noArgs,
	}
	p.addClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.withClient(cmd.Context(), func(c *replication.Client) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), compactTimeout)
			defer cancel()
			return p.scrub(ctx, c)
		})
	}
	return cmd
}

// scrub runs a scrub and shows how far it is, by the word of the node's status.
func (p *program) scrub(ctx context.Context, c *replication.Client) error {
	before, err := scrubMetrics(ctx, c)
	if err != nil {
		return err
	}
	show := p.startProgress("scrub", before.BytesTotal)
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		watchScrub(ctx, c, before.Bytes, show, ended)
	}()
	report, err := c.Scrub(ctx)
	close(ended)
	<-watched
	show.stop()
	if err != nil {
		return err
	}
	if err := p.printScrub(&report); err != nil {
		return err
	}
	if report.Found > 0 {
		return fmt.Errorf("%s, %d of them healed", plural(report.Found, "damaged place"),
			report.Healed)
	}
	return nil
}

// watchScrub feeds the display until the scrub has ended.
func watchScrub(ctx context.Context, c *replication.Client, bytes uint64, show *progress,
	ended <-chan struct{}) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		if m, err := scrubMetrics(ctx, c); err == nil && m.Bytes > bytes {
			show.addBytes(int64(m.Bytes - bytes))
			bytes = m.Bytes
		}
	}
}

func scrubMetrics(ctx context.Context, c *replication.Client) (lsm.ScrubMetrics, error) {
	s, err := statusOf(ctx, c)
	return s.Engine.Scrub, err
}

// damageRow is a damaged place as -o json prints it.
type damageRow struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"` // -1: the whole file
	Reason string `json:"damaged"`
	Healed bool   `json:"healed"`
}

func (p *program) printScrub(r *lsm.ScrubReport) error {
	for _, d := range r.Damages {
		if p.output == outputJSON {
			if err := p.printJSON(damageRow(d)); err != nil {
				return err
			}
			continue
		}
		outcome := "damaged"
		if d.Healed {
			outcome = "healed"
		}
		fmt.Fprintf(p.stdout, "%s: %s: %s\n", outcome, place(d.File, d.Offset),
			harmless(d.Reason))
	}
	if p.output == outputJSON {
		return p.printJSON(map[string]any{"files": r.Files, "bytes": r.Bytes,
			"seconds": r.Took.Seconds(), "damages": r.Found, "healed": r.Healed})
	}
	word := "sound"
	if r.Found > 0 {
		word = "read"
	}
	_, err := fmt.Fprintf(p.stdout, "%s: %s, %s in %s\n", word, plural(r.Files, "file"),
		megabytes(r.Bytes), short(r.Took))
	return err
}
