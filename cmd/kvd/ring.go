package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kvd/replication"
)

func (p *program) ringCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ring",
		Short: "Show the nodes of a cluster and what each holds",
		Args:  noArgs,
	}
	p.addClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.needCluster(cmd.Context(), func(c *replication.ClusterClient) error {
			r, err := c.Ring(cmd.Context())
			if err != nil {
				return err
			}
			if p.output == outputJSON {
				return p.printJSON(r)
			}
			return p.ring(&r)
		})
	}
	return cmd
}

// ring prints the members, and a line for each of them in which a mark is 16 partitions: the fuller
// it is, the more of them the node holds.
func (p *program) ring(r *replication.Ring) error {
	fmt.Fprintf(p.stdout, "cluster %s, placement %d, %d partitions, %d replicas of each key; "+
		"as %s sees it\n\n", r.Cluster, r.Epoch, len(r.Owners), r.Replicas, r.Self)
	t := p.newTable("NODE", "ADDRESS", "ZONE", "WEIGHT", "STATE", "PARTITIONS", "PRIMARY", "OWED",
		"HOLDS")
	for i, m := range r.Members {
		zone := m.Zone
		if zone == "" {
			zone = "-"
		}
		state := m.State
		if !m.Connected {
			state += ", no connection"
		}
		t.add(m, string(m.ID), m.Addr, zone, fmt.Sprint(m.Weight), state,
			fmt.Sprint(m.Partitions), fmt.Sprint(m.Primaries), grouped(int64(m.Hints)),
			holdings(r, i))
	}
	return t.flush()
}

func holdings(r *replication.Ring, member int) string {
	const each = 16
	marks := []rune(" ▁▂▃▄▅▆▇█")
	var line strings.Builder
	for from := 0; from < len(r.Owners); from += each {
		n := 0
		for _, owners := range r.Owners[from:min(from+each, len(r.Owners))] {
			for _, o := range owners {
				if o == member {
					n++
				}
			}
		}
		line.WriteRune(marks[(n*(len(marks)-1)+each-1)/each])
	}
	return line.String()
}

func (p *program) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain KEY",
		Short: "Show where a key of a cluster is, what each node has of it, and why this value won",
		Args:  exactly(1, "a key"),
	}
	p.addClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return p.needCluster(cmd.Context(), func(c *replication.ClusterClient) error {
			x, err := c.Explain(cmd.Context(), []byte(args[0]))
			if err != nil {
				return err
			}
			if p.output == outputJSON {
				return p.printJSON(x)
			}
			return p.explain(&x)
		})
	}
	return cmd
}

func (p *program) explain(x *replication.Explanation) error {
	fmt.Fprintf(p.stdout, "%s is in partition %d (placement %d, policy %s), asked at %s\n\n",
		printable([]byte(x.Key)), x.Partition, x.Epoch, x.Bucket, x.AnsweredBy)
	t := p.newTable("NODE", "ROLE", "STATE", "HAS", "DIGEST", "WRITES")
	for i, r := range x.Replicas {
		role := "stand-in"
		if r.Owner {
			role = fmt.Sprintf("owner %d", i+1)
		}
		var writes []string
		for _, s := range r.Siblings {
			what := megabytes(int64(s.Bytes))
			if s.Tombstone {
				what = "deleted"
			}
			writes = append(writes, fmt.Sprintf("%s (%s, %s)", s.Dot, what, s.Written))
		}
		digest := r.Digest
		if digest == "" {
			digest = "-"
		}
		t.add(r, string(r.Node), role, r.State, r.Answer, digest, strings.Join(writes, " "))
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "\nwhy: %s\n", x.WinnerWhy)
	for id, n := range x.HintsOwed {
		fmt.Fprintf(p.stdout, "%s is owed %s keys by %s\n", id, grouped(int64(n)), x.AnsweredBy)
	}
	return nil
}
