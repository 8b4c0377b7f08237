package main

import (
	"errors"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/replication"
)

func (p *program) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key, byte for byte; exit code 3 if it has none",
		Args:  exactly(1, "a key"),
	}
	p.addClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key := []byte(args[0])
		return p.withClient(cmd.Context(), func(c *replication.Client) error {
			value, err := c.Get(cmd.Context(), key, nil)
			if errors.Is(err, lsm.ErrNotFound) {
				return &notFoundError{key}
			}
			if err != nil {
				return err
			}
			if p.output == outputJSON {
				return p.printJSON(makePairJSON(key, value))
			}
			// A prompt on the same line helps nobody; a pipe gets the bare value.
			if isTerminal(p.stdout) && (len(value) == 0 || value[len(value)-1] != '\n') {
				value = append(value, '\n')
			}
			_, err = p.stdout.Write(value)
			return err
		})
	}
	return cmd
}
