package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/lsm/vfs"
	"kvd/netquic"
	"kvd/replication"
)

// chaosCluster is nodes in processes of their own, with a proxy on the way from each to each.
type chaosCluster struct {
	t         *testing.T
	r         *rand.Rand
	dir       string
	place     *replication.Placement
	authority *netquic.Authority
	nodes     []*chaosNode
	real      map[string]string // address that a node knows -> where the node is
}

type chaosNode struct {
	id      string
	addr    string
	data    string
	ways    []*udpProxy // to the others, by their number; nil for itself
	running *runningNode
	stopped bool // by SIGSTOP
}

func newChaosCluster(t *testing.T, seed uint64, n int) *chaosCluster {
	t.Helper()
	c := &chaosCluster{t: t, r: rand.New(rand.NewPCG(seed, 11)), dir: t.TempDir(),
		real: map[string]string{}}
	tls := filepath.Join(c.dir, "tls")
	var err error
	if c.authority, err = netquic.CreateAuthority(tls); err != nil {
		t.Fatal(err)
	}
	var members []replication.Member
	for i := range n {
		x := &chaosNode{id: fmt.Sprintf("n%d", i+1), addr: freeAddr(),
			data: filepath.Join(c.dir, fmt.Sprintf("n%d", i+1)), ways: make([]*udpProxy, n)}
		c.nodes = append(c.nodes, x)
		c.real[x.addr] = x.addr
		members = append(members, replication.Member{ID: replication.NodeID(x.id), Addr: x.addr})
	}
	if c.place, err = replication.NewPlacement(1, members, 3); err != nil {
		t.Fatal(err)
	}
	for i, a := range c.nodes {
		for j, b := range c.nodes {
			if i == j {
				continue
			}
			if a.ways[j], err = newUDPProxy(b.addr); err != nil {
				t.Fatal(err)
			}
			c.real[a.ways[j].addr()] = b.addr
		}
	}
	t.Cleanup(c.clear)
	for i := range c.nodes {
		c.start(i)
	}
	return c
}

// freeAddr is a port below those that the system gives out by itself.
func freeAddr() string {
	for {
		addr := net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 20000 + rand.IntN(12000)}
		if c, err := net.ListenUDP("udp", &addr); err == nil {
			_ = c.Close() // it was opened to see whether it is free
			return addr.String()
		}
	}
}

func (c *chaosCluster) clear() {
	for _, n := range c.nodes {
		if n.running != nil {
			_ = n.running.cmd.Process.Kill()
			_ = n.running.cmd.Wait()
		}
		for _, p := range n.ways {
			if p != nil {
				_ = p.socket.Close()
			}
		}
	}
}

func (c *chaosCluster) start(i int) {
	c.t.Helper()
	n := c.nodes[i]
	var list []string
	for j, m := range c.nodes {
		addr := m.addr
		if j != i {
			addr = n.ways[j].addr()
		}
		list = append(list, m.id+"="+addr)
	}
	running, err := startNode([]string{"serve", "-o", "json", "--id", n.id, "--cluster",
		strings.Join(list, ","), "--tls", filepath.Join(c.dir, "tls"), "--data", n.data,
		"--admin", "off", "--memtable", "8MiB", "--cache", "8MiB"},
		filepath.Join(c.dir, n.id+".log"))
	if err != nil {
		c.t.Fatal(err)
	}
	n.running = running
}

func (c *chaosCluster) kill(i int) {
	n := c.nodes[i]
	_ = n.running.cmd.Process.Kill()
	_ = n.running.cmd.Wait()
	n.running, n.stopped = nil, false
}

// pause stops or continues a process.
func (c *chaosCluster) pause(i int, stop bool) {
	n := c.nodes[i]
	if n.running == nil || n.stopped == stop {
		return
	}
	signal := syscall.SIGCONT
	if stop {
		signal = syscall.SIGSTOP
	}
	if err := n.running.cmd.Process.Signal(signal); err != nil {
		c.t.Error(err)
	}
	n.stopped = stop
}

// cut stops what from sends to to, whoever made the connection.
func (c *chaosCluster) cut(from, to int, stop bool) {
	c.nodes[from].ways[to].cutThere.Store(stop)
	c.nodes[to].ways[from].cutBack.Store(stop)
}

// isolate stops everything between one node and the others.
func (c *chaosCluster) isolate(i int, stop bool) {
	for j := range c.nodes {
		if j != i {
			c.cut(i, j, stop)
			c.cut(j, i, stop)
		}
	}
}

// lossy has the network lose and repeat some packets, and delay all.
func (c *chaosCluster) lossy(lossPercent, twicePercent int, delay time.Duration) {
	for _, n := range c.nodes {
		for _, p := range n.ways {
			if p != nil {
				p.lossPercent.Store(int64(lossPercent))
				p.twicePercent.Store(int64(twicePercent))
				p.delay.Store(int64(delay))
			}
		}
	}
}

// client is one that goes to where the nodes really are.
func (c *chaosCluster) client(first int) *replication.ClusterClient {
	return replication.NewClusterClient([]string{c.nodes[first].addr},
		func(addr string) (replication.Caller, error) {
			return netquic.NewClient(c.real[addr], netquic.Options{Authority: c.authority})
		}, netquic.ErrInDoubt)
}

// settled waits until nobody is owed anything and all owners of the keys hold the same, and returns
// how long it took.
func (c *chaosCluster) settled(keys []string, patience time.Duration) time.Duration {
	c.t.Helper()
	began := time.Now()
	ctx := context.Background()
	var clients []*replication.ClusterClient
	for i := range c.nodes {
		clients = append(clients, c.client(i))
	}
	defer func() {
		for _, k := range clients {
			_ = k.Close()
		}
	}()
	for {
		left := ""
		for i, k := range clients {
			r, err := k.Ring(ctx)
			if err != nil {
				left = fmt.Sprintf("%s: %v", c.nodes[i].id, err)
				continue
			}
			for _, m := range r.Members {
				if m.Hints > 0 {
					left = fmt.Sprintf("%s owes %d keys to %s", c.nodes[i].id, m.Hints, m.ID)
				}
			}
		}
		for _, key := range keys {
			if left != "" {
				break
			}
			left = c.differs(ctx, clients[0], key)
		}
		if left == "" {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			c.t.Fatalf("after %v the replicas are not equal: %s", time.Since(began), left)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (c *chaosCluster) differs(ctx context.Context, k *replication.ClusterClient, key string) string {
	x, err := k.Explain(ctx, []byte(key))
	if err != nil {
		return fmt.Sprintf("%s: %v", key, err)
	}
	digest := x.Replicas[0].Digest
	for _, r := range x.Replicas {
		switch {
		case r.Answer == "none" || r.Answer == "failed":
			return fmt.Sprintf("%s: %s does not answer", key, r.Node)
		case r.Owner && r.Digest != digest:
			return fmt.Sprintf("%s: %s and %s differ", key, x.Replicas[0].Node, r.Node)
		case !r.Owner && r.Digest != "":
			return fmt.Sprintf("%s: %s keeps it for somebody", key, r.Node)
		}
	}
	return ""
}

// compareDisks stops the nodes and compares what they have on disk, byte for byte.
func (c *chaosCluster) compareDisks() (objects int) {
	c.t.Helper()
	held := make([]map[string]string, len(c.nodes))
	for i, n := range c.nodes {
		if err := n.running.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			c.t.Fatal(err)
		}
		if err := n.running.cmd.Wait(); err != nil {
			c.t.Errorf("%s after SIGTERM: %v", n.id, err)
		}
		n.running = nil
		db, err := lsm.Open(n.data, lsm.Options{ReadOnly: true})
		if err != nil {
			c.t.Fatal(err)
		}
		held[i] = map[string]string{}
		it := db.NewIter(lsm.IterOptions{Lower: []byte{'d'}, Upper: []byte{'e'}})
		for key, value := range it.All() {
			held[i][string(key)] = string(value)
		}
		if err := errors.Join(it.Close(), db.Close()); err != nil {
			c.t.Fatal(err)
		}
		v, err := lsm.Verify(vfs.OS, n.data, nil)
		if err != nil || len(v.Damages) > 0 {
			c.t.Errorf("%s: %v, %v", n.id, v.Damages, err)
		}
	}
	for i, mine := range held {
		for key, value := range mine {
			part := replication.Partition(key[1])<<8 | replication.Partition(key[2])
			if !c.place.Owns(replication.NodeID(c.nodes[i].id), part) {
				c.t.Errorf("%s keeps %q, which is not its own", c.nodes[i].id, key)
			}
			objects++
			for j, n := range c.nodes {
				if c.place.Owns(replication.NodeID(n.id), part) && held[j][key] != value {
					c.t.Errorf("%s and %s differ in %q", c.nodes[i].id, n.id, key[3:])
				}
			}
		}
	}
	return objects
}

func (c *chaosCluster) wipe(i int) {
	c.kill(i)
	if err := os.RemoveAll(c.nodes[i].data); err != nil {
		c.t.Fatal(err)
	}
}
