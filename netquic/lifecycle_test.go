package netquic

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// start serves on a fixed address and returns a function that waits for the end of Serve.
func start(t *testing.T, addr string, h Handler, o Options) (*Server, func()) {
	t.Helper()
	s, err := Listen(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), h) }()
	return s, func() {
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

// crash ends a server as a kill would: nobody is told.
func crash(s *Server) {
	s.transport.Close()
	s.transport.Conn.Close()
	s.Shutdown(context.Background())
}

func TestClientReconnects(t *testing.T) {
	for _, how := range []string{"shutdown", "crash"} {
		t.Run(how, func(t *testing.T) {
			o := Options{Identity: identity(t)}
			s, wait := start(t, "127.0.0.1:0", echo{true}, o)
			addr := s.Addr().String()
			c := dial(t, s, Options{})
			for i := range 3 {
				if _, err := c.Call(t.Context(), []byte("x"), nil); err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
				if how == "crash" {
					crash(s)
				} else if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				wait()
				s, wait = start(t, addr, echo{true}, o)
				if how == "crash" {
					// The restarted server disowns the old connection at the first packet; the
					// call that carried it is in doubt, the next one is served.
					begun := time.Now()
					_, err := c.Call(t.Context(), []byte("x"), nil)
					d := time.Since(begun)
					if err != nil && !errors.Is(err, ErrInDoubt) || d > 2*time.Second {
						t.Errorf("after %v: %v", d, err)
					}
				}
			}
			s.Shutdown(t.Context())
			wait()
		})
	}
}

// TestDrain shuts a server down under load, again and again: every call executed is answered, none
// is executed twice, none fails.
func TestDrain(t *testing.T) {
	o := Options{Identity: identity(t)}
	var executed atomic.Int64
	h := handler(func(_ context.Context, req, dst []byte) ([]byte, error) {
		executed.Add(1)
		time.Sleep(2 * time.Millisecond)
		return append(dst, req...), nil
	})
	s, wait := start(t, "127.0.0.1:0", h, o)
	addr := s.Addr().String()
	c := dial(t, s, Options{Lanes: 2})
	stop := make(chan struct{})
	var answered atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.Call(t.Context(), []byte("x"), nil); err != nil {
					t.Error(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	for range 4 {
		time.Sleep(50 * time.Millisecond)
		begun := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(begun); d > lingerTimeout {
			t.Errorf("shutdown took %v", d)
		}
		wait()
		if m := s.Metrics(); m.InFlight != 0 || m.Connections != 0 {
			t.Errorf("%+v", m)
		}
		s, wait = start(t, addr, h, o)
	}
	close(stop)
	wg.Wait()
	if executed.Load() != answered.Load() {
		t.Errorf("%d executed, %d answered", executed.Load(), answered.Load())
	}
	s.Shutdown(t.Context())
	wait()
}

// TestConnectionCountedAfterShutdown: a connection is uncounted by a goroutine of its own, which
// nobody waited for, so metrics read after Shutdown now and then showed it still open.
func TestConnectionCountedAfterShutdown(t *testing.T) {
	s, wait := start(t, "127.0.0.1:0", echo{true}, Options{Identity: identity(t)})
	conn, end := context.WithCancel(t.Context())
	if _, err := s.admit(conn, nil); err != nil {
		t.Fatal(err)
	}
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(t.Context()) }()
	select {
	case <-down:
		t.Fatalf("Shutdown returned with %d connections", s.Metrics().Connections)
	case <-time.After(100 * time.Millisecond):
	}
	end()
	begun := time.Now()
	if err := <-down; err != nil {
		t.Error(err)
	}
	if d := time.Since(begun); d > lingerTimeout/2 {
		t.Errorf("Shutdown returned %v after the connection ended", d)
	}
	if n := s.Metrics().Connections; n != 0 {
		t.Errorf("%d connections after Shutdown", n)
	}
	wait()
}

func TestShutdownCutsOff(t *testing.T) {
	entered := make(chan struct{})
	h := handler(func(ctx context.Context, _, dst []byte) ([]byte, error) {
		close(entered)
		<-ctx.Done()
		return dst, ctx.Err()
	})
	s, wait := start(t, "127.0.0.1:0", h, Options{Identity: identity(t)})
	c := dial(t, s, Options{})
	got := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), nil, nil)
		got <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	wait()
	var ce *CloseError
	if err := <-got; !errors.As(err, &ce) || ce.Reason != ReasonShutdown || !ce.Remote ||
		!errors.Is(err, ErrInDoubt) {
		t.Errorf("the call: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("second Shutdown: %v", err)
	}
	if err := s.Serve(t.Context(), echo{}); err != nil {
		t.Errorf("Serve after it: %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	s, wait := start(t, "127.0.0.1:0", echo{true}, Options{Identity: identity(t)})
	c := dial(t, s, Options{CallTimeout: 200 * time.Millisecond})
	s.Shutdown(t.Context())
	wait()
	begun := time.Now()
	if err := c.Connect(t.Context()); !errors.Is(err, ErrRefused) {
		t.Errorf("Connect: %v", err)
	}
	if d := time.Since(begun); d > time.Second {
		t.Errorf("noticed after %v", d)
	}
	_, err := c.Call(t.Context(), nil, nil)
	if !errors.Is(err, ErrTimeout) || !errors.Is(err, ErrRefused) || errors.Is(err, ErrInDoubt) {
		t.Errorf("Call: %v", err)
	}
}

// TestServerThatStartsNothing is not dialled again as fast as handshakes go: the pauses grow.
func TestServerThatStartsNothing(t *testing.T) {
	id := identity(t)
	l, err := quic.ListenAddr("127.0.0.1:0", id.baseConfig(Protocol), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			qc, err := l.Accept(t.Context())
			if err != nil {
				return
			}
			qc.CloseWithError(quic.ApplicationErrorCode(ReasonUnstarted), "")
		}
	}()
	c, err := NewClient(l.Addr().String(), Options{Pin: id.Pin()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begun := time.Now()
	_, err = c.CallBy(t.Context(), begun.Add(500*time.Millisecond), nil, nil)
	if !errors.Is(err, ErrTimeout) || errors.Is(err, ErrInDoubt) {
		t.Errorf("the call: %v", err)
	}
	most := uint64(2) // one at once, one after the last pause begun
	for pause := firstBackoff / 2; pause < time.Since(begun); pause += min(pause, lastBackoff/2) {
		most++
	}
	if got := c.Metrics().Dials; got > most {
		t.Errorf("%d connections, want %d at most", got, most)
	}
}

// TestFailedAttemptIsSeen: the next attempt begins before those who waited for the last one look.
// Connect said then that it had connected.
func TestFailedAttemptIsSeen(t *testing.T) {
	s, wait := start(t, "127.0.0.1:0", echo{true}, Options{Identity: identity(t)})
	c := dial(t, s, Options{})
	s.Shutdown(t.Context())
	wait()
	l := c.links[0]
	l.mu.Lock()
	l.dialLocked()
	ended := l.changed
	l.mu.Unlock()
	<-ended
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dialLocked()
	if !errors.Is(l.err, ErrRefused) {
		t.Errorf("the attempt ended with %v", l.err)
	}
}

// TestSilentNameServer: Close and Shutdown do not wait for it.
func TestSilentNameServer(t *testing.T) {
	for what, begin := range map[string]func(*testing.T) (end func() error){
		"Close": func(t *testing.T) func() error {
			c, err := NewClient("client.example.org:7400", Options{Pin: Pin{1}})
			if err != nil {
				t.Fatal(err)
			}
			go c.Connect(t.Context())
			return c.Close
		},
		"Shutdown": func(t *testing.T) func() error {
			id := clusterIdentity(t, authority(t), "n0")
			s, err := Listen("127.0.0.1:0", Options{Cluster: id})
			if err != nil {
				t.Fatal(err)
			}
			peers := map[string]string{"n1": "peer.example.org:7400"}
			if _, err := s.StartPeers(PeerOptions{Peers: peers}, &inbox{}); err != nil {
				t.Fatal(err)
			}
			return func() error { return s.Shutdown(t.Context()) }
		},
	} {
		t.Run(what, func(t *testing.T) {
			asked, release := make(chan struct{}, 1), make(chan struct{})
			free := sync.OnceFunc(func() { close(release) })
			old := net.DefaultResolver
			net.DefaultResolver = &net.Resolver{PreferGo: true,
				Dial: func(context.Context, string, string) (net.Conn, error) {
					select {
					case asked <- struct{}{}:
					default:
					}
					<-release
					return nil, errors.New("no answer")
				}}
			defer func() { net.DefaultResolver = old }()
			defer free()
			end := begin(t)
			<-asked
			late := time.AfterFunc(10*time.Second, func() {
				t.Error("it waits for the name")
				free()
			})
			defer late.Stop()
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestResolve finds what net.ResolveUDPAddr does.
func TestResolve(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:7400", "localhost:7400", "[::1]:7400", ":7400",
		"[fe80::1%lo]:7400", "[::ffff:127.0.0.1]:7400", "[::]:0", "127.0.0.1:domain",
		"127.0.0.1:70000", "127.0.0.1:nothing", "127.0.0.1", "127.0.0.1:"} {
		want, wantErr := net.ResolveUDPAddr("udp", addr)
		got, err := resolve(t.Context(), addr)
		if (err == nil) != (wantErr == nil) || err == nil && got.String() != want.String() {
			t.Errorf("%s: %v, %v; want %v, %v", addr, got, err, want, wantErr)
		}
	}
}

func TestClose(t *testing.T) {
	entered := make(chan struct{})
	s := serve(t, handler(func(ctx context.Context, _, dst []byte) ([]byte, error) {
		close(entered)
		<-ctx.Done() // Close of the client ends it
		return dst, nil
	}), Options{})
	c := dial(t, s, Options{})
	got := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), nil, nil)
		got <- err
	}()
	<-entered
	c.Close()
	if err := <-got; !errors.Is(err, ErrClosed) || !errors.Is(err, ErrInDoubt) {
		t.Errorf("the call in flight: %v", err)
	}
	if _, err := c.Call(t.Context(), nil, nil); !errors.Is(err, ErrClosed) ||
		errors.Is(err, ErrInDoubt) {
		t.Errorf("a later call: %v", err)
	}
	waitFor(t, s, func(m Metrics) bool { return m.Closed["by client"] == 1 && m.InFlight == 0 })
}

// TestCloseEndsReplacedSession: calls may be under way with a server that drains when the client
// has a connection to the next one already. Close waited for their end.
func TestCloseEndsReplacedSession(t *testing.T) {
	entered, goOn := make(chan struct{}), make(chan struct{})
	o := Options{Identity: identity(t)}
	h := handler(func(_ context.Context, _, dst []byte) ([]byte, error) {
		close(entered)
		<-goOn
		return dst, nil
	})
	old, wait := start(t, "127.0.0.1:0", h, o)
	next := serve(t, echo{true}, o)
	c := dial(t, old, Options{})
	first := make(chan error, 1)
	go func() {
		_, err := c.CallBy(t.Context(), time.Now().Add(time.Hour), nil, nil)
		first <- err
	}()
	<-entered
	go old.Shutdown(t.Context())
	waitUntil(t, old.draining.Load)
	c.links[0].mu.Lock()
	c.addr = next.Addr().String() // the name leads to another machine now
	c.links[0].mu.Unlock()
	if _, err := c.Call(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		c.Close()
	}()
	select {
	case err := <-first:
		if !errors.Is(err, ErrClosed) || !errors.Is(err, ErrInDoubt) {
			t.Errorf("the call in flight: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the call in flight has not ended")
	}
	close(goOn)
	<-closed
	wait()
}

func TestKnownServers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "known")
	s, wait := start(t, "127.0.0.1:0", echo{true}, Options{Identity: identity(t)})
	addr := s.Addr().String()
	call := func() error {
		c, err := NewClient(addr, Options{KnownServers: file})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Call(t.Context(), []byte("x"), nil)
		return err
	}
	if err := errors.Join(call(), call()); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(file)
	if want := addr + " " + s.o.Identity.Pin().String() + "\n"; string(b) != want {
		t.Errorf("remembered %q, want %q", b, want)
	}
	s.Shutdown(t.Context())
	wait()
	s, wait = start(t, addr, echo{true}, Options{Identity: identity(t)})
	var mismatch *PinMismatchError
	if err := call(); !errors.As(err, &mismatch) || errors.Is(err, ErrInDoubt) ||
		!strings.Contains(err.Error(), file) {
		t.Errorf("another key: %v", err)
	}
	waitFor(t, s, func(m Metrics) bool { return m.Calls == 0 && m.Connections == 0 })
	s.Shutdown(t.Context())
	wait()
}

func TestBadOptions(t *testing.T) {
	if _, err := NewClient("127.0.0.1:1", Options{}); err != ErrNoPin {
		t.Error(err)
	}
	if _, err := NewClient("127.0.0.1", Options{Pin: Pin{1}}); err == nil {
		t.Error("address without a port accepted")
	}
	if _, err := Listen("127.0.0.1:0", Options{}); err == nil {
		t.Error("no identity accepted")
	}
	if _, err := Listen("nowhere.invalid:0", Options{Identity: identity(t)}); err == nil {
		t.Error("impossible address accepted")
	}
	// A server that never serves is shut down all the same.
	s, err := Listen("127.0.0.1:0", Options{Identity: identity(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(s.Addr().String(), Options{Identity: identity(t)}); err == nil {
		t.Error("one port twice")
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
