package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"kvd/bench"
	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

// networkSettings say how to reach a node.
type networkSettings struct {
	knownNodes, pin    string
	tls, cert          string // of a cluster
	connections, lanes int
	timeout            time.Duration
}

func (s *networkSettings) addTo(f *pflag.FlagSet) {
	f.IntVar(&s.connections, "connections", 1, "connections to a node, used in turn")
	f.IntVar(&s.lanes, "lanes", 1, "lanes per connection, used in turn")
	f.DurationVar(&s.timeout, "timeout", 10*time.Second,
		"how long to wait for one answer of a node")
	f.StringVar(&s.knownNodes, "known-nodes", os.Getenv("KVD_KNOWN_NODES"),
		"file that remembers the keys of nodes (KVD_KNOWN_NODES; else known_nodes in your kvd "+
			"config directory)")
	f.StringVar(&s.tls, "tls", "", "a cluster's directory of certificates, with its ca.pem")
	f.StringVar(&s.cert, "cert", "", "in a cluster: name of the certificate in --tls to show")
	f.StringVar(&s.pin, "pin", "", "the node's public key, sha256:..., instead of that file")
}

// node is a kvd node. It may be used by many goroutines at once.
type node struct {
	ctx        context.Context
	client     *replication.Client
	durability lsm.Durability
	counters   *counters
}

func dialNode(ctx context.Context, addr string, d lsm.Durability,
	s *networkSettings) (store, error) {
	o, err := s.options()
	if err != nil {
		return nil, err
	}
	c, err := netquic.NewClient(addr, o)
	if err != nil {
		return nil, err
	}
	if err := c.Connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot reach the node at %s: %w", addr, err), c.Close())
	}
	n := &node{ctx: ctx, client: replication.NewClient(c, netquic.ErrInDoubt), durability: d,
		counters: &counters{}}
	if n.counters.last, err = n.metrics(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// options are those of a connection.
func (s *networkSettings) options() (o netquic.Options, err error) {
	if s.timeout <= 0 || s.connections < 1 || s.lanes < 1 {
		return o, usagef("--timeout, --connections and --lanes must be above zero")
	}
	o = netquic.Options{CallTimeout: s.timeout, Connections: s.connections, Lanes: s.lanes,
		KnownServers: s.knownNodes}
	switch {
	case s.cert != "" && s.tls == "":
		err = usagef("--cert %s needs --tls, the directory of certificates", s.cert)
	case s.tls != "":
		err = s.certificates(&o)
	case s.pin != "":
		if o.Pin, err = netquic.ParsePin(s.pin); err != nil {
			err = &usageError{err}
		}
	case s.knownNodes == "":
		dir, err := os.UserConfigDir()
		if err != nil {
			return o, fmt.Errorf("no place for the keys of known nodes: %w; give --known-nodes",
				err)
		}
		o.KnownServers = filepath.Join(dir, "kvd", "known_nodes")
	}
	return o, err
}

func (n *node) remote() bool { return true }

func (n *node) with(d lsm.Durability) bench.Target {
	return &node{n.ctx, n.client, d, n.counters}
}

func (n *node) Put(key, value []byte) error {
	return n.client.Put(n.ctx, key, value, n.durability)
}

func (n *node) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := n.client.Get(n.ctx, key, dst)
	if errors.Is(err, lsm.ErrNotFound) {
		return dst, false, nil
	}
	return v, err == nil, err
}

// errEnough ends a scan that the runner wants no more of.
var errEnough = errors.New("enough")

func (n *node) Scan(start []byte, limit int, fn func(key, value []byte) bool) (int, error) {
	seen := 0
	err := n.client.Scan(n.ctx, start, nil, max(limit, 0), func(key, value []byte) error {
		seen++
		if !fn(key, value) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return seen, err
}

func (n *node) Ping() error { return n.client.Ping(n.ctx) }

func (n *node) Settle() error {
	return settle(n.ctx, func() error { return n.client.Flush(n.ctx) }, n.metrics)
}

// metrics asks the node for the counters of its engine.
func (n *node) metrics() (lsm.Metrics, error) {
	text, err := n.client.Status(n.ctx)
	if err != nil {
		return lsm.Metrics{}, err
	}
	var s struct {
		Engine lsm.Metrics `json:"engine"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return lsm.Metrics{}, fmt.Errorf("status of the node: %w", err)
	}
	return s.Engine, nil
}

func (n *node) Stats() []bench.Stat {
	m, err := n.metrics()
	if err != nil {
		return []bench.Stat{{Name: "counters", Value: err.Error()}}
	}
	return n.counters.since(m)
}

func (n *node) Close() error { return n.client.Close() }
