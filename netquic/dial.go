package netquic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	firstBackoff = 10 * time.Millisecond
	lastBackoff  = time.Second
)

// link is one of a client's connections through time: a session, or the attempts to get one.
type link struct {
	c       *Client
	current atomic.Pointer[session]

	mu       sync.Mutex
	since    time.Time  // of the current session
	replaced []*session // perhaps not ended: calls are under way on one that drains
	dialing  bool
	waiters  int           // callers that need a session
	changed  chan struct{} // closed and replaced when an attempt ended
	ended    int           // attempts
	err      error         // of the last attempt that ended
	final    bool          // it failed for good: waiting is useless
	backoff  time.Duration // before the next attempt; of dialLoop while dialing
}

// acquire returns a session that takes calls, waiting for one until the call's deadline.
func (l *link) acquire(ctx context.Context, deadline time.Time) (*session, error) {
	if s := l.current.Load(); s != nil && !s.retired.Load() {
		return s, nil
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	l.mu.Lock()
	l.waiters++
	before := l.ended
	defer func() {
		l.mu.Lock()
		l.waiters--
		l.mu.Unlock()
	}()
	for {
		if s := l.current.Load(); s != nil && !s.retired.Load() {
			l.mu.Unlock()
			return s, nil
		}
		l.dialLocked()
		changed := l.changed
		l.mu.Unlock()
		var over error
		select {
		case <-changed:
		case <-l.c.ctx.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			over = ctx.Err()
		case <-timer.C:
			over = ErrTimeout
		}
		l.mu.Lock()
		err, final := l.err, l.final
		if l.ended == before {
			err, final = nil, false // of another time
		}
		if over != nil || final {
			l.mu.Unlock()
			return nil, waitError(over, err)
		}
	}
}

// waitError joins the end of a call's patience with why there is no connection.
func waitError(over, cause error) error {
	switch {
	case over == nil:
		return cause
	case cause == nil:
		return fmt.Errorf("%w while connecting", over)
	}
	return fmt.Errorf("%w while connecting: %w", over, cause)
}

// connect waits for the end of one attempt.
func (l *link) connect(ctx context.Context) error {
	l.mu.Lock()
	if s := l.current.Load(); s != nil && !s.retired.Load() {
		l.mu.Unlock()
		return nil
	}
	l.dialLocked()
	changed := l.changed
	l.mu.Unlock()
	select {
	case <-changed:
	case <-l.c.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// dialLocked starts the attempts unless they are under way. It leaves the result of the last one:
// who waited for that may not have seen it yet.
func (l *link) dialLocked() {
	if l.dialing || l.c.ctx.Err() != nil {
		return
	}
	l.dialing = true
	if time.Since(l.since) > lastBackoff {
		l.backoff = 0
	}
	l.c.wg.Add(1)
	go l.dialLoop()
}

// dialLoop tries until there is a session, the failure is final, or nobody waits any more. A
// session that soon ends is no better than an attempt that failed: a server may let clients in and
// then execute nothing.
func (l *link) dialLoop() {
	defer l.c.wg.Done()
	for {
		if l.backoff > 0 {
			pause := time.NewTimer(l.backoff/2 + rand.N(l.backoff))
			select {
			case <-pause.C:
			case <-l.c.ctx.Done():
				pause.Stop()
			}
		}
		l.backoff = min(max(2*l.backoff, firstBackoff), lastBackoff)
		s, err := l.c.dial()
		l.mu.Lock()
		if err == nil && l.c.ctx.Err() != nil {
			s.close(ReasonDone, ReasonDone.String(), ErrClosed)
			err = ErrClosed
		}
		if err == nil {
			l.replaceLocked(s)
		}
		l.ended++
		l.err, l.final = err, isFinal(err)
		close(l.changed)
		l.changed = make(chan struct{})
		if err == nil || l.final || l.waiters == 0 {
			l.dialing = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

func (l *link) replaceLocked(s *session) {
	l.since = time.Now()
	l.replaced = slices.DeleteFunc(l.replaced, (*session).ended)
	if old := l.current.Swap(s); old != nil && !old.ended() {
		l.replaced = append(l.replaced, old)
	}
}

// isFinal tells errors that another attempt would not mend.
func isFinal(err error) bool {
	var mismatch *PinMismatchError
	var unknown *UnknownServerError
	var cert *CertError
	return errors.As(err, &mismatch) || errors.As(err, &unknown) || errors.As(err, &cert) ||
		errors.Is(err, ErrCertRefused) ||
		errors.Is(err, ErrWrongProtocol) || errors.Is(err, ErrClosed)
}

func (l *link) close() {
	l.mu.Lock()
	sessions := slices.Clone(l.replaced)
	if s := l.current.Load(); s != nil {
		sessions = append(sessions, s)
	}
	l.mu.Unlock()
	for _, s := range sessions {
		s.close(ReasonDone, ReasonDone.String(), ErrClosed)
	}
}

// dial makes one attempt.
func (c *Client) dial() (*session, error) {
	c.counters.dials.Add(1)
	s, err := c.tryDial()
	if err != nil {
		c.counters.dialFailures.Add(1)
	}
	return s, err
}

func (c *Client) tryDial() (*session, error) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	addr, err := resolve(ctx, c.addr)
	if err != nil {
		return nil, c.dialError(err)
	}
	if c.o.socket == nil {
		stop := probe(addr, func() { cancel(ErrRefused) })
		defer stop()
	}
	conf := c.o.quicConfig()
	conf.KeepAlivePeriod = c.o.IdleTimeout / 3
	qc, err := c.transport.Dial(ctx, addr, c.tls, conf)
	if err != nil {
		return nil, c.dialError(err)
	}
	if err := c.verifier.remember(qc.ConnectionState().TLS); err != nil {
		qc.CloseWithError(quic.ApplicationErrorCode(ReasonDone), "")
		return nil, err
	}
	s, err := newSession(c, qc)
	if err != nil {
		qc.CloseWithError(quic.ApplicationErrorCode(ReasonDone), "")
		return nil, fmt.Errorf("netquic: %w", err)
	}
	return s, nil
}

// resolve is net.ResolveUDPAddr, but ends with ctx: a name server may be silent.
func resolve(ctx context.Context, addr string) (*net.UDPAddr, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil || host == "" {
		return &net.UDPAddr{Port: port}, err
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err == nil && len(ips) == 0 {
		err = &net.AddrError{Err: "no address", Addr: host}
	}
	if err != nil {
		return nil, err
	}
	isIPv4 := func(a net.IPAddr) bool { return a.IP.To4() != nil }
	a := ips[max(0, slices.IndexFunc(ips, isIPv4))]
	return &net.UDPAddr{IP: a.IP, Port: port, Zone: a.Zone}, nil
}

// TLS alerts as QUIC error codes (RFC 9001, 4.8).
const (
	alertBadCertificate quic.TransportErrorCode = 0x100 + 42 // what VerifyConnection refuses
	alertNoProtocol     quic.TransportErrorCode = 0x100 + 120
)

func (c *Client) dialError(err error) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	var te *quic.TransportError
	if errors.As(err, &te) && te.ErrorCode == alertNoProtocol {
		return fmt.Errorf("%w (%s)", ErrWrongProtocol, c.addr)
	}
	return fmt.Errorf("netquic: connect to %s: %w", c.addr, closeCause(err))
}

// probe finds out at once when nothing listens at addr, which QUIC by itself notices only when the
// handshake times out: a connected UDP socket is told of ICMP "port unreachable". The one byte it
// sends is no QUIC packet and is dropped by a server. stop must be called; refused may be called
// until then.
func probe(addr *net.UDPAddr, refused func()) (stop func()) {
	conn, err := net.DialUDP("udp", nil, addr)
	if err != nil {
		return func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, err := conn.Write([]byte{0}); err == nil {
			_, err = conn.Read(make([]byte, 1))
			if errors.Is(err, syscall.ECONNREFUSED) {
				refused()
			}
		}
	}()
	return func() {
		conn.Close()
		<-ended
	}
}
