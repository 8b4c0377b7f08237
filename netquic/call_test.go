package netquic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// handler is a Handler made of a function; nothing is answered inline.
type handler func(ctx context.Context, req, dst []byte) ([]byte, error)

func (h handler) TryCall(_, _ []byte) ([]byte, bool) { return nil, false }

func (h handler) Call(ctx context.Context, req, dst []byte) ([]byte, error) {
	return h(ctx, req, dst)
}

func TestConcurrentCalls(t *testing.T) {
	for _, o := range []Options{{}, {Lanes: 4}, {Connections: 3, Lanes: 2}} {
		s := serve(t, echo{false}, Options{})
		c := dial(t, s, o)
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), 1))
				var dst []byte
				for range 50 {
					req := make([]byte, rng.IntN(3000))
					for j := range req {
						req[j] = byte(rng.Uint32())
					}
					var err error
					dst, err = c.Call(t.Context(), req, dst[:0])
					if err != nil || !bytes.Equal(dst, req) {
						t.Errorf("%d bytes for %d, %v", len(dst), len(req), err)
						return
					}
				}
			})
		}
		wg.Wait()
		waitFor(t, s, func(m Metrics) bool { return m.InFlight == 0 }) // an answer comes before that
		if m := s.Metrics(); m.Accepted != uint64(max(1, o.Connections)) {
			t.Errorf("%+v", m)
		}
	}
}

func TestHandlerErrors(t *testing.T) {
	s := serve(t, handler(func(_ context.Context, req, dst []byte) ([]byte, error) {
		switch string(req) {
		case "typed":
			return nil, fmt.Errorf("wrapped: %w", &RemoteError{Code: 7, Message: "oops"})
		case "plain":
			return nil, errors.New("no luck")
		case "large":
			return append(dst, make([]byte, 5000)...), nil
		}
		return nil, &RemoteError{Message: string(make([]byte, 10000))}
	}), Options{MaxFrameBytes: testMaxFrame})
	c := dial(t, s, Options{MaxFrameBytes: testMaxFrame})
	for req, want := range map[string]RemoteError{"typed": {7, "oops"}, "plain": {0, "no luck"}} {
		dst, err := c.Call(t.Context(), []byte(req), []byte("dst"))
		var re *RemoteError
		if !errors.As(err, &re) || *re != want || string(dst) != "dst" ||
			errors.Is(err, ErrInDoubt) {
			t.Errorf("%s: %q, %v", req, dst, err)
		}
	}
	if _, err := c.Call(t.Context(), []byte("large"), nil); !errors.Is(err, ErrAnswerTooLarge) ||
		!errors.Is(err, ErrInDoubt) {
		t.Error(err)
	}
	var re *RemoteError
	if _, err := c.Call(t.Context(), []byte("long"), nil); !errors.As(err, &re) ||
		len(re.Message) != testMaxFrame-responseBytes-errorBytes {
		t.Errorf("%T", err)
	}
	var se *SizeError
	if _, err := c.Call(t.Context(), make([]byte, testMaxFrame), nil); !errors.As(err, &se) {
		t.Error(err)
	}
}

// TestDeadlines calls a handler that hangs: the caller returns by its deadline, the handler's
// context ends too.
func TestDeadlines(t *testing.T) {
	ended, release := make(chan error, 10), make(chan struct{})
	s := serve(t, handler(func(ctx context.Context, _, dst []byte) ([]byte, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		<-release // an answer at the deadline might still be in time
		return dst, nil
	}), Options{})
	defer close(release)
	c := dial(t, s, Options{CallTimeout: 50 * time.Millisecond})
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	plain := func() (context.Context, context.CancelFunc) { return t.Context(), func() {} }
	timed := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(t.Context(), 50*time.Millisecond)
	}
	cancelled := func() (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Millisecond, cancel)
		return ctx, cancel
	}
	call := func(ctx context.Context) error {
		_, err := c.Call(ctx, nil, nil)
		return err
	}
	callBy := func(d time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := c.CallBy(ctx, time.Now().Add(d), nil, nil)
			return err
		}
	}
	for _, x := range []struct {
		make func() (context.Context, context.CancelFunc)
		call func(context.Context) error
		want error
	}{
		{plain, call, ErrTimeout},
		{timed, call, context.DeadlineExceeded},
		{cancelled, call, context.Canceled},
		{plain, callBy(30 * time.Millisecond), ErrTimeout},
		{plain, callBy(30 * time.Millisecond), context.DeadlineExceeded}, // the same
		{timed, callBy(30 * time.Millisecond), ErrTimeout},
		{timed, callBy(time.Hour), context.DeadlineExceeded},
		{cancelled, callBy(time.Hour), context.Canceled},
	} {
		ctx, cancel := x.make()
		start := time.Now()
		err := x.call(ctx)
		if !errors.Is(err, x.want) || !errors.Is(err, ErrInDoubt) {
			t.Errorf("got %v, want %v in doubt", err, x.want)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("returned after %v", d)
		}
		if err := <-ended; err != context.DeadlineExceeded {
			t.Errorf("the handler's context: %v", err)
		}
		cancel()
		if _, err := c.Call(ctx, nil, nil); ctx.Err() != nil && errors.Is(err, ErrInDoubt) {
			t.Errorf("a call with an ended context: %v", err)
		}
	}
}

// TestLateAnswers makes many calls that time out around the moment of their answers. An answer may
// be late, but never another call's.
func TestLateAnswers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := serve(t, handler(func(_ context.Context, req, dst []byte) ([]byte, error) {
		time.Sleep(time.Duration(binary.LittleEndian.Uint32(req)) * time.Microsecond)
		return append(dst, req...), nil
	}), Options{})
	c := dial(t, s, Options{})
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			req, dst := make([]byte, 100), make([]byte, 0, 100)
			for n := range 150 {
				binary.LittleEndian.PutUint32(req, rng.Uint32N(4000))
				binary.LittleEndian.PutUint64(req[8:], uint64(i)<<32|uint64(n))
				ctx, cancel := context.WithTimeout(t.Context(),
					time.Duration(rng.IntN(4000))*time.Microsecond)
				got, err := c.Call(ctx, req, dst)
				cancel()
				switch {
				case err == nil && !bytes.Equal(got, req):
					t.Errorf("caller %d got %x for %x", i, got, req)
				case err != nil && !errors.Is(err, context.DeadlineExceeded) &&
					!errors.Is(err, errExpired):
					t.Error(err)
				case err != nil:
					clear(dst[:cap(dst)]) // a late answer must not be written here
					for _, b := range dst[:cap(dst)] {
						if b != 0 {
							t.Error("dst written after return")
						}
					}
				}
			}
		})
	}
	wg.Wait()
	got, err := c.Call(t.Context(), make([]byte, 100), nil)
	if err != nil || len(got) != 100 {
		t.Fatal(err)
	}
	t.Logf("%+v", c.Metrics())
}

func TestOverload(t *testing.T) {
	for name, o := range map[string]Options{
		"calls": {MaxInFlight: 3},
		"bytes": {MaxInFlightBytes: 3*100 + 50}, // something for what is reserved for answers
	} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			started := make(chan struct{}, 10)
			s := serve(t, handler(func(_ context.Context, req, dst []byte) ([]byte, error) {
				started <- struct{}{}
				<-release
				return append(dst, req...), nil
			}), o)
			c := dial(t, s, Options{})
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if _, err := c.Call(t.Context(), make([]byte, 100), nil); err != nil {
						t.Error(err)
						started <- struct{}{}
					}
				})
			}
			for range 3 {
				<-started
			}
			_, err := c.Call(t.Context(), make([]byte, 100), nil)
			if !errors.Is(err, ErrOverloaded) || errors.Is(err, ErrInDoubt) {
				t.Errorf("the fourth call: %v", err)
			}
			close(release)
			wg.Wait()
			waitFor(t, s, func(m Metrics) bool { return m.Overloaded == 1 && m.InFlight == 0 })
		})
	}
}

// sink is a stream that swallows what is written.
type sink struct{ n int }

func (s *sink) Write(b []byte) (int, error) { s.n += len(b); return len(b), nil }
func (s *sink) Close() error                { return nil }

// TestCallsAllocateNothing runs both ends of calls without QUIC between them.
func TestCallsAllocateNothing(t *testing.T) {
	for _, h := range []Handler{echo{true}, echo{false}, startEcho{echo{false}}} {
		s := &Server{o: Options{}.withDefaults(time.Second), handler: h}
		s.starter, _ = h.(Starter)
		s.workers.jobs = make(chan *job)
		conn := &serverConn{s: s, ctx: context.Background()}
		requests := &chunks{}
		sl := &serverLane{c: conn, in: newFrameReader(requests, serverSide, s.o.MaxFrameBytes),
			out: newGroupWriter(&sink{}, &conn.calls)}
		sl.slow.timer = stoppedTimer(func() {})
		sess := &session{c: &Client{}}
		responses := &chunks{}
		cl := &clientLane{s: sess, in: newFrameReader(responses, clientSide, 9<<20),
			out: newGroupWriter(&sink{}, &sess.waiting)}
		cl.slots.Store(new([]*call))

		req, dst := make([]byte, 150), make([]byte, 0, 200)
		ctx, deadline := context.Background(), time.Now().Add(time.Hour)
		take := func(w *groupWriter) []byte { // what the writing goroutine does
			w.mu.Lock()
			defer w.mu.Unlock()
			b := w.takeLocked()
			w.spare = b
			return b
		}
		one := func() {
			k, err := cl.begin(ctx, deadline, req, dst)
			if err != nil {
				t.Fatal(err)
			}
			requests.next = take(cl.out)
			sl.in.fill()
			if err := sl.batch(time.Now()); err != nil {
				t.Fatal(err)
			}
			for s.inFlight.Load() > 0 {
				time.Sleep(time.Microsecond)
			}
			responses.next = take(sl.out)
			cl.in.fill()
			f, ok, err := cl.in.next()
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			cl.deliver(f)
			if err := k.wait(ctx, deadline, true); err != nil || len(k.dst) != len(req) {
				t.Fatal(err)
			}
			cl.end(k)
		}
		for range 10 {
			one()
		}
		if n := testing.AllocsPerRun(200, one); n > 0 && !raceEnabled {
			t.Errorf("%T: %v allocations per call", h, n)
		}
		s.workers.stop()
	}
}

// TestWithdraw gives up a call whose request still waits to be written: the server will not
// execute it, and the caller knows.
func TestWithdraw(t *testing.T) {
	sess := &session{c: &Client{}}
	l := &clientLane{s: sess, out: newGroupWriter(&sink{}, &sess.waiting)}
	l.slots.Store(new([]*call))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := l.call(ctx, time.Now().Add(time.Hour), true, []byte("one"), nil)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrInDoubt) {
		t.Fatal(err)
	}
	f, _, _, err := parseFrame(l.out.out, serverSide, 1000)
	if err != nil || f.millis != 0 || string(f.body) != "one" {
		t.Fatalf("%+v, %v", f, err)
	}
	l.out.taken++ // written
	_, _, err = l.call(ctx, time.Now().Add(time.Hour), true, []byte("two"), nil)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
