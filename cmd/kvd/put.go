package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/replication"
)

func (p *program) putCommand() *cobra.Command {
	var durability durabilityFlag
	cmd := &cobra.Command{
		Use:   "put KEY VALUE",
		Short: "Write a value; - reads it from stdin",
		Example: "  kvd put greeting 'hello, world'\n" +
			"  kvd put photo - < photo.jpg",
		Args: exactly(2, "a key and a value"),
	}
	p.addClientFlags(cmd)
	addDurabilityFlag(cmd, &durability)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		value, err := p.valueArgument(args[1])
		if err != nil {
			return err
		}
		return p.withClient(cmd.Context(), func(c *replication.Client) error {
			err := c.Put(cmd.Context(), []byte(args[0]), value, lsm.Durability(durability))
			if err != nil || p.output != outputJSON {
				return err
			}
			return p.printJSON(struct {
				pairJSON
				Bytes      int    `json:"bytes"`
				Durability string `json:"durability"`
			}{keyJSON([]byte(args[0])), len(value), durability.String()})
		})
	}
	return cmd
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
