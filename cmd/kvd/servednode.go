package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

// The server would do without, unnoticed.
var (
	_ netquic.Deferrer = (*replication.Node)(nil)
	_ netquic.Starter  = (*replication.Cluster)(nil)
)

// servedNode is what listens: a node by itself, or one of a cluster.
type servedNode struct {
	server  *netquic.Server
	node    *replication.Node
	pin     netquic.Pin
	cluster *replication.Cluster // nil for a node by itself
	peers   *netquic.Peers
}

func addClusterFlags(cmd *cobra.Command, s *serveSettings) {
	f := cmd.Flags()
	f.StringVar(&s.id, "id", "", "name of this node in its cluster")
	f.StringVar(&s.cluster, "cluster", "",
		"nodes of the cluster, the same on all: id=host:port[@zone][*weight],...")
	f.IntVar(&s.replicas, "replicas", 0, "nodes that hold each key (default 3, or all if fewer)")
	f.StringVar(&s.buckets, "buckets", "",
		"what becomes of concurrent writes, by the first part of the key: NAME=lww|siblings,...")
	addTLSFlag(cmd, &s.tls)
	setting(f, "id", "cluster", "replicas", "buckets")
}

// checkCluster checks the flags of a node of a cluster and completes them.
func (s *serveSettings) checkCluster() error {
	if s.cluster == "" {
		if s.id != "" || s.tls != "" || s.replicas != 0 || s.buckets != "" {
			return usagef("--id, --tls, --replicas and --buckets are for nodes of a cluster: " +
				"--cluster is missing")
		}
		return nil
	}
	if s.id == "" {
		return usagef("--id is missing: which of the nodes in --cluster is this one?")
	}
	if s.tls == "" {
		return usagef("--tls is missing: the directory of the cluster's certificates; " +
			"make one with: kvd cert init --tls DIR")
	}
	_, self, err := s.placement()
	if err != nil {
		return err
	}
	if _, _, err := parseBuckets(s.buckets); err != nil {
		return err
	}
	if s.listen == "" {
		s.listen = self.Addr
	}
	return nil
}

// listenOn opens the port and makes the node behind it. Nothing is served before serve.
func (s *serveSettings) listenOn(db *lsm.DB, log *slog.Logger) (*servedNode, error) {
	if s.cluster != "" {
		return s.listenInCluster(db, log)
	}
	identity, err := netquic.EnsureIdentity(filepath.Join(s.data, "tls"))
	if err != nil {
		return nil, err
	}
	n := &servedNode{pin: identity.Pin()}
	if n.server, err = netquic.Listen(s.listen, netquic.Options{Identity: identity}); err != nil {
		return nil, err
	}
	n.node = replication.NewNode(db, s.nodeOptions(n))
	return n, nil
}

// wantsCertificates reports whether a node of a cluster lets clients in by certificate only.
func (s *serveSettings) wantsCertificates() bool {
	return !s.anyClient && !netquic.IsLoopback(s.listen)
}

func (s *serveSettings) nodeOptions(n *servedNode) replication.NodeOptions {
	return replication.NodeOptions{Version: version(),
		Transport: func() any { return n.server.Metrics() }}
}

func (s *serveSettings) listenInCluster(db *lsm.DB, log *slog.Logger) (*servedNode, error) {
	place, self, err := s.placement()
	if err != nil {
		return nil, err
	}
	policy, policies, err := parseBuckets(s.buckets)
	if err != nil {
		return nil, err
	}
	identity, err := netquic.LoadCluster(s.tls, s.id)
	if err != nil {
		return nil, err
	}
	n := &servedNode{pin: identity.Pin()}
	var peers atomic.Pointer[netquic.Peers] // what is sent before they are there is lost
	n.cluster, err = replication.NewCluster(db, replication.ClusterOptions{
		Self: self.ID, Placement: place, Authority: identity.Authority().ID(), Policy: policy,
		Policies: policies,
		Logger:   log, Node: s.nodeOptions(n),
		Send: func(to replication.NodeID, class replication.Class, message []byte) bool {
			p := peers.Load()
			return p != nil && p.Send(string(to), netquic.Class(class), message)
		},
	})
	if err != nil {
		return nil, err
	}
	n.node = n.cluster.Node()
	if n.server, err = netquic.Listen(s.listen, netquic.Options{Cluster: identity,
		RequireClientCert: s.wantsCertificates()}); err != nil {
		return nil, err
	}
	addrs := map[string]string{}
	for _, m := range place.Members {
		if m.ID != self.ID {
			addrs[string(m.ID)] = m.Addr
		}
	}
	n.peers, err = n.server.StartPeers(netquic.PeerOptions{Peers: addrs}, n.cluster)
	if err != nil {
		return nil, err
	}
	peers.Store(n.peers)
	log.Info("node of a cluster", "id", s.id, "members", describeMembers(place), "replicas",
		place.N)
	return n, nil
}

// serve serves until the server is shut down. The end of ctx gives up what is under way.
func (n *servedNode) serve(ctx context.Context) error {
	if n.cluster == nil {
		return n.server.Serve(ctx, n.node)
	}
	ctx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- n.cluster.Run(ctx) }()
	err := n.server.Serve(ctx, n.cluster)
	stop()
	<-ran // it ends because it was told to
	return err
}
