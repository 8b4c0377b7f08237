package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
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
	tls, name  string // of a cluster: directory of certificates, and which of them is ours
}

// addClientFlags gives cmd the flags it takes to reach a node.
func (p *program) addClientFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.client.addr, "addr", defaultListen,
		"address of the node, host:port; of a cluster's nodes also a list with commas")
	p.addKnownNodesFlag(cmd)
	f.StringVar(&p.client.pin, "pin", "", "the node's public key, sha256:..., instead of that file")
	addTLSFlag(cmd, &p.client.tls)
	f.StringVar(&p.client.name, "cert", "", "in a cluster: name of the certificate in --tls")
	f.DurationVar(&p.client.timeout, "timeout", 10*time.Second, "how long to wait for one answer")
	setting(f, "addr", "pin", "timeout", "cert")
}

// addKnownNodesFlag is for clients, which look a node's key up there, and for nodes, which leave
// theirs there.
func (p *program) addKnownNodesFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.client.knownNodes, "known-nodes", "",
		"file that remembers the keys of nodes (default: known_nodes in your kvd config directory)")
	setting(cmd.Flags(), "known-nodes")
}

// addrs are the addresses of --addr.
func (s *clientSettings) addrs() []string {
	list := strings.Split(s.addr, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

func (s *clientSettings) check() error {
	for _, addr := range s.addrs() {
		if err := checkAddress("addr", addr); err != nil {
			return err
		}
	}
	if s.timeout <= 0 {
		return usagef("timeout %v: must be above zero", s.timeout)
	}
	return nil
}

// dial connects to the node. A node that is not there is told at once.
func (p *program) dial(ctx context.Context) (*replication.Client, error) {
	if err := p.client.check(); err != nil {
		return nil, err
	}
	if len(p.client.addrs()) > 1 {
		return nil, usagef("addr %q: this command asks one node", p.client.addr)
	}
	return p.dialOne(ctx, p.client.addr)
}

// dialAny connects to the first node that answers, and tells whether it is one of a cluster.
func (p *program) dialAny(ctx context.Context) (c *replication.Client, inCluster bool, err error) {
	if err := p.client.check(); err != nil {
		return nil, false, err
	}
	addrs := p.client.addrs()
	var errs []error
	for _, addr := range addrs {
		// Together they get the time of one, which is what a node that is silent would take.
		one, cancel := context.WithTimeout(ctx, p.client.timeout/time.Duration(len(addrs)))
		c, err = p.dialOne(one, addr)
		cancel()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, err = c.Ring(ctx)
		alone := errors.Is(err, replication.ErrNoCluster)
		if err != nil && !alone { // it is stopping, or has too much to do
			errs = append(errs, errors.Join(err, c.Close()))
			continue
		}
		if alone && len(addrs) > 1 {
			err = usagef("addr %q: the node at %s is by itself, a list is for the nodes of a "+
				"cluster", p.client.addr, addr)
		} else if alone {
			err = nil
		}
		if err != nil {
			return nil, false, errors.Join(err, c.Close())
		}
		return c, !alone, nil
	}
	return nil, false, errors.Join(errs...)
}

func (p *program) dialOne(ctx context.Context, addr string) (*replication.Client, error) {
	c, err := p.caller(addr)
	if err != nil {
		return nil, err
	}
	if err := c.Connect(ctx); err != nil {
		err = fmt.Errorf("cannot reach the node at %s: %w", addr, err)
		return nil, errors.Join(err, c.Close())
	}
	return replication.NewClient(c, netquic.ErrInDoubt), nil
}

// caller makes a connection to an address, which is opened when it is used.
func (p *program) caller(addr string) (c *netquic.Client, err error) {
	s := p.client
	o := netquic.Options{CallTimeout: s.timeout}
	switch {
	case s.tls != "":
		err = s.certificate(&o)
	case s.pin != "":
		if o.Pin, err = netquic.ParsePin(s.pin); err != nil {
			err = &usageError{err: err}
		}
	default:
		o.KnownServers, err = s.knownServers()
	}
	if s.tls != "" && errors.Is(err, fs.ErrNotExist) {
		err = &usageError{err, tlsHint}
	}
	if err != nil {
		return nil, err
	}
	return netquic.NewClient(addr, o)
}

const tlsHint = "--tls is a directory with the cluster's ca.pem, and NAME.pem and NAME.key of " +
	"who is to be let in; make one with: kvd cert init --tls DIR"

// certificate has the client know the nodes of a cluster by their authority, and show a certificate
// of its own if one is named.
func (s *clientSettings) certificate(o *netquic.Options) (err error) {
	if s.name == "" {
		o.Authority, err = netquic.LoadAuthority(filepath.Join(s.tls, netquic.AuthorityCertFile))
		return err
	}
	o.ClientCert, err = netquic.LoadClient(s.tls, s.name)
	return err
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
