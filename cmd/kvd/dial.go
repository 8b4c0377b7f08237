package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

const (
	defaultListen = "127.0.0.1:7400"
	defaultAdmin  = "127.0.0.1:7401"
)

// clientSettings are the settings of commands that ask a node.
type clientSettings struct {
	addr       string
	knownNodes string
	pin        string
	timeout    time.Duration
}

// addClientFlags gives cmd the flags it takes to reach a node.
func (p *program) addClientFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.client.addr, "addr", defaultListen, "address of the node, host:port")
	p.addKnownNodesFlag(cmd)
	f.StringVar(&p.client.pin, "pin", "", "the node's public key, sha256:..., instead of that file")
	f.DurationVar(&p.client.timeout, "timeout", 10*time.Second, "how long to wait for one answer")
	setting(f, "addr", "pin", "timeout")
}

// addKnownNodesFlag is for clients, which look a node's key up there, and for nodes, which leave
// theirs there.
func (p *program) addKnownNodesFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.client.knownNodes, "known-nodes", "",
		"file that remembers the keys of nodes (default: known_nodes in your kvd config directory)")
	setting(cmd.Flags(), "known-nodes")
}

// dial connects to the node. A node that is not there is told at once.
func (p *program) dial(ctx context.Context) (*replication.Client, error) {
	s := p.client
	if err := checkAddress("addr", s.addr); err != nil {
		return nil, err
	}
	if s.timeout <= 0 {
		return nil, usagef("timeout %v: must be above zero", s.timeout)
	}
	o := netquic.Options{CallTimeout: s.timeout}
	var err error
	if s.pin != "" {
		if o.Pin, err = netquic.ParsePin(s.pin); err != nil {
			return nil, &usageError{err}
		}
	} else if o.KnownServers, err = s.knownServers(); err != nil {
		return nil, err
	}
	c, err := netquic.NewClient(s.addr, o)
	if err != nil {
		return nil, err
	}
	if err := c.Connect(ctx); err != nil {
		err = fmt.Errorf("cannot reach the node at %s: %w", s.addr, err)
		return nil, errors.Join(err, c.Close())
	}
	return replication.NewClient(c, netquic.ErrInDoubt), nil
}

func (s *clientSettings) knownServers() (string, error) {
	if s.knownNodes != "" {
		return s.knownNodes, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no place for the keys of known nodes: %w; name one: --known-nodes",
			err)
	}
	return filepath.Join(dir, "kvd", "known_nodes"), nil
}

// withClient runs fn with a connection to the node and closes that.
func (p *program) withClient(ctx context.Context, fn func(c *replication.Client) error) error {
	c, err := p.dial(ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(c), c.Close())
}

// checkAddress checks a host:port before anything is done with it.
func checkAddress(flag, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return usagef("%s %q: must be host:port", flag, addr)
	}
	if _, err := net.LookupPort("udp", port); err != nil || host == "" && flag == "addr" {
		return usagef("%s %q: must be host:port, the port from 0 to 65535", flag, addr)
	}
	return nil
}

// durabilityFlag is --durability.
type durabilityFlag lsm.Durability

var durabilityNames = [...]string{lsm.Sync: "sync", lsm.Async: "async", lsm.NoSync: "nosync"}

func (d *durabilityFlag) Set(s string) error {
	for i, name := range durabilityNames {
		if s == name {
			*d = durabilityFlag(i)
			return nil
		}
	}
	return errors.New("must be sync, async or nosync")
}

func (d *durabilityFlag) String() string { return durabilityNames[*d] }
func (d *durabilityFlag) Type() string   { return "class" }

func addDurabilityFlag(cmd *cobra.Command, d *durabilityFlag) {
	cmd.Flags().Var(d, "durability", "what an acknowledged write survives: "+
		"sync (power loss), async (death of the process), nosync (a clean stop)")
	setting(cmd.Flags(), "durability")
}

// noArgs and exactly are cobra's, as usage errors.
func noArgs(cmd *cobra.Command, args []string) error {
	return exactly(0, "no arguments")(cmd, args)
}

func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("takes %s, got %d", what, len(args))
		}
		return nil
	}
}
