package netquic

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
)

// simRouter is a perfect network that can be cut.
type simRouter struct {
	simnet.PerfectRouter
	cut atomic.Bool
}

func (r *simRouter) SendPacket(p simnet.Packet) error {
	if r.cut.Load() {
		return nil
	}
	return r.PerfectRouter.SendPacket(p)
}

const simRTT = 20 * time.Millisecond

// simulate runs test in virtual time, with a server and a client on a network of 20 ms round trip.
func simulate(t *testing.T, h Handler, so, co Options,
	test func(t *testing.T, r *simRouter, s *Server, c *Client)) {
	so.Identity = identity(t)
	co.Pin = so.Identity.Pin()
	synctest.Test(t, func(t *testing.T) {
		router := &simRouter{}
		network := &simnet.Simnet{Router: router}
		link := simnet.NodeBiDiLinkSettings{Latency: simRTT / 2}
		so.socket = network.NewEndpoint(&net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7400}, link)
		co.socket = network.NewEndpoint(&net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 999}, link)
		if err := network.Start(); err != nil {
			t.Fatal(err)
		}
		s, err := Listen("", so)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve(context.Background(), h) }()
		c, err := NewClient("10.0.0.1:7400", co)
		if err != nil {
			t.Fatal(err)
		}
		test(t, router, s, c)
		c.Close()
		s.Shutdown(context.Background())
		if err := <-served; err != nil {
			t.Error(err)
		}
		network.Close()
	})
}

// TestCallTakesOneRoundTrip: neither side waits for company on an idle lane.
func TestCallTakesOneRoundTrip(t *testing.T) {
	simulate(t, echo{false}, Options{}, Options{},
		func(t *testing.T, _ *simRouter, _ *Server, c *Client) {
			if err := c.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				begun := time.Now()
				if _, err := c.Call(t.Context(), []byte("x"), nil); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(begun); d > simRTT+2*time.Millisecond {
					t.Errorf("a call took %v", d)
				}
			}
		})
}

// TestPartition cuts the network under a client: calls end by their deadlines and say what they
// know, the dead connection is noticed, and after healing calls are served again by themselves.
func TestPartition(t *testing.T) {
	simulate(t, echo{false}, Options{}, Options{CallTimeout: 2 * time.Second},
		func(t *testing.T, r *simRouter, s *Server, c *Client) {
			if _, err := c.Call(t.Context(), []byte("x"), nil); err != nil {
				t.Fatal(err)
			}
			r.cut.Store(true)
			begun := time.Now()
			doubtful, certain := 0, 0
			for time.Since(begun) < time.Minute {
				called := time.Now()
				_, err := c.Call(t.Context(), []byte("x"), nil)
				switch {
				case err == nil:
					t.Fatal("an answer through a cut network")
				case errors.Is(err, ErrInDoubt):
					doubtful++
				default:
					certain++
				}
				if d := time.Since(called); d > 2*time.Second+time.Millisecond {
					t.Errorf("a call took %v", d)
				}
			}
			// 15 s until the client gives the connection up, in calls of 2 s.
			if doubtful < 7 || doubtful > 9 || certain < 20 {
				t.Errorf("%d in doubt, %d certain", doubtful, certain)
			}
			if m := s.Metrics(); m.Connections != 0 || m.Closed["idle"] != 1 {
				t.Errorf("the server holds the dead connection: %+v", m)
			}
			r.cut.Store(false)
			healed := time.Now()
			for {
				if _, err := c.Call(t.Context(), []byte("x"), nil); err == nil {
					break
				}
			}
			if d := time.Since(healed); d > handshakeTimeout {
				t.Errorf("%v from healing to an answer", d)
			}
		})
}

// TestIdleConnectionStays: a client without calls keeps its connection; one that has vanished
// loses it.
func TestIdleConnectionStays(t *testing.T) {
	simulate(t, echo{true}, Options{}, Options{},
		func(t *testing.T, r *simRouter, s *Server, c *Client) {
			if err := c.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if _, err := c.Call(t.Context(), nil, nil); err != nil {
				t.Error(err)
			}
			if m := s.Metrics(); m.Accepted != 1 || m.Connections != 1 {
				t.Errorf("%+v", m)
			}
		})
}

// TestHungHandler hangs in every call for an hour: callers return at their deadline to the
// millisecond, and the handlers' contexts end then, so that nothing piles up.
func TestHungHandler(t *testing.T) {
	var running atomic.Int64
	h := handler(func(ctx context.Context, _, dst []byte) ([]byte, error) {
		running.Add(1)
		defer running.Add(-1)
		select {
		case <-ctx.Done():
		case <-time.After(time.Hour):
			t.Error("the context never ended")
		}
		return dst, ctx.Err()
	})
	simulate(t, h, Options{}, Options{}, func(t *testing.T, _ *simRouter, s *Server, c *Client) {
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			go func() {
				begun := time.Now()
				_, err := c.Call(context.Background(), nil, nil)
				if d := time.Since(begun); !errors.Is(err, ErrTimeout) || d != 10*time.Second {
					t.Errorf("after %v: %v", d, err)
				}
			}()
		}
		time.Sleep(11 * time.Second)
		if n := running.Load(); n != 0 || s.Metrics().InFlight != 0 {
			t.Errorf("%d handlers still run", n)
		}
	})
}
