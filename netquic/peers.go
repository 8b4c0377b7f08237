package netquic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// Class of a message says how it travels.
type Class uint8

const (
	Request    Class = iota // lane 0
	Bulk                    // lane 1: QUIC sends it when lane 0 has nothing to send
	Gossip                  // a datagram, which may be lost; lane 0 when it does not fit one
	classCount = 3
)

var classNames = [classCount]string{"request", "bulk", "gossip"}

func (c Class) String() string { return classNames[c] }

// PeerHandler takes what comes from peers. All methods may be called by many goroutines at once,
// except that PeerUp and PeerDown of one peer alternate.
type PeerHandler interface {
	// HandlePeer takes messages that have come together, in their order, at least one. It runs on
	// the goroutine that reads their lane: requests of one connection come one after the other, and
	// so does bulk; a peer that connects anew has two connections for a moment. What waits behind
	// them waits for its return; it must not wait for other messages. msgs and the messages are
	// valid until return.
	HandlePeer(from string, msgs [][]byte)
	// PeerUp says that messages to a peer are sent from now on.
	PeerUp(name string)
	// PeerDown says that they are not any more, and why. What was queued or on its way may be lost.
	PeerDown(name string, err error)
	// PeerRefused says that this node has refused the certificate of another one or, byPeer, that a
	// peer has refused this node's: what a peer has to say against it, only the peer knows. It is
	// told once for each name and reason until messages to that peer are sent. The name is empty
	// when the certificate does not prove one.
	PeerRefused(name string, byPeer bool, err error)
}

// PeerOptions of Server.StartPeers. A zero field takes its default.
type PeerOptions struct {
	// Peers are the addresses (host:port) of the other nodes by their names, which are those of
	// their certificates. Nobody else is let in.
	Peers map[string]string
	// RequestBytes and BulkBytes bound what is queued for one peer and not yet taken by QUIC, the
	// frames' heads included; one message is queued whatever its size. Default 8 MiB each.
	RequestBytes, BulkBytes int
	// IdleTimeout is how long nothing may come from a peer before it is given up. When there is
	// nothing to send, a third of it may pass before the peer is asked for a sign. Default 5 s.
	IdleTimeout time.Duration
}

const (
	peerLanes          = 2
	connectionsPerPeer = 4 // one each way, their successors, and attempts under way
	gossipQueue        = 64
	gossipBytes        = 1200 // the largest message that is tried as a datagram
)

// Peers carries messages to and from the other nodes of a cluster, one way: nothing is answered or
// repeated, and a message may be lost when its connection ends. It connects to each of them by
// itself, from the beginning and again whenever a connection breaks. All methods may be called by
// any number of goroutines.
type Peers struct {
	// Fixed after StartPeers.
	s      *Server
	o      PeerOptions
	h      PeerHandler
	names  []string // sorted
	peers  map[string]*peer
	ctx    context.Context // ends with close
	cancel context.CancelFunc

	// Own synchronisation.
	counters peerCounters
	refusals refusals

	mu       sync.Mutex           // taken after the server's
	incoming map[string]*peerConn // the newest connection of each peer
}

// StartPeers begins to exchange messages with the other nodes of the server's cluster, until
// Shutdown. Options.Cluster must be set. What comes from peers is taken once Serve runs.
func (s *Server) StartPeers(o PeerOptions, h PeerHandler) (*Peers, error) {
	if s.o.Cluster == nil {
		return nil, errors.New("netquic: StartPeers without Options.Cluster")
	}
	orDefault(&o.RequestBytes, 8<<20)
	orDefault(&o.BulkBytes, 8<<20)
	orDefault(&o.IdleTimeout, 5*time.Second)
	p := &Peers{s: s, o: o, h: h, peers: map[string]*peer{}, incoming: map[string]*peerConn{}}
	for name, addr := range o.Peers {
		if err := checkName(name); err != nil {
			return nil, err
		}
		if name == s.o.Cluster.name {
			return nil, fmt.Errorf("netquic: node %s among its own peers", name)
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("netquic: peer %s: %w", name, err)
		}
		p.names = append(p.names, name)
		p.peers[name] = newPeer(p, name, addr)
	}
	slices.Sort(p.names)
	p.ctx, p.cancel = context.WithCancel(context.Background())

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.draining.Load() {
		p.cancel()
		return nil, ErrClosed
	}
	if !s.peers.CompareAndSwap(nil, p) {
		p.cancel()
		return nil, errors.New("netquic: StartPeers called twice")
	}
	for _, pr := range p.peers {
		s.wg.Add(1)
		go pr.run()
	}
	return p, nil
}

// Send queues a copy of msg for a peer and never waits. It reports false when the message was
// dropped: there is no connection at this moment, the queue of its class is full, or the message is
// larger than a frame. With true it is sent, and arrives unless the connection ends before; gossip
// may be lost at any time.
func (p *Peers) Send(to string, class Class, msg []byte) bool {
	sent := false
	if pr := p.peers[to]; pr != nil && messageBytes+len(msg) <= p.s.o.MaxFrameBytes {
		if l := pr.current.Load(); l != nil {
			sent = l.send(class, msg)
		}
	}
	if sent {
		p.counters.sent[class].Add(1)
	} else {
		p.counters.dropped[class].Add(1)
	}
	return sent
}

// accept takes a connection of a peer, whose certificate the handshake has checked.
func (p *Peers) accept(qc *quic.Conn) {
	_, name, _ := memberOf(qc.ConnectionState().TLS.PeerCertificates[0])
	c := &peerConn{p: p, qc: qc, name: name}
	pr := p.peers[name]
	if pr == nil { // the handshake lets nobody else in, but a node must not depend on that
		c.close(ReasonMalformed, "not a peer")
		return
	}
	p.s.mu.Lock()
	if p.ctx.Err() != nil {
		p.s.mu.Unlock()
		c.close(ReasonShutdown, "")
		return
	}
	p.s.wg.Add(1)
	p.mu.Lock() // before close can end ctx: it then looks for whom to close
	old := p.incoming[name]
	p.incoming[name] = c
	p.mu.Unlock()
	p.s.mu.Unlock()
	if old != nil {
		old.close(ReasonReplaced, "")
	}
	if l := pr.current.Load(); l != nil {
		l.probe() // it may be another process than the one this link leads to
	}
	pr.wake() // it is there: no need to wait with connecting to it
	go c.run()
}

func (p *Peers) forget(c *peerConn) {
	p.mu.Lock()
	if p.incoming[c.name] == c {
		delete(p.incoming, c.name)
	}
	p.mu.Unlock()
}

// close ends all connections, those to peers after what is queued on them has been sent, for which
// there is until ctx ends and lingerTimeout at most. Shutdown waits for their goroutines.
func (p *Peers) close(ctx context.Context) {
	linger, cancel := context.WithTimeout(ctx, lingerTimeout)
	defer cancel()
	var links []*peerLink
	for _, pr := range p.peers {
		if l := pr.current.Load(); l != nil {
			l.endLanes()
			links = append(links, l)
		}
	}
	for _, l := range links {
		select {
		case <-l.qc.Context().Done():
		case <-linger.Done():
		}
	}
	p.s.mu.Lock() // accept adds no more to wg
	p.cancel()
	p.s.mu.Unlock()
	p.mu.Lock()
	for _, c := range p.incoming {
		c.close(ReasonShutdown, "")
	}
	p.mu.Unlock()
}
