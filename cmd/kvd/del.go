package main

import (
	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/replication"
)

func (p *program) delCommand() *cobra.Command {
	var durability durabilityFlag
	var o consistency
	cmd := &cobra.Command{
		Use:   "del KEY",
		Short: "Remove a key; one that does not exist is fine",
		Args:  exactly(1, "a key"),
	}
	p.addClientFlags(cmd)
	addDurabilityFlag(cmd, &durability)
	addConsistencyFlags(cmd, &o, false, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key := []byte(args[0])
		return p.withEither(cmd.Context(), &o, func(c *replication.Client) error {
			err := c.Delete(cmd.Context(), key, lsm.Durability(durability))
			if err != nil || p.output != outputJSON {
				return err
			}
			return p.printJSON(keyJSON(key))
		}, func(c *replication.ClusterClient) error {
			options, err := o.write(durability)
			if err != nil {
				return err
			}
			p.seeBefore(cmd.Context(), c, key, &options)
			w, err := c.Delete(cmd.Context(), key, options)
			if err != nil || p.output != outputJSON {
				return err
			}
			return p.printJSON(makeWrittenJSON(key, w))
		})
	}
	return cmd
}
