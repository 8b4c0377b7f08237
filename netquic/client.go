package netquic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Client makes calls to one server over a few connections, which it opens at the first call and
// again whenever they break. All methods may be called by any number of goroutines.
type Client struct {
	// Fixed after NewClient.
	addr      string
	o         Options
	transport *quic.Transport
	tls       *tls.Config
	verifier  *verifier
	links     []*link
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc

	// Own synchronisation.
	counters clientCounters
	next     atomic.Uint32  // link of the next call
	wg       sync.WaitGroup // dials and lanes
	closing  sync.Once
}

// NewClient makes a client of the server at addr (host:port). It does not connect yet.
func NewClient(addr string, o Options) (*Client, error) {
	if o.Pin == (Pin{}) && o.KnownServers == "" && o.Authority == nil {
		if o.ClientCert == nil {
			return nil, ErrNoPin
		}
		o.Authority = o.ClientCert.authority
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	o = o.withDefaults(15 * time.Second)
	socket := o.socket
	if socket == nil {
		udp, err := net.ListenUDP("udp", nil)
		if err != nil {
			return nil, fmt.Errorf("netquic: %w", err)
		}
		socket = polling(udp)
	}
	c := &Client{
		addr:      addr,
		o:         o,
		transport: &quic.Transport{Conn: socket, ConnectionIDLength: connectionIDBytes},
		verifier: &verifier{addr: addr, pin: o.Pin, authority: o.Authority,
			file: o.KnownServers},
	}
	c.tls = &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         "kvd",
		NextProtos:         []string{Protocol},
		InsecureSkipVerify: true, // the pin or the authority decides, in the next line
		VerifyConnection:   c.verifier.verify,
	}
	if o.ClientCert != nil {
		c.tls.Certificates = []tls.Certificate{o.ClientCert.cert}
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	for range o.Connections {
		c.links = append(c.links, &link{c: c, changed: make(chan struct{})})
	}
	return c, nil
}

// Call sends one request and appends its answer to dst. It ends by the deadline of ctx, or by
// Options.CallTimeout when ctx has none, whatever the server does. While there is no connection it
// waits for one. What certainly had no effect is sent again by itself within the deadline.
//
// Errors: *RemoteError is the Handler's; *SizeError a request too large; *CallError everything
// else, and errors.Is(err, ErrInDoubt) tells whether the call may have been executed. dst is then
// returned as it was.
func (c *Client) Call(ctx context.Context, req, dst []byte) ([]byte, error) {
	deadline, has := ctx.Deadline()
	if !has {
		deadline = time.Now().Add(c.o.CallTimeout)
	}
	return c.call(ctx, deadline, !has, req, dst)
}

// CallBy is Call for one who has a deadline of his own, and then gets ErrTimeout. A context made
// for it would cost as much as all else that is done here.
func (c *Client) CallBy(ctx context.Context, deadline time.Time, req, dst []byte) ([]byte, error) {
	if own, has := ctx.Deadline(); has && !deadline.Before(own) {
		return c.call(ctx, own, false, req, dst)
	}
	if !time.Now().Before(deadline) {
		return dst, &CallError{Addr: c.addr, Err: ErrTimeout}
	}
	return c.call(ctx, deadline, true, req, dst)
}

// call makes a call that ends by its deadline. timed says that ctx does not end by then.
func (c *Client) call(ctx context.Context, deadline time.Time, timed bool, req, dst []byte) (
	[]byte, error) {
	if n := requestBytes + len(req); n > c.o.MaxFrameBytes {
		return dst, &SizeError{Bytes: n, MaxBytes: c.o.MaxFrameBytes}
	}
	if err := ctx.Err(); err != nil {
		return dst, &CallError{Addr: c.addr, Err: err}
	}
	l := c.links[0]
	if len(c.links) > 1 {
		l = c.links[c.next.Add(1)%uint32(len(c.links))]
	}
	for {
		s, err := l.acquire(ctx, deadline)
		if err != nil {
			return dst, &CallError{Addr: c.addr, Err: err}
		}
		resp, retry, err := s.lane().call(ctx, deadline, timed, req, dst)
		if !retry {
			return resp, err
		}
		if errors.Is(err, ErrCertRefused) {
			return dst, &CallError{Addr: c.addr, Err: err}
		}
		c.counters.retries.Add(1)
	}
}

// Connected tells whether there is a connection: Connect would return nil at once.
func (c *Client) Connected() bool {
	s := c.links[0].current.Load()
	return s != nil && !s.retired.Load()
}

// Connect makes one attempt to open a connection, unless there is one, and returns its error at
// once: a command that wants to say that the server is not there uses it before the first Call,
// which would wait and try again until its deadline.
func (c *Client) Connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.o.CallTimeout)
	defer cancel()
	return c.links[0].connect(ctx)
}

// Close ends all connections. Calls in flight fail with ErrClosed.
func (c *Client) Close() error {
	var err error
	c.closing.Do(func() {
		c.cancel()
		for _, l := range c.links {
			l.close()
		}
		c.wg.Wait()
		err = errors.Join(c.transport.Close(), c.transport.Conn.Close())
	})
	return err
}
