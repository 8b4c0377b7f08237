package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

// A ClusterClient would do without, unnoticed.
var (
	_ replication.Connector   = (*netquic.Client)(nil)
	_ replication.TimedCaller = (*netquic.Client)(nil)
)

// consistency are the flags that only a cluster understands.
type consistency struct {
	r, w, both levelFlag
	sloppy     bool
	context    string
	names      []string
	given      func(name string) bool
}

// levelFlag is a consistency level.
type levelFlag replication.Level

func (l *levelFlag) Set(s string) error {
	level, err := replication.ParseLevel(s)
	*l = levelFlag(level)
	return err
}

func (l *levelFlag) String() string { return replication.Level(*l).String() }
func (l *levelFlag) Type() string   { return "level" }

// addConsistencyFlags adds those that fit: for reads, for writes.
func addConsistencyFlags(cmd *cobra.Command, c *consistency, read, write bool) {
	f := cmd.Flags()
	names := []string{"consistency", "sloppy"}
	f.Var(&c.both, "consistency", "in a cluster: ONE, TWO, QUORUM, ALL or a number of replicas")
	f.BoolVar(&c.sloppy, "sloppy", true,
		"in a cluster: other nodes may stand in for those that are down")
	if read {
		names = append(names, "r")
		f.Var(&c.r, "r", "in a cluster: replicas that have to answer, instead of --consistency")
	}
	if write {
		names = append(names, "w", "context")
		f.Var(&c.w, "w", "in a cluster: replicas that have to hold it, instead of --consistency")
		f.StringVar(&c.context, "context", "",
			"in a cluster: of the get whose values this replaces (get -o json)")
	}
	c.names, c.given = names, f.Changed
}

// used is the first of the flags that was given, "" for none.
func (c *consistency) used() string {
	for _, name := range c.names {
		if c.given(name) {
			return name
		}
	}
	return ""
}

// level is that of the named flag, or else that for both sides.
func (c *consistency) level(name string, own levelFlag) replication.Level {
	if c.given(name) {
		return replication.Level(own)
	}
	return replication.Level(c.both)
}

func (c *consistency) read() replication.ReadOptions {
	return replication.ReadOptions{Level: c.level("r", c.r), Strict: !c.sloppy}
}

func (c *consistency) write(d durabilityFlag) (o replication.WriteOptions, err error) {
	o = replication.WriteOptions{Level: c.level("w", c.w), Strict: !c.sloppy,
		Durability: lsm.Durability(d)}
	if c.context != "" {
		if o.Context, err = base64.RawURLEncoding.DecodeString(c.context); err != nil {
			return o, usagef("context: %v", err)
		}
	}
	return o, nil
}

// withEither runs alone with a node by itself, inCluster with a cluster: whichever answers.
func (p *program) withEither(ctx context.Context, c *consistency,
	alone func(*replication.Client) error,
	inCluster func(*replication.ClusterClient) error) error {
	client, isCluster, err := p.dialAny(ctx)
	if err != nil {
		return err
	}
	switch {
	case !isCluster && c != nil && c.used() != "":
		err = usagef("--%s is for clusters, and the node at %s is by itself", c.used(),
			p.client.addr)
	case !isCluster:
		err = alone(client)
	default:
		cluster := p.clusterClient()
		err = errors.Join(inCluster(cluster), cluster.Close())
	}
	return errors.Join(err, client.Close())
}

// clusterClient is a client of the cluster that the nodes of --addr belong to.
func (p *program) clusterClient() *replication.ClusterClient {
	c := replication.NewClusterClient(p.client.addrs(),
		func(addr string) (replication.Caller, error) { return p.caller(addr) },
		netquic.ErrInDoubt)
	c.Timeout = p.client.timeout
	return c
}

// needCluster is withEither for what makes no sense with a node by itself.
func (p *program) needCluster(ctx context.Context,
	do func(*replication.ClusterClient) error) error {
	return p.withEither(ctx, nil, func(*replication.Client) error {
		return fmt.Errorf("the node at %s is by itself: a cluster's nodes have --cluster",
			p.client.addr)
	}, do)
}

// clusterStore is a cluster as a store of import and export: of several values the one that was
// written last, and everything synced at once. A scan reports the keys that have others.
type clusterStore struct {
	c      *replication.ClusterClient
	report *bulkReport
}

func (s clusterStore) Get(ctx context.Context, key, dst []byte) ([]byte, error) {
	v, err := s.c.Get(ctx, key, replication.ReadOptions{})
	if err != nil {
		return dst, err
	}
	if len(v.All) == 0 {
		return dst, lsm.ErrNotFound
	}
	return append(dst, v.All[0]...), nil
}

func (s clusterStore) Apply(ctx context.Context, b *lsm.Batch, _ lsm.Durability) error {
	var pairs []replication.Pair
	b.Each(func(_ lsm.Kind, key, value []byte) bool {
		pairs = append(pairs, replication.Pair{Key: key, Value: value})
		return true
	})
	return s.c.PutAll(ctx, pairs, replication.WriteOptions{}, nil)
}

func (s clusterStore) Scan(ctx context.Context, lower, upper []byte, limit int,
	fn func(key, value []byte) error) error {
	return s.c.Scan(ctx, lower, upper, limit, replication.ReadOptions{},
		func(key []byte, values [][]byte) error {
			if others := len(values) - 1; others > 0 {
				s.report.leaveOut(string(key), fmt.Sprintf("%s besides the one that was written "+
					"last; see: kvd get %s", plural(others, "value"), printable(key)), true)
			}
			return fn(key, values[0])
		})
}

func (s clusterStore) Flush(context.Context) error { return nil } // every write was synced
func (s clusterStore) Close() error                { return s.c.Close() }
