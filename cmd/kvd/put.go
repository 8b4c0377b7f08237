package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/replication"
)

func (p *program) putCommand() *cobra.Command {
	var durability durabilityFlag
	var o consistency
	cmd := &cobra.Command{
		Use:   "put KEY VALUE",
		Short: "Write a value; - reads it from stdin",
		Example: "  kvd put greeting 'hello, world'\n" +
			"  kvd put photo - < photo.jpg\n" +
			"  kvd put -- temperature -5     # what begins with - goes behind --",
		Args: exactly(2, "a key and a value"),
	}
	p.addClientFlags(cmd)
	addDurabilityFlag(cmd, &durability)
	addConsistencyFlags(cmd, &o, false, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		value, err := p.valueArgument(args[1])
		if err != nil {
			return err
		}
		return p.withEither(cmd.Context(), &o, func(c *replication.Client) error {
			err := c.Put(cmd.Context(), []byte(args[0]), value, lsm.Durability(durability))
			if err != nil || p.output != outputJSON {
				return err
			}
			return p.printJSON(struct {
				pairJSON
				Bytes      int    `json:"bytes"`
				Durability string `json:"durability"`
			}{keyJSON([]byte(args[0])), len(value), durability.String()})
		}, func(c *replication.ClusterClient) error {
			return p.putInCluster(cmd.Context(), c, []byte(args[0]), value, &o, durability)
		})
	}
	return cmd
}

// putInCluster writes a value in the place of what a read finds there: somebody who types a value
// means it to be the only one.
func (p *program) putInCluster(ctx context.Context, c *replication.ClusterClient, key,
	value []byte, o *consistency, d durabilityFlag) error {
	options, err := o.write(d)
	if err != nil {
		return err
	}
	p.seeBefore(ctx, c, key, &options)
	w, err := c.Put(ctx, key, value, options)
	if err != nil || p.output != outputJSON {
		return err
	}
	return p.printJSON(makeWrittenJSON(key, w))
}

// seeBefore gives a write without a context that of a read. When that fails the write replaces
// what its coordinator has.
func (p *program) seeBefore(ctx context.Context, c *replication.ClusterClient, key []byte,
	o *replication.WriteOptions) {
	if o.Context != nil {
		return
	}
	before, err := c.Get(ctx, key, replication.ReadOptions{Level: o.Level, Strict: o.Strict})
	if err == nil {
		o.Context = before.Context
	}
}

// writtenJSON is what a write to a cluster came to.
type writtenJSON struct {
	pairJSON
	Context string               `json:"context"`
	Nodes   []replication.NodeID `json:"nodes"`
}

func makeWrittenJSON(key []byte, w replication.Written) writtenJSON {
	return writtenJSON{keyJSON(key), base64.RawURLEncoding.EncodeToString(w.Context), w.Nodes}
}

// valueArgument returns the value that an argument means. No more is read than a value may have.
func (p *program) valueArgument(arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	value, err := io.ReadAll(io.LimitReader(p.stdin, lsm.MaxValueBytes+1))
	if err != nil {
		return nil, fmt.Errorf("stdin: %w", err)
	}
	if len(value) > lsm.MaxValueBytes {
		return nil, usagef("the value on stdin is too long: must be at most %d bytes",
			lsm.MaxValueBytes)
	}
	return value, nil
}
