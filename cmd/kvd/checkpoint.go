package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"kvd/replication"
)

func (p *program) checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checkpoint DIR",
		Short: "Make a node write a consistent copy of its database to a new directory",
		Long: `Checkpoint makes the node write a consistent copy of its database to DIR, on the
node's machine. The copy shares its tables with the database by hard links: it is made in a moment,
takes no space at first, and must be on the same file system. It is a data directory: look into
it with --data, or start a node on it.`,
		Args: exactly(1, "a directory"),
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
			if p.output == outputJSON {
				return p.printJSON(map[string]string{"checkpoint": dir})
			}
			_, err := fmt.Fprintln(p.stdout, dir)
			return err
		})
	}
	return cmd
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
