package netquic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// member loads what a node or client of the directory would show.
func member(t testing.TB, dir, name string, role Role, notAfter time.Time) tls.Certificate {
	t.Helper()
	if err := issue(dir, name, role, notAfter); err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"),
		filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// rawPeer opens a connection on the peers' protocol that keeps to no rule of ours.
func rawPeer(t *testing.T, s *Server, protocol string, certs ...tls.Certificate) (*quic.Conn,
	error) {
	t.Helper()
	qc, err := briefPeer(t, s, protocol, certs...)
	if err == nil {
		t.Cleanup(func() { qc.CloseWithError(0, "") })
	}
	return qc, err
}

// briefPeer is rawPeer for a connection that the test does not keep.
func briefPeer(t *testing.T, s *Server, protocol string, certs ...tls.Certificate) (*quic.Conn,
	error) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol},
		Certificates: certs}
	return quic.DialAddr(ctx, s.Addr().String(), conf, &quic.Config{EnableDatagrams: true})
}

// lonely starts a node whose one peer, n1, is not there; n1's place is taken by the test.
func lonely(t *testing.T, o Options) (n *node, dir string, n1 tls.Certificate) {
	dir = authority(t)
	o.Cluster = clusterIdentity(t, dir, "n0")
	po := PeerOptions{Peers: map[string]string{"n1": "127.0.0.1:1"}}
	n = startNode(t, "127.0.0.1:0", o, po, &inbox{})
	return n, dir, member(t, dir, "n1", RoleNode, neverEnds)
}

// heap returns what is in use after everything else is gone.
func heap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestStrangersAreNoPeers knocks with every wrong certificate, many times: each is refused in the
// handshake and counted, and nothing is left of it.
func TestStrangersAreNoPeers(t *testing.T) {
	n, dir, n1 := lonely(t, Options{})
	elsewhere := authority(t)
	for _, c := range []struct {
		fault CertFault
		certs []tls.Certificate
	}{
		{CertMissing, nil},
		{CertOtherAuthority, []tls.Certificate{member(t, elsewhere, "n1", RoleNode, neverEnds)}},
		{CertOtherAuthority, []tls.Certificate{identity(t).cert}},
		{CertExpired, []tls.Certificate{
			member(t, dir, "late", RoleNode, time.Now().Add(-time.Hour))}},
		{CertWrongRole, []tls.Certificate{member(t, dir, "someone", RoleClient, neverEnds)}},
		{CertUnknownName, []tls.Certificate{member(t, dir, "n2", RoleNode, neverEnds)}},
		{CertUnknownName, []tls.Certificate{n.s.o.Cluster.cert}}, // its own
	} {
		t.Run(fmt.Sprintf("%v of %d", c.fault, len(c.certs)), func(t *testing.T) {
			before, start := n.s.Metrics(), int64(0)
			const times = 60
			for i := range times {
				if i == times/3 {
					start = heap()
				}
				qc, err := briefPeer(t, n.s, PeerProtocol, c.certs...)
				if err == nil { // TLS 1.3 lets the dialling end believe so at first
					if stream, err := qc.OpenStream(); err == nil {
						stream.Write(appendMessage(nil, kindMessage, make([]byte, 1000)))
					}
					<-qc.Context().Done()
					err = context.Cause(qc.Context())
				}
				if err := closeCause(err); !errors.Is(err, ErrCertRefused) {
					t.Fatalf("refused by %v", err)
				}
			}
			waitFor(t, n.s, func(m Metrics) bool {
				return m.CertsRefused[c.fault.String()] ==
					before.CertsRefused[c.fault.String()]+times &&
					m.HandshakesFailed == before.HandshakesFailed+times && m.Connections == 0
			})
			if grown := heap() - start; grown > 1<<20 {
				t.Errorf("%d bytes are left of %d connections", grown, times*2/3)
			}
		})
	}
	if m := n.peers.Metrics(); m.Received != 0 || m.BytesIn != 0 || m.Incoming != 0 {
		t.Errorf("%+v", m)
	}
	if _, err := rawPeer(t, n.s, "kvd-peer/9", n1); err == nil || n.s.Metrics().WrongProtocol != 1 {
		t.Errorf("another protocol: %v", err)
	}
	qc, err := rawPeer(t, n.s, PeerProtocol, n1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := qc.AcceptUniStream(t.Context()); err != nil {
		t.Errorf("the real one: %v", err)
	}
}

// TestNoPeersWithoutStart: a server that has no peers does not speak their protocol.
func TestNoPeersWithoutStart(t *testing.T) {
	dir := authority(t)
	s := serve(t, echo{true}, Options{Cluster: clusterIdentity(t, dir, "n0")})
	if _, err := rawPeer(t, s, PeerProtocol, member(t, dir, "n1", RoleNode, neverEnds)); err == nil {
		t.Error("let in")
	}
	waitFor(t, s, func(m Metrics) bool { return m.WrongProtocol == 1 && m.Connections == 0 })
}

// TestNodeWithoutPeers is not ended by another node of its authority, which it does not know.
func TestNodeWithoutPeers(t *testing.T) {
	dir := authority(t)
	n := startNode(t, "127.0.0.1:0", Options{Cluster: clusterIdentity(t, dir, "n0")},
		PeerOptions{}, &inbox{})
	qc, err := rawPeer(t, n.s, PeerProtocol, member(t, dir, "n1", RoleNode, neverEnds))
	if err == nil {
		<-qc.Context().Done()
		err = context.Cause(qc.Context())
	}
	if err := closeCause(err); !errors.Is(err, ErrCertRefused) {
		t.Errorf("refused by %v", err)
	}
	waitFor(t, n.s, func(m Metrics) bool {
		return m.CertsRefused[CertUnknownName.String()] == 1 && m.Connections == 0
	})
}

// TestStrangerPastTheHandshake is closed, should the handshake ever let one in.
func TestStrangerPastTheHandshake(t *testing.T) {
	dir := authority(t)
	s, err := Listen("127.0.0.1:0", Options{Cluster: clusterIdentity(t, dir, "n0")})
	if err != nil {
		t.Fatal(err)
	}
	po := PeerOptions{Peers: map[string]string{"n1": "127.0.0.1:1"}}
	p, err := s.StartPeers(po, &inbox{})
	if err != nil {
		t.Fatal(err)
	}
	delete(p.peers, "n1")
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), echo{true}) }()
	qc, err := rawPeer(t, s, PeerProtocol, member(t, dir, "n1", RoleNode, neverEnds))
	if err != nil {
		t.Fatal(err)
	}
	if got := closedWith(t, qc); got != ReasonMalformed {
		t.Errorf("closed for %v", got)
	}
	if err := errors.Join(s.Shutdown(t.Context()), <-served); err != nil {
		t.Error(err)
	}
}

// TestShutdownBesideAccept: a connection that is let in and not noted yet keeps Shutdown from looking
// for those it has to close. It went unseen, and Shutdown waited for its end.
func TestShutdownBesideAccept(t *testing.T) {
	n, _, n1 := lonely(t, Options{})
	n.peers.mu.Lock()
	unlock := sync.OnceFunc(n.peers.mu.Unlock)
	defer unlock()
	if _, err := rawPeer(t, n.s, PeerProtocol, n1); err != nil {
		t.Fatal(err)
	}
	waitFor(t, n.s, func(m Metrics) bool { return m.Accepted == 1 })
	eventually(t, func() any { return "free" }, func() bool {
		free := n.s.mu.TryLock() // nobody but accept holds it now
		if free {
			n.s.mu.Unlock()
		}
		return !free
	})
	down := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	go func() { down <- n.s.Shutdown(ctx) }()
	unlock()
	<-down
}

// TestDialledNodeIsAnother connects to servers that are not the node meant.
func TestDialledNodeIsAnother(t *testing.T) {
	dir, elsewhere := authority(t), authority(t)
	for _, c := range []struct {
		fault CertFault
		cert  tls.Certificate
	}{
		{CertOtherAuthority, member(t, elsewhere, "n1", RoleNode, neverEnds)},
		{CertWrongName, member(t, dir, "n7", RoleNode, neverEnds)},
		{CertWrongRole, member(t, dir, "x", RoleClient, neverEnds)},
		{CertExpired, member(t, dir, "n1", RoleNode, time.Now().Add(-time.Hour))},
	} {
		l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{
			Certificates: []tls.Certificate{c.cert}, NextProtos: []string{PeerProtocol}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Cluster: clusterIdentity(t, dir, "n0")}
		n := startNode(t, "127.0.0.1:0", o, PeerOptions{
			Peers: map[string]string{"n1": l.Addr().String()}}, &inbox{})
		var fault *CertError
		eventually(t, func() any { return n.peers.Status() }, func() bool {
			return errors.As(n.peers.Status()[0].Err, &fault)
		})
		if fault.Fault != c.fault || n.s.Metrics().CertsRefused[c.fault.String()] == 0 {
			t.Errorf("%v, want %v", fault, c.fault)
		}
		if h := n.in.history(); h != "" || n.peers.Send("n1", Request, nil) {
			t.Errorf("it counts as connected: %s", h)
		}
		n.stop()
		l.Close()
	}
}

// TestHalfAWelcome: a peer that does not complete it does not keep this node from stopping.
func TestHalfAWelcome(t *testing.T) {
	dir := authority(t)
	l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{NextProtos: []string{PeerProtocol},
		Certificates: []tls.Certificate{member(t, dir, "n1", RoleNode, neverEnds)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := Options{Cluster: clusterIdentity(t, dir, "n0")}
	po := PeerOptions{Peers: map[string]string{"n1": l.Addr().String()}}
	n := startNode(t, "127.0.0.1:0", o, po, &inbox{})
	qc, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := qc.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	stream.Write(appendMessage(nil, kindWelcome, nil)[:2])
	eventually(t, func() any { return "not read" }, func() bool {
		buf := make([]byte, 1<<20)
		return strings.Contains(string(buf[:runtime.Stack(buf, true)]), "(*frameReader).fill")
	})
	begun := time.Now()
	n.stop()
	if d := time.Since(begun); d > peerWelcome/2 {
		t.Errorf("stopped after %v", d)
	}
}

// TestBadPeersAreClosed sends bytes that are no messages, as the right node.
func TestBadPeersAreClosed(t *testing.T) {
	n, _, n1 := lonely(t, Options{FrameTimeout: 100 * time.Millisecond})
	good := appendMessage(nil, kindMessage, []byte("hello"))
	start := heap()
	for name, c := range map[string]struct {
		send     []byte
		fin      bool
		datagram bool
		want     Reason
	}{
		"too long":          {unhex(t, "ffffffff03"), false, false, ReasonFrameTooLong},
		"a bit too long":    {unhex(t, "fdff8f0003"), false, false, ReasonFrameTooLong},
		"kind":              {unhex(t, "0600000001"), false, false, ReasonUnknownKind},
		"welcome":           {unhex(t, "0100000004"), false, false, ReasonUnknownKind},
		"too short":         {unhex(t, "0000000003"), false, false, ReasonMalformed},
		"cut off":           {good[:7], true, false, ReasonTruncated},
		"half":              {good[:7], false, false, ReasonSlowFrame},
		"half of much":      {unhex(t, "fcff8f0003"), false, false, ReasonSlowFrame},
		"behind a good one": {append(good[:10:10], 0xff, 0xff, 0xff, 0xff), false, false, ReasonFrameTooLong},
		"half a datagram":   {good[:7], false, true, ReasonMalformed},
		"two in a datagram": {append(good[:10:10], good...), false, true, ReasonMalformed},
		"empty datagram":    {nil, false, true, ReasonMalformed},
		"datagram's kind":   {unhex(t, "0600000001"), false, true, ReasonUnknownKind},
	} {
		t.Run(name, func(t *testing.T) {
			before := n.peers.Metrics().Closed[c.want.String()]
			qc, err := rawPeer(t, n.s, PeerProtocol, n1)
			if err != nil {
				t.Fatal(err)
			}
			if c.datagram {
				err = qc.SendDatagram(c.send)
			} else {
				stream, openErr := qc.OpenStream()
				if openErr != nil {
					t.Fatal(openErr)
				}
				_, err = stream.Write(c.send)
				if c.fin {
					stream.Close()
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := closedWith(t, qc); got != c.want {
				t.Errorf("closed for %q, want %q", got, c.want)
			}
			waitPeers(t, n, func(m PeerMetrics) bool {
				return m.Closed[c.want.String()] == before+1 && m.Incoming == 0
			})
		})
	}
	if grown := heap() - start; grown > 1<<20 {
		t.Errorf("%d bytes are left", grown)
	}
}

// TestSlowPeer sends a message byte by byte.
func TestSlowPeer(t *testing.T) {
	n, _, n1 := lonely(t, Options{FrameTimeout: 150 * time.Millisecond})
	qc, err := rawPeer(t, n.s, PeerProtocol, n1)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := qc.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range appendMessage(nil, kindMessage, make([]byte, 100)) {
		if _, err := stream.Write([]byte{b}); err != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := closedWith(t, qc); got != ReasonSlowFrame {
		t.Errorf("closed for %v", got)
	}
}

// TestThirdLane and a second connection of the same peer.
func TestPeerOpensTooMuch(t *testing.T) {
	n, _, n1 := lonely(t, Options{})
	qc, err := rawPeer(t, n.s, PeerProtocol, n1)
	if err != nil {
		t.Fatal(err)
	}
	for range peerLanes + 1 {
		stream, err := qc.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(appendMessage(nil, kindMessage, nil))
	}
	if got := closedWith(t, qc); got != ReasonMalformed {
		t.Errorf("closed for %v", got)
	}
	old, err := rawPeer(t, n.s, PeerProtocol, n1)
	if err != nil {
		t.Fatal(err)
	}
	waitPeers(t, n, func(m PeerMetrics) bool { return m.Incoming == 1 })
	if _, err = rawPeer(t, n.s, PeerProtocol, n1); err != nil {
		t.Fatal(err)
	}
	if got := closedWith(t, old); got != ReasonReplaced {
		t.Errorf("closed for %v", got)
	}
}

// TestPeerThatHangs takes nothing: Send never waits, and what is queued keeps to its limit.
func TestPeerThatHangs(t *testing.T) {
	const budget = 1 << 20
	nodes := cluster(t, 2, Options{}, PeerOptions{RequestBytes: budget, BulkBytes: budget})
	release := make(chan struct{})
	nodes[1].in.handle(func(string, []byte) { <-release })
	defer close(release)
	p := nodes[0].peers
	start := heap()
	msg := make([]byte, 1000)
	var slowest time.Duration
	dropped := 0
	for i := range 60000 { // 60 MB
		begun := time.Now()
		if !p.Send("n1", Class(i%2), msg) {
			dropped++
		}
		slowest = max(slowest, time.Since(begun))
		if i%1000 == 0 {
			time.Sleep(time.Millisecond)
			if queued := p.Status()[0].QueuedBytes; queued > 2*budget {
				t.Fatalf("%d bytes queued", queued)
			}
		}
	}
	if dropped < 30000 {
		t.Errorf("only %d were dropped", dropped)
	}
	if slowest > 500*time.Millisecond {
		t.Errorf("Send took %v", slowest)
	}
	// Four buffers of 1.25 budgets, and the receiver's windows: 6 MiB a lane and as much again in
	// QUIC's own pieces.
	if grown := heap() - start; grown > 30<<20 {
		t.Errorf("%d bytes in use", grown)
	}
}

// TestPeerThatHangsIsGivenUp: what it does not take in time ends the connection.
func TestPeerThatHangsIsGivenUp(t *testing.T) {
	nodes := cluster(t, 2, Options{FrameTimeout: 300 * time.Millisecond}, PeerOptions{})
	release := make(chan struct{})
	nodes[1].in.handle(func(string, []byte) { <-release })
	defer close(release)
	eventually(t, func() any { return nodes[0].peers.Metrics() }, func() bool {
		for nodes[0].peers.Send("n1", Request, make([]byte, 100000)) {
		}
		return strings.HasPrefix(nodes[0].in.history(), "up n1, down n1")
	})
	waitPeers(t, nodes[1], func(m PeerMetrics) bool { return m.Closed["by client"] >= 1 || m.Incoming > 0 })
	if m := nodes[0].peers.Metrics(); m.Lost == 0 {
		t.Errorf("%+v", m)
	}
}

// TestBulkGivesWay: when both lanes have more to send than there is room for, requests go first.
func TestBulkGivesWay(t *testing.T) {
	nodes := cluster(t, 2, Options{}, PeerOptions{})
	var got [2]atomic.Int64
	nodes[1].in.handle(func(_ string, msg []byte) { got[msg[0]].Add(1) })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for class := range 2 {
		wg.Go(func() {
			msg := make([]byte, 16<<10)
			msg[0] = byte(class)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !nodes[0].peers.Send("n1", Class(class), msg) {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	// On a busy machine a sender that gets no processor leaves its lane empty, and the other one has
	// all: so the best of some windows counts.
	for range 12 {
		requests, bulk := got[0].Load(), got[1].Load()
		time.Sleep(500 * time.Millisecond)
		requests, bulk = got[0].Load()-requests, got[1].Load()-bulk
		t.Logf("%d requests and %d pieces of bulk arrived", requests, bulk)
		if requests >= 100 && 2*requests >= 3*bulk {
			return
		}
	}
	t.Error("bulk does not give way")
}

// TestClientsCannotKeepPeersOut: the last connections are for peers.
func TestClientsCannotKeepPeersOut(t *testing.T) {
	n, _, n1 := lonely(t, Options{MaxConnections: 3})
	for range 3 {
		if _, err := rawDial(t, n.s, Protocol); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rawDial(t, n.s, Protocol); err == nil {
		t.Error("a fourth client")
	}
	qc, err := rawPeer(t, n.s, PeerProtocol, n1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := qc.AcceptUniStream(t.Context()); err != nil {
		t.Error(err)
	}
	if m := n.s.Metrics(); m.Refused != 1 {
		t.Errorf("%+v", m)
	}
}

func TestBadPeerOptions(t *testing.T) {
	dir := authority(t)
	for name, peers := range map[string]map[string]string{
		"itself":    {"n0": "127.0.0.1:1"},
		"no port":   {"n1": "127.0.0.1"},
		"bad name":  {"n/1": "127.0.0.1:1"},
		"authority": {"CA": "127.0.0.1:1"},
	} {
		s := serve(t, echo{true}, Options{Cluster: clusterIdentity(t, dir, "n0")})
		if _, err := s.StartPeers(PeerOptions{Peers: peers}, &inbox{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s := serve(t, echo{true}, Options{})
	if _, err := s.StartPeers(PeerOptions{}, &inbox{}); err == nil {
		t.Error("peers without a certificate")
	}
	if _, err := Listen("127.0.0.1:0", Options{Identity: identity(t), RequireClientCert: true}); err == nil {
		t.Error("client certificates of no authority")
	}
	s = serve(t, echo{true}, Options{Cluster: clusterIdentity(t, dir, "n0")})
	_, first := s.StartPeers(PeerOptions{}, &inbox{})
	if _, err := s.StartPeers(PeerOptions{}, &inbox{}); first != nil || err == nil {
		t.Errorf("started twice: %v, %v", first, err)
	}
	os.Remove(filepath.Join(dir, authorityKeyFile))
}
