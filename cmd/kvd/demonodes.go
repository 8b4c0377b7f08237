package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"kvd/netquic"
	"kvd/replication"
)

// demoNode is one of the nodes of the demo.
type demoNode struct {
	id, addr, data string
	child          *childNode // nil while it is down
}

const demoNodes = 5

// startNodes makes an authority and starts the nodes that it signs for.
func (d *demo) startNodes(ctx context.Context) (err error) {
	if _, err = netquic.CreateAuthority(d.p.client.tls); err != nil {
		return err
	}
	addrs, err := freePorts(demoNodes)
	if err != nil {
		return err
	}
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
	for _, n := range d.nodes {
		if err := d.startNode(n); err != nil {
			return err
		}
	}
	d.p.client.addr = d.nodes[0].addr
	d.client = d.p.clusterClient()
	if err := d.await(ctx, func(r replication.Ring) bool {
		up := 0
		for _, m := range r.Members {
			if m.Connected {
				up++
			}
		}
		return up == demoNodes
	}); err != nil {
		return err
	}
	d.say("Five nodes run at %s; each key is on three of them.", strings.Join(addrs, ", "))
	return nil
}

func (d *demo) startNode(n *demoNode) (err error) {
	n.child, err = startChildNode(d.p.stderr, "--data", n.data, "--listen", n.addr, "--id", n.id,
		"--cluster", describeMembers(d.place), "--tls", d.p.client.tls,
		"--known-nodes", filepath.Join(d.temp, "known_nodes"),
		"--memtable", "16MiB", "--cache", "16MiB")
	return err
}

// freePorts finds UDP ports of this machine that nobody listens on.
func freePorts(n int) (addrs []string, err error) {
	for range n {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		defer c.Close() // when all are found, so that they differ
		addrs = append(addrs, c.LocalAddr().String())
	}
	return addrs, nil
}

// ring asks one node how it sees the cluster.
func (d *demo) ring(ctx context.Context, n *demoNode) (r replication.Ring, err error) {
	d.p.client.addr = n.addr
	c := d.p.clusterClient()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err = c.Ring(ctx)
	return r, errors.Join(err, c.Close())
}

// await waits until all running nodes see what ok wants to see.
func (d *demo) await(ctx context.Context, ok func(r replication.Ring) bool) error {
	for end := time.Now().Add(2 * time.Minute); ; {
		all := true
		for _, n := range d.nodes {
			if n.child == nil {
				continue
			}
			r, err := d.ring(ctx, n)
			if err != nil || !ok(r) {
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
		if n.child != nil {
			n.child.kill()
		}
	}
	return os.RemoveAll(d.temp)
}

// stopNodes ends all nodes cleanly.
func (d *demo) stopNodes() error {
	for _, n := range d.nodes {
		if err := n.child.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
	}
	for _, n := range d.nodes {
		<-n.child.done
		n.child = nil
	}
	return nil
}

// keep leaves the nodes up for the visitor.
func (d *demo) keep(ctx context.Context) error {
	for _, n := range d.nodes {
		if err := d.startNode(n); err != nil {
			return err
		}
	}
	var pids []string
	for _, n := range d.nodes {
		pids = append(pids, fmt.Sprintf("%s %d", n.id, n.child.cmd.Process.Pid))
	}
	d.say("\nThe nodes are up again (processes: %s). Try, in another terminal:\n\n"+
		"  export KVD_ADDR=%s KVD_TLS=%s\n"+
		"  kvd ring                       the nodes and what they hold\n"+
		"  kvd put greeting 'hello'       write, and: kvd get greeting\n"+
		"  kvd explain greeting           who has it\n"+
		"  kill -9 %d                  one node less: go on reading and writing\n\n"+
		"Ctrl-C ends the nodes and removes their files.", strings.Join(pids, ", "),
		d.nodes[0].addr, d.p.client.tls, d.nodes[4].child.cmd.Process.Pid)
	<-ctx.Done()
	return nil
}
