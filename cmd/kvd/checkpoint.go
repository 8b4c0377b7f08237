package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kvd/replication"
)

func (p *program) checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checkpoint DIR",
		Short: "Make a node write a consistent copy of its database to a new directory",
		Long: `Checkpoint makes the node write a consistent copy of its database to DIR, on the
node's machine. The copy shares its tables with the database by hard links: it is made in a moment,
takes no space at first, and must be on the same disk. It is a data directory: copy it to
another disk, look into it with --data, or start a node on it.

A table that is known to be damaged is damaged in the copy too: it is named, and the exit code
is 1.`,
		Example: "  kvd checkpoint /srv/kvd/today && cp -r /srv/kvd/today /backup/today",
		Args:    exactly(1, "a directory"),
	}
	p.addClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		return p.withClient(cmd.Context(), func(c *replication.Client) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), bulkTimeout)
			defer cancel()
			if err := c.Checkpoint(ctx, dir); err != nil {
				return err
			}
			var err error
			if p.output == outputJSON {
				err = p.printJSON(map[string]string{"checkpoint": dir})
			} else {
				_, err = fmt.Fprintln(p.stdout, dir)
			}
			return errors.Join(err, checkpointDamage(ctx, c, dir))
		})
	}
	return cmd
}

// checkpointDamage fails if the node knows of damaged tables: the checkpoint has them too.
func checkpointDamage(ctx context.Context, c *replication.Client, dir string) error {
	s, err := statusOf(ctx, c)
	if err != nil || s.Engine.Damaged == 0 {
		return err
	}
	var names []string
	for _, name := range s.Engine.DamagedFiles {
		names = append(names, filepath.Base(name))
	}
	if s.Engine.Damaged > len(names) {
		names = append(names, "...")
	}
	return fmt.Errorf("%s is complete but for %s: %s", dir,
		plural(s.Engine.Damaged, "damaged table"), strings.Join(names, " "))
}

func (p *program) compactCommand() *cobra.Command {
	var keys keyRange
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Make a node rewrite its tables to the bottom of the tree now",
		Long: `Compact drops old versions and tombstones of a range of keys, or of everything, now
instead of when the tree's shape asks for it. A node needs it never; a benchmark or a disk that
is nearly full may.`,
		Args: noArgs,
	}
	p.addClientFlags(cmd)
	keys.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		lower, upper, err := keys.bounds()
		if err != nil {
			return err
		}
		return p.withClient(cmd.Context(), func(c *replication.Client) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), compactTimeout)
			defer cancel()
			return c.Compact(ctx, lower, upper)
		})
	}
	return cmd
}
