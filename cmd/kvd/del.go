package main

import (
	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/replication"
)

func (p *program) delCommand() *cobra.Command {
	var durability durabilityFlag
	cmd := &cobra.Command{
		Use:   "del KEY",
		Short: "Remove a key; one that does not exist is fine",
		Args:  exactly(1, "a key"),
	}
	p.addClientFlags(cmd)
	addDurabilityFlag(cmd, &durability)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key := []byte(args[0])
		return p.withClient(cmd.Context(), func(c *replication.Client) error {
			err := c.Delete(cmd.Context(), key, lsm.Durability(durability))
			if err != nil || p.output != outputJSON {
				return err
			}
			return p.printJSON(keyJSON(key))
		})
	}
	return cmd
}
