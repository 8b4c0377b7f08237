package netquic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// inbox is a PeerHandler that keeps what it gets.
type inbox struct {
	mu       sync.Mutex
	messages map[string][][]byte // by sender
	events   []string
	refused  []string
	hook     func(from string, msg []byte) // instead of keeping
}

func (b *inbox) HandlePeer(from string, msgs [][]byte) {
	for _, msg := range msgs {
		b.take(from, msg)
	}
}

func (b *inbox) take(from string, msg []byte) {
	b.mu.Lock()
	hook := b.hook
	b.mu.Unlock()
	if hook != nil {
		hook(from, msg)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.messages == nil {
		b.messages = map[string][][]byte{}
	}
	b.messages[from] = append(b.messages[from], bytes.Clone(msg))
}

// handle hands messages on from now on instead of keeping them.
func (b *inbox) handle(hook func(from string, msg []byte)) {
	b.mu.Lock()
	b.hook = hook
	b.mu.Unlock()
}

func (b *inbox) PeerUp(name string) { b.event("up " + name) }

func (b *inbox) PeerDown(name string, err error) {
	if err == nil {
		name += " for no reason"
	}
	b.event("down " + name)
}

func (b *inbox) PeerRefused(name string, byPeer bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if byPeer {
		name += " refuses"
	}
	b.refused = append(b.refused, fmt.Sprintf("%s: %v", name, err))
}

func (b *inbox) refusals() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.refused, ", ")
}

func (b *inbox) event(e string) {
	b.mu.Lock()
	b.events = append(b.events, e)
	b.mu.Unlock()
}

func (b *inbox) from(name string) [][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.messages[name])
}

func (b *inbox) history() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.events, ", ")
}

// node is one node of a cluster in this process.
type node struct {
	s     *Server
	peers *Peers
	in    *inbox
	stop  func() // once; by Shutdown
}

// authority makes a directory with an authority in it.
func authority(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if _, err := CreateAuthority(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func clusterIdentity(t testing.TB, dir, name string) *ClusterIdentity {
	t.Helper()
	id, err := LoadCluster(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// startNode starts a node at addr that knows these peers.
func startNode(t testing.TB, addr string, o Options, po PeerOptions, in *inbox) *node {
	t.Helper()
	s, err := Listen(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	return runNode(t, s, po, in)
}

func runNode(t testing.TB, s *Server, po PeerOptions, in *inbox) *node {
	t.Helper()
	n := &node{s: s, in: in}
	var err error
	if n.peers, err = s.StartPeers(po, in); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), echo{true}) }()
	n.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-done); err != nil {
			t.Errorf("%s: %v", s.Addr(), err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// cluster starts nodes called n0, n1, ... that know each other, and waits until all are connected.
func cluster(t testing.TB, count int, o Options, po PeerOptions) []*node {
	t.Helper()
	dir := authority(t)
	var servers []*Server
	addrs := map[string]string{}
	for i := range count {
		o.Cluster = clusterIdentity(t, dir, fmt.Sprintf("n%d", i))
		s, err := Listen("127.0.0.1:0", o)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
		addrs[o.Cluster.name] = s.Addr().String()
	}
	var nodes []*node
	for i, s := range servers {
		po.Peers = map[string]string{}
		for name, addr := range addrs {
			if name != servers[i].o.Cluster.name {
				po.Peers[name] = addr
			}
		}
		nodes = append(nodes, runNode(t, s, po, &inbox{}))
	}
	for _, n := range nodes {
		waitPeers(t, n, func(m PeerMetrics) bool {
			return m.Connected == count-1 && m.Incoming == count-1
		})
	}
	return nodes
}

// eventually waits until ok.
func eventually(t testing.TB, what func() any, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still %+v", what())
		}
	}
}

func waitPeers(t testing.TB, n *node, ok func(PeerMetrics) bool) {
	t.Helper()
	eventually(t, func() any { return n.peers.Metrics() },
		func() bool { return ok(n.peers.Metrics()) })
}

// TestPeersDeliver sends messages of all classes and sizes among three nodes: all arrive, in order
// within a lane.
func TestPeersDeliver(t *testing.T) {
	nodes := cluster(t, 3, Options{}, PeerOptions{})
	var refused []uint64 // connections to a node that did not take peers yet
	for _, n := range nodes {
		waitFor(t, n.s, func(m Metrics) bool {
			return m.Handshakes == 0 && m.HandshakesFailed == m.WrongProtocol
		})
		refused = append(refused, n.s.Metrics().HandshakesFailed)
	}
	sizes := []int{8, 9, 150, 1194, 1196, 3000, 70000, 8 << 20}
	for i, from := range nodes {
		for j := range nodes {
			if i == j {
				continue
			}
			to := fmt.Sprintf("n%d", j)
			for seq := range 200 {
				size := sizes[seq%(len(sizes)-1)]
				if seq == 150 {
					size = sizes[len(sizes)-1] - messageBytes
				}
				msg := make([]byte, size)
				binary.LittleEndian.PutUint64(msg, uint64(seq))
				class := Class(seq % 2)
				for !from.peers.Send(to, class, msg) {
					time.Sleep(time.Millisecond)
				}
			}
		}
	}
	for i, n := range nodes {
		for j := range nodes {
			if i == j {
				continue
			}
			from := fmt.Sprintf("n%d", j)
			eventually(t, func() any { return len(n.in.from(from)) },
				func() bool { return len(n.in.from(from)) == 200 })
			next := [2]uint64{0, 1}
			for _, msg := range n.in.from(from) {
				seq := binary.LittleEndian.Uint64(msg)
				if seq != next[seq%2] {
					t.Fatalf("%d from %s, want one of %v", seq, from, next)
				}
				next[seq%2] += 2
			}
		}
		m := n.peers.Metrics()
		if m.Received != 400 || m.Sent["request"] != 200 || m.Sent["bulk"] != 200 || m.Lost != 0 {
			t.Errorf("%+v", m)
		}
		if c := n.s.Metrics(); c.Calls != 0 || c.HandshakesFailed != refused[i] {
			t.Errorf("%+v", c)
		}
	}
}

// TestPeersServeClients calls a node of a cluster as clients do.
func TestPeersServeClients(t *testing.T) {
	nodes := cluster(t, 2, Options{}, PeerOptions{})
	s := nodes[0].s
	for _, o := range []Options{
		{Pin: s.o.Identity.Pin()},
		{Authority: s.o.Cluster.authority},
		{KnownServers: t.TempDir() + "/known"},
	} {
		c, err := NewClient(s.Addr().String(), o)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Call(t.Context(), []byte("x"), nil); err != nil || string(got) != "x" {
			t.Errorf("%q, %v", got, err)
		}
		c.Close()
	}
}

// TestGossip sends what fits as datagrams and the rest on lane 0.
func TestGossip(t *testing.T) {
	nodes := cluster(t, 2, Options{}, PeerOptions{})
	a, b := nodes[0], nodes[1]
	for i := range 20 {
		if !a.peers.Send("n1", Gossip, []byte{byte(i)}) {
			t.Error("dropped")
		}
	}
	large := make([]byte, 5000)
	if !a.peers.Send("n1", Gossip, large) {
		t.Error("the large one dropped")
	}
	eventually(t, func() any { return len(b.in.from("n0")) },
		func() bool { return len(b.in.from("n0")) >= 11 }) // most datagrams arrive on a loopback
	if m := b.peers.Metrics(); m.DatagramsIn < 10 {
		t.Errorf("%+v", m)
	}
	// One that fits no packet of this connection is found out by QUIC.
	l := a.peers.peers["n1"].current.Load()
	l.gossip <- appendMessage(nil, kindMessage, make([]byte, 1<<14))
	eventually(t, func() any { return len(b.in.from("n0")) }, func() bool {
		return slices.ContainsFunc(b.in.from("n0"), func(m []byte) bool { return len(m) == 1<<14 })
	})
}

func TestSendRefuses(t *testing.T) {
	nodes := cluster(t, 2, Options{MaxFrameBytes: testMaxFrame}, PeerOptions{})
	p := nodes[0].peers
	if p.Send("n7", Request, nil) || p.Send("n0", Request, nil) {
		t.Error("sent to nobody")
	}
	if p.Send("n1", Bulk, make([]byte, testMaxFrame-messageBytes+1)) {
		t.Error("a message larger than a frame was sent")
	}
	if !p.Send("n1", Bulk, make([]byte, testMaxFrame-messageBytes)) || !p.Send("n1", Bulk, nil) {
		t.Error("messages of the largest and the smallest size were dropped")
	}
	eventually(t, func() any { return nodes[1].peers.Metrics() },
		func() bool { return len(nodes[1].in.from("n0")) == 2 })
	if m := p.Metrics(); m.Dropped["request"] != 2 || m.Dropped["bulk"] != 1 {
		t.Errorf("%+v", m)
	}
}

// TestPeerRestarts stops one of two nodes, cleanly or not, and starts it again.
func TestPeerRestarts(t *testing.T) {
	for _, how := range []string{"shutdown", "crash"} {
		t.Run(how, func(t *testing.T) {
			nodes := cluster(t, 2, Options{}, PeerOptions{})
			a, b := nodes[0], nodes[1]
			o := b.s.o
			addr := b.s.Addr().String()
			for round := range 3 {
				if !a.peers.Send("n1", Request, []byte("x")) {
					t.Fatal("dropped")
				}
				eventually(t, func() any { return b.peers.Metrics() },
					func() bool { return len(b.in.from("n0")) == 1 })
				if how == "crash" {
					crash(b.s)
				}
				b.stop()
				if how == "shutdown" {
					waitPeers(t, a, func(m PeerMetrics) bool {
						return m.Connected == 0 && m.Incoming == 0
					})
					if a.peers.Send("n1", Request, []byte("x")) {
						t.Error("sent to a node that is down")
					}
				}
				begun := time.Now()
				b = startNode(t, addr, o, b.peers.o, &inbox{})
				// The restarted node connects, and thereby has the other one try its own connection,
				// which ends at the first packet.
				waitPeers(t, b, func(m PeerMetrics) bool {
					return strings.Count(a.in.history(), "up n1") == round+2 && m.Connected == 1
				})
				if d := time.Since(begun); d > time.Second {
					t.Errorf("reconnected after %v", d)
				}
			}
			if h := a.in.history(); !strings.HasPrefix(h, "up n1, down n1, up n1, down n1, up n1") {
				t.Error(h)
			}
		})
	}
}

// TestShutdownSendsWhatIsQueued: a node that stops delivers what it has taken.
func TestShutdownSendsWhatIsQueued(t *testing.T) {
	nodes := cluster(t, 2, Options{}, PeerOptions{})
	a, b := nodes[0], nodes[1]
	sent := 0
	for range 50 {
		for _, class := range []Class{Request, Bulk} {
			if a.peers.Send("n1", class, make([]byte, 10000)) {
				sent++
			}
		}
	}
	begun := time.Now()
	a.stop()
	if d := time.Since(begun); d >= lingerTimeout {
		t.Errorf("stopped after %v", d)
	}
	if got := len(b.in.from("n0")); got != sent {
		t.Errorf("%d of %d arrived", got, sent)
	}
	if _, err := a.s.StartPeers(PeerOptions{}, b.in); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
