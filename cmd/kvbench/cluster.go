package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"kvd/bench"
	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

// levelFlag is --r or --w.
type levelFlag replication.Level

func (l *levelFlag) Set(s string) error {
	level, err := replication.ParseLevel(s)
	*l = levelFlag(level)
	return err
}

func (l *levelFlag) String() string { return replication.Level(*l).String() }
func (l *levelFlag) Type() string   { return "level" }

// cluster is a kvd cluster, by a client that goes to the nodes that hold a key.
type cluster struct {
	ctx    context.Context
	client *replication.ClusterClient
	read   replication.ReadOptions
	write  replication.WriteOptions
}

func dialCluster(ctx context.Context, addr string, s *settings) (store, error) {
	o, err := s.network.options()
	if err != nil {
		return nil, err
	}
	dial := func(addr string) (replication.Caller, error) { return netquic.NewClient(addr, o) }
	c := replication.NewClusterClient([]string{addr}, dial, netquic.ErrInDoubt)
	c.Timeout = s.network.timeout
	if _, err := c.Ring(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot reach the cluster at %s: %w", addr, err),
			c.Close())
	}
	return &cluster{ctx, c, replication.ReadOptions{Level: replication.Level(s.r)},
		replication.WriteOptions{Level: replication.Level(s.w),
			Durability: lsm.Durability(s.durability)}}, nil
}

func (c *cluster) remote() bool { return true }

func (c *cluster) with(d lsm.Durability) bench.Target {
	other := *c
	other.write.Durability = d
	return &other
}

func (c *cluster) Put(key, value []byte) error {
	_, err := c.client.Put(c.ctx, key, value, c.write)
	return err
}

func (c *cluster) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := c.client.Get(c.ctx, key, c.read)
	if err != nil || len(v.All) == 0 {
		return dst, false, err
	}
	return append(dst, v.All[0]...), true, nil
}

// Scan goes through the partitions, in which keys are in order, from the first that has any.
func (c *cluster) Scan(start []byte, limit int, fn func(key, value []byte) bool) (int, error) {
	seen := 0
	err := c.client.Scan(c.ctx, start, nil, max(limit, 0), c.read,
		func(key []byte, values [][]byte) error {
			seen++
			if !fn(key, values[0]) {
				return errEnough
			}
			return nil
		})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return seen, err
}

func (c *cluster) Ping() error {
	_, err := c.client.Ring(c.ctx)
	return err
}

func (c *cluster) Settle() error       { return nil } // every node does in its own time
func (c *cluster) Stats() []bench.Stat { return nil }
func (c *cluster) Close() error        { return c.client.Close() }

// certificates has clients know the nodes of a cluster by who signed their certificates, and show
// one of their own if it is named.
func (s *networkSettings) certificates(o *netquic.Options) (err error) {
	if s.cert != "" {
		if o.ClientCert, err = netquic.LoadClient(s.tls, s.cert); err != nil {
			return err
		}
	}
	o.Authority, err = netquic.LoadAuthority(filepath.Join(s.tls, netquic.AuthorityCertFile))
	return err
}
