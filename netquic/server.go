package netquic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Handler answers the calls of a Server. Both methods are called by many goroutines at once. A
// Handler that is a Deferrer or a Starter as well has other ways to answer.
type Handler interface {
	// TryCall answers a request that needs no waiting, on the goroutine that reads the lane: it
	// appends the answer to dst and returns it with ok. With ok false the request goes to Call.
	// It must not block: all calls behind it on the lane wait. req and dst are valid until return.
	TryCall(req, dst []byte) (resp []byte, ok bool)
	// Call answers one request; it may block until ctx ends, which is when the caller's deadline
	// passes or its connection breaks. It appends the answer to dst and returns it. req, dst and
	// ctx are valid until return. A returned error reaches the caller as a *RemoteError: as it is
	// when it is one, otherwise with code 0 and the error's text.
	Call(ctx context.Context, req, dst []byte) ([]byte, error)
}

const (
	// handshakesUnchecked is how many handshakes may be under way before new clients must first
	// prove their address by a round trip (Retry), which costs the server no memory.
	handshakesUnchecked = 64
	// lingerTimeout is how long a drained connection may take to deliver its last answers.
	lingerTimeout = 2 * time.Second
)

// Server answers calls on one UDP port. All methods may be called from any goroutine; Serve once.
type Server struct {
	// Fixed after Listen.
	o         Options
	transport *quic.Transport
	listener  *quic.Listener
	handler   Handler  // fixed by Serve
	deferrer  Deferrer // the same, or nil when it is none
	starter   Starter  // likewise

	peers atomic.Pointer[Peers] // set once, by StartPeers

	// Own synchronisation.
	counters   counters
	workers    workers
	wg         sync.WaitGroup // connections, lanes with their settlers, started calls
	inFlight   atomic.Int64   // calls and read batches under way on the whole server
	draining   atomic.Bool
	idle       chan struct{} // gets a token when inFlight or connections reach zero, draining
	stopped    chan struct{} // closed at the end of Shutdown
	shutdownMu sync.Mutex    // one Shutdown at a time

	mu      sync.Mutex
	serving bool
	closed  bool
	conns   map[*serverConn]struct{}
}

// Listen opens the UDP port of a server. Connections are taken once Serve runs.
func Listen(addr string, o Options) (*Server, error) {
	if o.Cluster != nil {
		o.Identity = &o.Cluster.Identity
	}
	if o.Identity == nil {
		return nil, errors.New("netquic: Options.Identity is missing")
	}
	if o.RequireClientCert && o.Cluster == nil {
		return nil, errors.New("netquic: Options.RequireClientCert without Options.Cluster")
	}
	o = o.withDefaults(30 * time.Second)
	socket, err := o.listenSocket(addr)
	if err != nil {
		return nil, fmt.Errorf("netquic: listen %s: %w", addr, err)
	}
	s := &Server{
		o:       o,
		idle:    make(chan struct{}, 1),
		stopped: make(chan struct{}),
		conns:   make(map[*serverConn]struct{}),
	}
	s.workers.jobs = make(chan *job)
	s.transport = &quic.Transport{
		Conn:               socket,
		ConnectionIDLength: connectionIDBytes,
		StatelessResetKey:  &o.Identity.reset,
		TokenGeneratorKey:  &o.Identity.token,
		VerifySourceAddress: func(net.Addr) bool {
			return s.counters.handshakes.Load() >= handshakesUnchecked
		},
		ConnContext: s.admit,
	}
	conf := o.quicConfig()
	conf.MaxIncomingStreams = maxLanes
	conf.RequireStreamCreditRelease = true // never released: no more lanes by ending old ones
	conf.EnableDatagrams = o.Cluster != nil
	s.listener, err = s.transport.Listen(s.tlsConfig(), conf)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netquic: listen %s: %w", addr, err), socket.Close())
	}
	return s, nil
}

// Addr returns the address the server listens on.
func (s *Server) Addr() net.Addr { return s.transport.Conn.LocalAddr() }

// admit is asked before a connection costs anything; an error refuses it.
func (s *Server) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if s.draining.Load() {
		return nil, errDraining
	}
	c := &s.counters
	if c.connections.Add(1) > s.maxConnections() {
		c.connections.Add(-1)
		c.refused.Add(1)
		return nil, errors.New("netquic: too many connections")
	}
	c.handshakes.Add(1)
	a := &admission{server: s}
	context.AfterFunc(ctx, a.closed)
	return context.WithValue(ctx, admissionKey{}, a), nil
}

// admission counts one connection from its first packet to its end.
type admission struct {
	server   *Server
	complete atomic.Bool // the handshake
}

type admissionKey struct{}

func (a *admission) accepted() {
	if a.complete.CompareAndSwap(false, true) {
		a.server.counters.handshakes.Add(-1)
		a.server.counters.accepted.Add(1)
	}
}

func (a *admission) closed() {
	if a.complete.CompareAndSwap(false, true) {
		a.server.counters.handshakes.Add(-1)
		a.server.counters.handshakesFailed.Add(1)
	}
	if a.server.counters.connections.Add(-1) == 0 {
		a.server.tellDrain()
	}
}

// Serve takes connections and answers their calls with h, until Shutdown is called or ctx ends.
// The end of ctx closes everything at once; call Shutdown first to let calls finish. Serve returns
// when all goroutines of the server have ended, with nil after either of these.
func (s *Server) Serve(ctx context.Context, h Handler) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	if s.serving {
		s.mu.Unlock()
		return errors.New("netquic: Serve called twice")
	}
	s.serving = true
	s.handler = h
	s.deferrer, _ = h.(Deferrer)
	s.starter, _ = h.(Starter)
	s.wg.Add(1)
	s.mu.Unlock()

	stop := context.AfterFunc(ctx, func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(now)
	})
	defer stop()
	err := s.accept()
	s.wg.Done()
	<-s.stopped
	return err
}

func (s *Server) accept() error {
	for {
		qc, err := s.listener.Accept(context.Background())
		if errors.Is(err, quic.ErrServerClosed) || errors.Is(err, quic.ErrTransportClosed) {
			return nil
		}
		if err != nil {
			go s.Shutdown(context.Background())
			return fmt.Errorf("netquic: %w", err)
		}
		if a, ok := qc.Context().Value(admissionKey{}).(*admission); ok {
			a.accepted()
		}
		if qc.ConnectionState().TLS.NegotiatedProtocol == PeerProtocol {
			s.peers.Load().accept(qc)
			continue
		}
		c := newServerConn(s, qc)
		s.mu.Lock()
		if s.draining.Load() { // before mu was taken: else drain sees the connection
			s.mu.Unlock()
			c.close(ReasonUnstarted, "")
			s.counters.closed[ReasonUnstarted].Add(1)
			continue
		}
		s.conns[c] = struct{}{}
		s.wg.Add(1)
		s.mu.Unlock()
		go c.run()
	}
}

// enter and leave bracket work that Shutdown waits for. Whoever enters and then sees draining
// unset is waited for, because Shutdown sets draining before it looks at inFlight.
func (s *Server) enter() { s.inFlight.Add(1) }

func (s *Server) leave() {
	if s.inFlight.Add(-1) == 0 {
		s.tellDrain()
	}
}

// tellDrain wakes Shutdown, if it waits, to look again at what it waits for.
func (s *Server) tellDrain() {
	if s.draining.Load() {
		select {
		case s.idle <- struct{}{}:
		default:
		}
	}
}

// Shutdown stops the server: from now on calls and connections are refused, which clients retry
// elsewhere or later; calls that run are finished and their answers delivered; then messages to
// peers that are queued are sent, connections are closed with ReasonShutdown, and the port is
// released. When ctx ends first the rest is cut
// off, and its error returned. Further calls wait for the first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.shutdownMu.Lock()
	defer s.shutdownMu.Unlock()
	select {
	case <-s.stopped:
		return nil
	default:
	}
	err := s.drain(ctx)

	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.listener.Close()
	for _, c := range s.connections() {
		c.close(ReasonShutdown, "")
	}
	if p := s.peers.Load(); p != nil {
		p.close(ctx)
	}
	s.wg.Wait()
	s.workers.stop()
	err = errors.Join(err, s.transport.Close(), s.transport.Conn.Close())
	s.uncounted()
	close(s.stopped)
	return err
}

// drain waits until nothing is in flight, ends all lanes, and waits until their clients, having
// read everything, have closed the connections. Connections on which nothing was ever sent have no
// lanes to end, but a request may be on its way: the reason they are closed with tells the client
// that it was not executed.
func (s *Server) drain(ctx context.Context) error {
	for s.inFlight.Load() > 0 {
		select {
		case <-s.idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	conns := s.connections()
	for _, c := range conns {
		if !c.endLanes() {
			c.close(ReasonUnstarted, "")
		}
	}
	linger, cancel := context.WithTimeout(ctx, lingerTimeout)
	defer cancel()
	for _, c := range conns {
		select {
		case <-c.ctx.Done():
		case <-linger.Done():
			return ctx.Err() // nil when only the linger time passed
		}
	}
	return nil
}

// uncounted waits until the metrics show no connection: each is uncounted by a goroutine of its
// own once it has ended, see admit. The wait has a bound because quic-go forgets to end a
// connection whose identifier is taken already, which chance does not bring about.
func (s *Server) uncounted() {
	linger := time.NewTimer(lingerTimeout)
	defer linger.Stop()
	for s.counters.connections.Load() > 0 {
		select {
		case <-s.idle:
		case <-linger.C:
			return
		}
	}
}

func (s *Server) connections() []*serverConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*serverConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

func (s *Server) forget(c *serverConn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}
