package netquic

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// echo answers with the request, inline or not.
type echo struct{ inline bool }

func (e echo) TryCall(req, dst []byte) ([]byte, bool) {
	if !e.inline {
		return nil, false
	}
	return append(dst, req...), true
}

func (e echo) Call(_ context.Context, req, dst []byte) ([]byte, error) {
	return append(dst, req...), nil
}

// serve starts a server on the loopback and stops it when the test ends.
func serve(t testing.TB, h Handler, o Options) *Server {
	t.Helper()
	if o.Identity == nil {
		o.Identity = identity(t)
	}
	s, err := Listen("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func identity(t testing.TB) *Identity {
	t.Helper()
	id, err := EnsureIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func dial(t testing.TB, s *Server, o Options) *Client {
	t.Helper()
	o.Pin = s.o.Identity.Pin()
	c, err := NewClient(s.Addr().String(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

func TestEcho(t *testing.T) {
	for _, inline := range []bool{true, false} {
		s := serve(t, echo{inline}, Options{})
		c := dial(t, s, Options{CallTimeout: time.Minute}) // 8 MiB on a busy machine
		for _, n := range []int{0, 1, 100, 2000, 70000, 8 << 20} {
			req := bytes.Repeat([]byte{byte(n), 7}, n/2)
			got, err := c.Call(t.Context(), req, []byte("dst"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, append([]byte("dst"), req...)) {
				t.Fatalf("inline %v, %d bytes: wrong answer of %d", inline, n, len(got))
			}
		}
		if m := s.Metrics(); m.Calls != 6 || (m.Inline == 6) != inline {
			t.Fatalf("metrics %+v", m)
		}
	}
}

func BenchmarkEcho(b *testing.B) {
	for _, inline := range []bool{true, false} {
		for _, callers := range []int{1, 16, 64, 256} {
			name := "blocking"
			if inline {
				name = "inline"
			}
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				benchEcho(b, inline, callers, Options{})
			})
		}
	}
}

func benchEcho(b *testing.B, inline bool, callers int, o Options) {
	s := serve(b, echo{inline}, Options{})
	c := dial(b, s, o)
	req := make([]byte, 150)
	var left atomic.Int64
	var wg sync.WaitGroup
	warm := int64(callers * 20)
	run := func(n int64) {
		left.Store(n)
		for range callers {
			wg.Go(func() {
				dst := make([]byte, 0, 256)
				for left.Add(-1) >= 0 {
					if _, err := c.Call(context.Background(), req, dst); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	run(warm)
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	run(int64(b.N))
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "calls/s")
}
