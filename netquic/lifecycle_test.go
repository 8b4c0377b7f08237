package netquic

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
