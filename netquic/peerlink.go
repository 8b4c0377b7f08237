package netquic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	firstPeerBackoff = 50 * time.Millisecond
	lastPeerBackoff  = 2 * time.Second
	peerHandshake    = 2 * time.Second // without a packet
	peerWelcome      = 5 * time.Second // from the handshake on
)

// peer is the way to one other node: a connection, or the attempts to get one.
type peer struct {
	// Fixed.
	p          *Peers
	name, addr string

	// Own synchronisation.
	current atomic.Pointer[peerLink]
	woken   chan struct{} // cuts a pause between attempts short

	mu    sync.Mutex
	since time.Time // of the present state
	err   error     // of the last attempt or connection
}

func newPeer(p *Peers, name, addr string) *peer {
	return &peer{p: p, name: name, addr: addr, woken: make(chan struct{}, 1), since: time.Now()}
}

func (pr *peer) wake() {
	select {
	case pr.woken <- struct{}{}:
	default:
	}
}

// run connects again and again until Peers is closed. A connection that soon ends is no better than
// an attempt that failed: two nodes with one name, say, which replace each other.
func (pr *peer) run() {
	defer pr.p.s.wg.Done()
	backoff := firstPeerBackoff
	for {
		pr.p.counters.dials.Add(1)
		l, err := pr.dial()
		if err == nil {
			begun := time.Now()
			err = pr.use(l)
			if time.Since(begun) > lastPeerBackoff {
				backoff = firstPeerBackoff
			}
		} else {
			pr.p.counters.dialFailures.Add(1)
			pr.p.dialFailed(pr.name, err)
		}
		if pr.p.ctx.Err() != nil {
			return
		}
		pr.note(err)
		pause := time.NewTimer(backoff/2 + rand.N(backoff))
		select {
		case <-pause.C:
		case <-pr.woken:
		case <-pr.p.ctx.Done():
		}
		pause.Stop()
		if pr.p.ctx.Err() != nil {
			return
		}
		backoff = min(2*backoff, lastPeerBackoff)
	}
}

func (pr *peer) note(err error) {
	pr.mu.Lock()
	pr.since, pr.err = time.Now(), err
	pr.mu.Unlock()
}

// use sends on a connection until it ends, and returns why it did.
func (pr *peer) use(l *peerLink) error {
	pr.note(nil)
	pr.p.refusals.connected(pr.name)
	select {
	case <-pr.woken: // by a connection that came before this one
	default:
	}
	pr.current.Store(l)
	pr.p.h.PeerUp(pr.name)
	stop := context.AfterFunc(pr.p.ctx, func() { l.close(ReasonShutdown, "") })
	err := l.run()
	stop()
	pr.current.Store(nil)
	pr.p.h.PeerDown(pr.name, err)
	return err
}

// dial makes one attempt. The handshake alone does not tell whether the peer lets this node in: in
// TLS 1.3 the one who dials has finished before the other end has seen its certificate. The welcome
// does.
func (pr *peer) dial() (*peerLink, error) {
	ctx, cancel := context.WithCancelCause(pr.p.ctx)
	defer cancel(nil)
	addr, err := resolve(ctx, pr.addr)
	if err != nil {
		return nil, pr.dialError(err)
	}
	s := pr.p.s
	if s.o.socket == nil {
		stop := probe(addr, func() { cancel(ErrRefused) })
		defer stop()
	}
	conf := s.o.quicConfig()
	conf.MaxIdleTimeout = pr.p.o.IdleTimeout
	conf.KeepAlivePeriod = pr.p.o.IdleTimeout / 3
	conf.HandshakeIdleTimeout = peerHandshake
	conf.EnableDatagrams = true
	conf.MaxIncomingUniStreams = 1 // the welcome
	qc, err := s.transport.Dial(ctx, addr, pr.tlsConfig(), conf)
	if err != nil {
		return nil, pr.dialError(err)
	}
	l, err := newPeerLink(pr, qc)
	if err == nil {
		err = readWelcome(ctx, qc)
	}
	if err != nil {
		qc.CloseWithError(quic.ApplicationErrorCode(ReasonDone), "")
		return nil, pr.dialError(err)
	}
	return l, nil
}

func (pr *peer) tlsConfig() *tls.Config {
	conf := pr.p.s.o.Identity.baseConfig(PeerProtocol)
	conf.ServerName = "kvd"
	conf.InsecureSkipVerify = true // no host names: the next lines decide
	conf.VerifyConnection = pr.p.s.counted(func(cs tls.ConnectionState) error {
		return pr.p.s.o.Cluster.authority.verifyNodeOf(cs, []string{pr.name}, CertWrongName)
	})
	return conf
}

func (pr *peer) dialError(err error) error {
	if pr.p.ctx.Err() != nil {
		return ErrClosed
	}
	var te *quic.TransportError
	if errors.As(err, &te) && te.ErrorCode == alertNoProtocol {
		err = errors.New("it does not speak " + PeerProtocol)
	}
	return fmt.Errorf("netquic: connect to peer %s at %s: %w", pr.name, pr.addr, closeCause(err))
}

// readWelcome waits for the peer's word that it has let this node in.
func readWelcome(ctx context.Context, qc *quic.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, peerWelcome)
	defer cancel()
	stream, err := qc.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { stream.SetReadDeadline(time.Now()) })()
	r := newFrameReader(stream, dialerSide, messageBytes)
	for {
		if _, err := r.fill(); err != nil {
			return err
		}
		if _, ok, err := r.next(); ok || err != nil {
			return err
		}
	}
}

// peerLink is one established connection to a peer.
type peerLink struct {
	pr     *peer
	qc     *quic.Conn
	lanes  [peerLanes]*groupWriter
	budget [peerLanes]int
	gossip chan []byte // nil: the peer takes no datagrams
}

func newPeerLink(pr *peer, qc *quic.Conn) (*peerLink, error) {
	l := &peerLink{pr: pr, qc: qc, budget: [...]int{pr.p.o.RequestBytes, pr.p.o.BulkBytes}}
	for i := range l.lanes {
		stream, err := qc.OpenStream()
		if err != nil {
			return nil, err
		}
		if Class(i) == Bulk {
			stream.SetPriority(bulkUrgency, true)
		}
		l.lanes[i] = newGroupWriter(&countedStream{stream, &pr.p.counters.bytesOut}, nil)
		l.lanes[i].limit = pr.p.s.o.FrameTimeout
		l.lanes[i].stall = stoppedTimer(func() { l.close(ReasonSlowReader, "") })
	}
	if qc.ConnectionState().SupportsDatagrams.Remote {
		l.gossip = make(chan []byte, gossipQueue)
	}
	return l, nil
}

// probeBytes, with the heads of frame and packet, exceed the 42 bytes of a stateless reset.
const probeBytes = 32

// bulkUrgency of RFC 9218: larger is later; other streams have 3.
const bulkUrgency = 5

// countedStream counts the bytes that QUIC has taken.
type countedStream struct {
	*quic.Stream
	bytes *atomic.Uint64
}

func (c *countedStream) Write(b []byte) (int, error) {
	n, err := c.Stream.Write(b)
	c.bytes.Add(uint64(n))
	return n, err
}

func (l *peerLink) close(reason Reason, detail string) {
	if detail == "" {
		detail = reason.String()
	}
	l.qc.CloseWithError(quic.ApplicationErrorCode(reason), detail)
}

// send queues a message, or tells that there is no room.
func (l *peerLink) send(class Class, msg []byte) bool {
	switch {
	case class == Bulk:
		return l.lanes[1].tryMessage(kindMessage, msg, l.budget[1])
	case class == Request || l.gossip == nil || messageBytes+len(msg) > gossipBytes:
		return l.lanes[0].tryMessage(kindMessage, msg, l.budget[0])
	}
	select {
	case l.gossip <- appendMessage(nil, kindMessage, msg):
		return true
	default:
		return false
	}
}

// probe lets a peer that does not know this connection disown it: one that was killed and started
// again. The pings of QUIC do not: it answers no packet as small as these, 29 bytes, with a reset,
// so that an idle connection to the process that was lived on for the idle timeout of 5 s, and the
// first message on it was lost. Behind other messages there is no need for it.
func (l *peerLink) probe() {
	const budget = 0 // goes into an empty lane only
	l.lanes[Request].tryMessage(kindProbe, make([]byte, probeBytes), budget)
}

// run sends until the connection ends, and returns why.
func (l *peerLink) run() error {
	var wg sync.WaitGroup
	for _, w := range l.lanes {
		wg.Go(func() {
			if err := w.run(); err != nil {
				w.stall.Stop()
				l.close(ReasonDone, "") // unless it was the connection that ended
			}
		})
	}
	wg.Go(l.sendGossip)
	<-l.qc.Context().Done()
	for _, w := range l.lanes {
		w.mu.Lock()
		l.pr.p.counters.lost.Add(uint64(w.sends))
		w.dieLocked()
		w.mu.Unlock()
	}
	wg.Wait()
	return closeCause(context.Cause(l.qc.Context()))
}

// sendGossip sends datagrams from a goroutine of its own, because QUIC makes the sender wait when
// many are queued. What turns out not to fit goes to lane 0.
func (l *peerLink) sendGossip() {
	for {
		select {
		case <-l.qc.Context().Done():
			return
		case b := <-l.gossip:
			err := l.qc.SendDatagram(b)
			var large *quic.DatagramTooLargeError
			switch {
			case err == nil:
				l.pr.p.counters.datagramsOut.Add(1)
				l.pr.p.counters.bytesOut.Add(uint64(len(b)))
			case errors.As(err, &large):
				l.lanes[0].tryMessage(kindMessage, b[messageBytes:], l.budget[0])
			}
		}
	}
}

// endLanes ends both lanes once what is queued on them is written. The peer, having read it, closes
// the connection.
func (l *peerLink) endLanes() {
	for _, w := range l.lanes {
		w.close()
	}
}
