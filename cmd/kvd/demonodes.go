package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"kvd/netquic"
	"kvd/replication"
)

// demoNode is one of the nodes of the demo.
type demoNode struct {
	id, addr, data string
	child          *childNode // nil while it is down
	asker          *replication.Client
}

const demoNodes = 5

// startNodes makes an authority and starts the nodes that it signs for.
func (d *demo) startNodes(ctx context.Context) (err error) {
	start := time.Now()
	if _, err = netquic.CreateAuthority(d.p.client.tls); err != nil {
		return err
	}
	// Between finding a port free and a node's taking it, somebody else may take it.
	for tries := 3; ; tries-- {
		err := d.startNodesOnce()
		if err == nil {
			break
		}
		if tries == 1 || !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
			return err
		}
		for _, n := range d.nodes {
			n.kill()
		}
	}
	if err := d.awaitConnected(ctx); err != nil {
		return err
	}
	d.p.client.addr = d.nodes[0].addr
	d.client = d.p.clusterClient()
	var addrs []string
	for _, n := range d.nodes {
		addrs = append(addrs, n.addr)
	}
	d.say("Five nodes run at %s; each key is on three of them.", strings.Join(addrs, ", "))
	return d.figure("start", map[string]any{"nodes": addrs, "replicas": d.place.N,
		"seconds": time.Since(start).Seconds()})
}

func (d *demo) startNodesOnce() error {
	addrs, err := freePorts(demoNodes)
	if err != nil {
		return err
	}
	d.nodes = nil
	var members []replication.Member
	for i, addr := range addrs {
		n := &demoNode{id: fmt.Sprintf("n%d", i+1), addr: addr}
		n.data = filepath.Join(d.temp, n.id)
		d.nodes = append(d.nodes, n)
		members = append(members, replication.Member{ID: replication.NodeID(n.id), Addr: addr})
	}
	if d.place, err = replication.NewPlacement(1, members, 3); err != nil {
		return err
	}
	return d.startAll()
}

func (d *demo) startAll() error {
	for _, n := range d.nodes {
		if err := d.startNode(n); err != nil {
			return fmt.Errorf("%s: %w", n.id, err)
		}
	}
	return nil
}

func (d *demo) startNode(n *demoNode) (err error) {
	n.child, err = startChildNode("--data", n.data, "--listen", n.addr, "--id", n.id,
		"--cluster", describeMembers(d.place), "--tls", d.p.client.tls,
		"--known-nodes", filepath.Join(d.temp, "known_nodes"),
		"--memtable", "16MiB", "--cache", "16MiB")
	return err
}

// kill ends a node with SIGKILL, if it runs.
func (n *demoNode) kill() {
	if n.child != nil {
		n.child.kill()
	}
	n.forget()
}

// forget is for a node whose process has ended.
func (n *demoNode) forget() {
	if n.asker != nil {
		_ = n.asker.Close() // there is nobody at its other end
	}
	n.child, n.asker = nil, nil
}

// freePorts finds UDP ports of this machine that nobody listens on. They are below those that
// systems give out by themselves: a node that is down for a while is to find its own free again.
func freePorts(n int) (addrs []string, err error) {
	const lowest, highest = 20000, 32000
	for tries := 100 * n; len(addrs) < n; tries-- {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1),
			Port: lowest + rand.IntN(highest-lowest)})
		if errors.Is(err, syscall.EADDRINUSE) && tries > 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer c.Close() // when all are found, so that they differ
		addrs = append(addrs, c.LocalAddr().String())
	}
	return addrs, nil
}

// ring asks one node how it sees the cluster.
func (d *demo) ring(ctx context.Context, n *demoNode) (replication.Ring, error) {
	if n.asker == nil {
		c, err := d.p.caller(n.addr)
		if err != nil {
			return replication.Ring{}, err
		}
		n.asker = replication.NewClient(c, netquic.ErrInDoubt)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return n.asker.Ring(ctx)
}

// awaitConnected waits until each node has a connection to each.
func (d *demo) awaitConnected(ctx context.Context) error {
	return d.await(ctx, func(r *replication.Ring, _ time.Time) bool {
		for _, m := range r.Members {
			if !m.Connected {
				return false
			}
		}
		return true
	})
}

// awaitEqual waits until each two nodes have found that they hold the same, and nobody owes
// anything to anybody.
func (d *demo) awaitEqual(ctx context.Context) error {
	asked := time.Now()
	return d.await(ctx, func(r *replication.Ring, at time.Time) bool {
		for _, m := range r.Members {
			if m.ID != r.Self && (m.Hints > 0 || m.EqualSeconds == nil ||
				*m.EqualSeconds > at.Sub(asked).Seconds()) {
				return false
			}
		}
		return true
	})
}

// await waits until all running nodes see what ok wants to see. It is told when they were asked.
func (d *demo) await(ctx context.Context, ok func(r *replication.Ring, at time.Time) bool) error {
	for end := time.Now().Add(2 * time.Minute); ; {
		all := true
		for _, n := range d.nodes {
			if n.child == nil {
				continue
			}
			at := time.Now()
			r, err := d.ring(ctx, n)
			if err != nil || !ok(&r, at) {
				all = false
			}
		}
		switch {
		case all:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return errors.New("the nodes have not come together in two minutes")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// clean ends the nodes and removes everything.
func (d *demo) clean() error {
	if d.client != nil {
		_ = d.client.Close() // its nodes are about to go
	}
	for _, n := range d.nodes {
		n.kill()
	}
	return os.RemoveAll(d.temp)
}

// stopNodes ends all nodes cleanly.
func (d *demo) stopNodes(ctx context.Context) error {
	for _, n := range d.nodes {
		if err := n.child.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return fmt.Errorf("%s: %w", n.id, err)
		}
	}
	late := time.After(time.Minute)
	for _, n := range d.nodes {
		select {
		case <-n.child.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return fmt.Errorf("%s has not stopped within a minute of SIGTERM", n.id)
		}
		if err := n.child.failure(); err != nil {
			return fmt.Errorf("%s did not stop in order: %w", n.id, err)
		}
		n.forget()
	}
	return nil
}

// keep leaves the nodes up for the visitor, and starts those again that he kills.
func (d *demo) keep(ctx context.Context) error {
	if err := d.startAll(); err != nil {
		return err
	}
	if err := d.awaitConnected(ctx); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var pids []string
	for _, n := range d.nodes {
		pids = append(pids, fmt.Sprintf("%s %d", n.id, n.child.cmd.Process.Pid))
	}
	d.say("\nThe nodes are up again (processes: %s). Try, in another terminal:\n\n"+
		"  alias kvd=%s\n"+
		"  export KVD_ADDR=%s KVD_TLS=%s\n"+
		"  kvd ring                       the nodes and what they hold\n"+
		"  kvd put greeting 'hello'       write, and: kvd get greeting\n"+
		"  kvd explain greeting           who has it\n"+
		"  kill -9 %-22d one node less for %s: go on reading and writing\n\n"+
		"Ctrl-C ends the nodes and removes their files.", strings.Join(pids, ", "), self,
		d.nodes[0].addr, d.p.client.tls, d.nodes[4].child.cmd.Process.Pid, keptDown)
	if err := d.figure("keep", map[string]any{"addr": d.nodes[0].addr, "tls": d.p.client.tls,
		"process": d.nodes[4].child.cmd.Process.Pid}); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, n := range d.nodes {
		wg.Go(func() { d.keepUp(ctx, n) })
	}
	wg.Wait()
	return nil
}

// keptDown is how long a node that the visitor has killed is away.
const keptDown = 20 * time.Second

func (d *demo) keepUp(ctx context.Context, n *demoNode) {
	pause := func(t time.Duration) bool {
		select {
		case <-time.After(t):
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		select {
		case <-n.child.done:
		case <-ctx.Done():
			return
		}
		// Ctrl-C on a terminal is told to the nodes too, and that is no death to speak of.
		if !pause(200 * time.Millisecond) {
			return
		}
		d.say("%s is gone; it is started again in %s.", n.id, keptDown)
		if !pause(keptDown) {
			return
		}
		n.forget()
		if err := d.startNode(n); err != nil {
			d.say("%s does not start: %v", n.id, err)
			return
		}
		d.say("%s runs again, as process %d. kvd ring shows what it is owed.", n.id,
			n.child.cmd.Process.Pid)
	}
}

// installHint is for whoever runs the demo before there is a kvd to call.
func installHint() string {
	if _, err := exec.LookPath("kvd"); err == nil {
		return ""
	}
	return "  go install ./cmd/kvd         makes kvd a command, if Go's bin is in your PATH\n"
}
