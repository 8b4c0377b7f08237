package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
	"kvd/wal"
)

func (p *program) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a node is doing",
		Args:  noArgs,
	}
	p.addClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.withClient(cmd.Context(), func(c *replication.Client) error {
			return p.status(cmd.Context(), c)
		})
	}
	return cmd
}

// nodeStatus is replication.Status with the transport that this program gives it.
type nodeStatus struct {
	replication.Status
	Transport netquic.Metrics `json:"transport"`
}

func statusOf(ctx context.Context, c *replication.Client) (s nodeStatus, err error) {
	raw, err := c.Status(ctx)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("status of the node: %w", err)
	}
	return s, nil
}

func (p *program) status(ctx context.Context, c *replication.Client) error {
	raw, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if p.output == outputJSON {
		return p.printJSON(raw)
	}
	var s nodeStatus
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("status of the node: %w", err)
	}
	t := p.newTable("NODE", p.client.addr)
	add := func(name, format string, args ...any) {
		t.add(nil, name, fmt.Sprintf(format, args...))
	}
	uptime := time.Duration(s.UptimeSeconds * float64(time.Second)).Round(time.Second)
	add("version", "%s", s.Version)
	add("uptime", "%v", uptime)
	add("engine", "%s", s.Engine.State)
	requests := uint64(0)
	for _, n := range s.Requests {
		requests += n
	}
	kinds := []string{"get", "put", "delete", "apply", "scan"}
	if s.Cluster != nil {
		kinds = []string{"read", "write", "page"}
	}
	for i, kind := range kinds {
		kinds[i] = kind + " " + grouped(int64(s.Requests[kind]))
	}
	add("requests", "%s (%s)", grouped(int64(requests)), strings.Join(kinds, ", "))
	if r := s.Cluster; r != nil {
		statusOfCluster(r, add)
	}
	add("connections", "%d open, %d calls under way", s.Transport.Connections, s.Transport.InFlight)
	statusOfEngine(&s.Engine, add)
	return t.flush()
}

func statusOfCluster(r *replication.Ring, add func(name, format string, args ...any)) {
	states, owed := map[string]int{}, ""
	equal := 0
	for _, m := range r.Members {
		states[m.State]++
		if m.Hints > 0 {
			owed += fmt.Sprintf(", owes %s %s to %s", grouped(int64(m.Hints)),
				noun(uint64(m.Hints), "key"), m.ID)
		}
		if m.EqualSeconds != nil && *m.EqualSeconds < 60 {
			equal++
		}
	}
	add("cluster", "%s of %s: %d alive, %d suspect, %d down; %s %s here%s", r.Self,
		plural(len(r.Members), "node"), states["alive"], states["suspect"], states["down"],
		grouped(int64(r.Objects)), noun(uint64(r.Objects), "key"), owed)
	add("replicas", "the same as %d of %d others within the last minute", equal, len(r.Members)-1)
}

func statusOfEngine(m *lsm.Metrics, add func(name, format string, args ...any)) {
	add("memtables", "%s filling, %d waiting for their flush", megabytes(m.MemtableBytes),
		m.MemtablesFrozen)
	for level, l := range m.Levels {
		if l.Tables > 0 {
			add(fmt.Sprintf("level %d", level), "%s, %s, %s %s", plural(l.Tables, "table"),
				megabytes(int64(l.Bytes)), grouped(int64(l.Entries)), noun(l.Entries, "entry"))
		}
	}
	hits := "never asked"
	if asked := m.Cache.Hits + m.Cache.Misses; asked > 0 {
		hits = fmt.Sprintf("%.1f %% hits", 100*float64(m.Cache.Hits)/float64(asked))
	}
	add("cache", "%s of %s, %s; %s pinned by open tables", megabytes(m.Cache.UsedBytes),
		megabytes(m.Cache.BudgetBytes), hits, megabytes(m.Cache.PinnedBytes))
	add("log", "%s %s, %s, %s %s, typically %s records a sync",
		grouped(int64(m.Log.Records)), noun(m.Log.Records, "record"),
		megabytes(int64(m.Log.Bytes)), grouped(int64(m.Log.Syncs)), noun(m.Log.Syncs, "sync"),
		medianGroup(&m.Log))
	add("compaction", "%d running, %s to do, %.1f bytes written per byte flushed",
		m.CompactionsRunning, megabytes(int64(m.CompactionDebtBytes)), m.WriteAmplification())
	add("stalls", "%d, %s in all; %s of smooth slowing", m.Stalls, short(m.StallTime),
		short(m.PaceTime))
	s := &m.Scrub
	passes := plural(s.Passes, "pass")
	if s.Passes > 0 {
		passes += fmt.Sprintf(", the last in %s", short(s.LastPass))
	}
	add("scrub", "%s; %s of %s to go in this one; %s found, %d healed", passes,
		megabytes(s.BytesLeft), megabytes(s.BytesTotal), plural(s.Damages, "damage"), s.Healed)
	damage := "none"
	if m.Damaged > 0 {
		damage = plural(m.Damaged, "table") + ": " + strings.Join(m.DamagedFiles, " ")
		if m.Damaged > len(m.DamagedFiles) {
			damage += " ..."
		}
	}
	add("damage", "%s", damage)
}

// medianGroup returns the range that the median number of records per sync lies in.
func medianGroup(m *wal.Metrics) string {
	total := uint64(0)
	for _, n := range m.Groups {
		total += n
	}
	below := uint64(0)
	for i, n := range m.Groups {
		if below += n; total > 0 && 2*below >= total {
			if i < 2 {
				return fmt.Sprint(i)
			}
			return fmt.Sprintf("%d-%d", uint64(1)<<(i-1), uint64(1)<<i-1)
		}
	}
	return "no"
}
