package netquic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/procs"
)

// deferring defers requests that begin with 'd', and answers others at once. A Settle waits for a
// token, which says what is answered instead.
type deferring struct {
	did     atomic.Int64
	settles chan []byte // the tags of each Settle, when it begins
	tokens  chan []byte
}

func newDeferring() *deferring {
	return &deferring{settles: make(chan []byte, 1000), tokens: make(chan []byte, 1000)}
}

func (h *deferring) TryCall(req, dst []byte) ([]byte, bool) {
	return append(dst, req...), kindOf(req) != 'd' && kindOf(req) != 'c'
}

func (h *deferring) TryDefer(req, dst []byte) ([]byte, byte, bool) {
	if kindOf(req) != 'd' {
		return append(dst, "of no use"...), 0, false
	}
	h.did.Add(1)
	return append(dst, req...), 't', true
}

func (h *deferring) Settle(tags []byte, arrived []time.Time) []byte {
	if len(arrived) != len(tags) || time.Since(arrived[0]) > time.Minute {
		panic(fmt.Sprintf("%d tags arrived at %v", len(tags), arrived))
	}
	h.settles <- slices.Clone(tags)
	return <-h.tokens
}

func (h *deferring) Call(_ context.Context, req, dst []byte) ([]byte, error) {
	return append(dst, req...), nil
}

// ask makes a call and sends its answer, or its error, to the channel returned.
func ask(t *testing.T, c *Client, req string) chan string {
	done := make(chan string, 1)
	go func() {
		got, err := c.Call(t.Context(), []byte(req), nil)
		if err != nil {
			got = []byte(err.Error())
		}
		done <- string(got)
	}()
	return done
}

func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for nothing")
		}
	}
}

// TestDeferredAnswersWait: what has been done is answered after a Settle that began later, and
// whatever else comes on the lane meanwhile is answered at once.
func TestDeferredAnswersWait(t *testing.T) {
	h := newDeferring()
	s := serve(t, h, Options{})
	c := dial(t, s, Options{})
	first := ask(t, c, "d1")
	if tags := <-h.settles; string(tags) != "t" {
		t.Errorf("the first Settle is for %q", tags)
	}
	second, third := ask(t, c, "d2"), ask(t, c, "d3")
	waitUntil(t, func() bool { return h.did.Load() == 3 })
	for _, req := range []string{"now", "call"} {
		if got := <-ask(t, c, req); got != req {
			t.Errorf("%q beside deferred calls: %q", req, got)
		}
	}
	select {
	case got := <-first:
		t.Errorf("answered %q before Settle has returned", got)
	default:
	}
	waitFor(t, s, func(m Metrics) bool { return m.InFlight == 3 }) // "call" is given back late
	h.tokens <- nil
	if got := <-first; got != "d1" {
		t.Errorf("the first answer: %q", got)
	}
	if tags := <-h.settles; string(tags) != "tt" {
		t.Errorf("the second Settle is for %q", tags)
	}
	select {
	case got := <-second:
		t.Errorf("answered %q by the Settle before", got)
	case got := <-third:
		t.Errorf("answered %q by the Settle before", got)
	default:
	}
	h.tokens <- []byte("the disk is gone")
	for _, done := range []chan string{second, third} {
		if got := <-done; got != "the disk is gone" {
			t.Errorf("after a Settle that failed: %q", got)
		}
	}
	waitFor(t, s, func(m Metrics) bool { return m.InFlight == 0 && m.Calls == 5 && m.Inline == 4 })
}

// TestDeferredOverload: calls that wait for Settle count as others, and one too many is refused
// before it is done.
func TestDeferredOverload(t *testing.T) {
	h := newDeferring()
	s := serve(t, h, Options{MaxInFlight: 3})
	c := dial(t, s, Options{})
	var waiting []chan string
	for i := range 3 {
		waiting = append(waiting, ask(t, c, "d"))
		waitUntil(t, func() bool { return h.did.Load() == int64(i+1) })
	}
	for _, req := range []string{"d", "call"} {
		_, err := c.Call(t.Context(), []byte(req), nil)
		if !errors.Is(err, ErrOverloaded) || errors.Is(err, ErrInDoubt) {
			t.Errorf("%q after three: %v", req, err)
		}
	}
	if got := <-ask(t, c, "now"); got != "now" {
		t.Errorf("what needs no waiting: %q", got)
	}
	close(h.tokens)
	for _, done := range waiting {
		if got := <-done; got != "d" {
			t.Errorf("an answer: %q", got)
		}
	}
	if n := h.did.Load(); n != 3 {
		t.Errorf("%d were done", n)
	}
}

// TestShutdownSettles: what has been done is answered before the server is gone.
func TestShutdownSettles(t *testing.T) {
	h := newDeferring()
	s, wait := start(t, "127.0.0.1:0", h, Options{Identity: identity(t)})
	c := dial(t, s, Options{Lanes: 2})
	var waiting []chan string
	for range 4 {
		waiting = append(waiting, ask(t, c, "d"))
	}
	waitUntil(t, func() bool { return h.did.Load() == 4 })
	down := make(chan error)
	go func() { down <- s.Shutdown(context.Background()) }()
	waitUntil(t, s.draining.Load)
	select {
	case err := <-down:
		t.Fatalf("shut down with calls unsettled: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(h.tokens)
	for _, done := range waiting {
		if got := <-done; got != "d" {
			t.Errorf("an answer: %q", got)
		}
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	wait()
}

// TestDeferredBeforeGarbage: bytes that are no frame end the connection, and what came before them
// is settled: a server that forgot it would never shut down.
func TestDeferredBeforeGarbage(t *testing.T) {
	h := newDeferring()
	close(h.tokens)
	s := serve(t, h, Options{})
	qc, stream := rawStream(t, s)
	stream.Write(append(appendRequest(nil, 1, 1000, []byte("d")), 0xff, 0xff, 0xff, 0xff, 1))
	if got := closedWith(t, qc); got != ReasonFrameTooLong {
		t.Errorf("closed for %q", got)
	}
	waitFor(t, s, func(m Metrics) bool { return m.InFlight == 0 })
	if tags := <-h.settles; string(tags) != "t" {
		t.Errorf("settled %q", tags)
	}
}

// TestDeferredUnderLoad: many callers, groups of every size, some of which fail: each call gets its
// own answer, or what its group was given instead.
func TestDeferredUnderLoad(t *testing.T) {
	h := newDeferring()
	s := serve(t, h, Options{})
	c := dial(t, s, Options{Lanes: 2})
	stop := make(chan struct{})
	var settled, failed atomic.Int64
	var settling sync.WaitGroup
	settling.Go(func() {
		for n := 0; ; n++ {
			token := []byte(nil)
			if n%5 == 4 {
				token = []byte("no")
			}
			select {
			case tags := <-h.settles:
				settled.Add(int64(len(tags)))
				h.tokens <- token
			case <-stop:
				return
			}
		}
	})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := range 200 {
				req := fmt.Sprintf("d %d %d", i, n)
				switch got, err := c.Call(t.Context(), []byte(req), nil); {
				case err != nil:
					t.Error(err)
					return
				case string(got) == "no":
					failed.Add(1)
				case string(got) != req:
					t.Errorf("%q for %q", got, req)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	settling.Wait()
	if f := failed.Load(); settled.Load() != 3200 || f == 0 || f == 3200 {
		t.Errorf("%d settled, %d of them failed", settled.Load(), f)
	}
}

// Sixteen callers who asked again when they were answered stayed two groups of eight for ever.
func TestAnsweredCallersJoinTheNextGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSettler(nil)
		var group deferred
		arrive := func(n int, after time.Duration) {
			if n == 0 {
				return
			}
			time.AfterFunc(after, func() { s.add(&deferred{ids: make([]uint64, n)}) })
		}
		take := func(want int, wait time.Duration) {
			t.Helper()
			began := time.Now()
			ok, took := s.take(&group), time.Since(began)
			if !ok || len(group.ids) != want || took != wait {
				t.Errorf("%d calls after %v, want %d after %v", len(group.ids), took, want, wait)
			}
		}
		settled := func(n int) { // the group, and those that come meanwhile
			arrive(n, 0)
			synctest.Wait()
			s.count(&group, joinWorth)
		}
		const soon = joinAfter / 3
		arrive(8, soon)
		take(8, soon) // the first group knows of nobody else
		settled(8)
		arrive(8, soon) // those answered
		take(16, soon)
		settled(0)
		arrive(5, soon) // now all come back together, or almost
		arrive(11, 2*soon)
		take(16, 2*soon)
		settled(0)
		arrive(12, soon) // four are gone
		take(12, soon+joinAfter)
		for n := joinFutileMin; n <= 2*joinFutileMax; n *= 2 {
			for range min(n, joinFutileMax) { // what was in vain is not done again at once
				s.all = 12
				arrive(6, soon)
				take(6, soon)
			}
			s.all = 12
			arrive(6, soon)
			take(6, soon+joinAfter)
		}
		s.futile, s.all = 0, 12
		arrive(6, soon)
		arrive(6, 2*soon)
		take(12, 2*soon)
		if s.again != joinFutileMin {
			t.Errorf("after one that was not in vain, one in %d waits", s.again)
		}
		arrive(6, 0)
		synctest.Wait()
		s.count(&group, joinWorth-1)
		take(6, 0) // to settle six more is less than to wait for them
		settled(100)
		take(100, 0) // enough, although twelve more may come
		settled(0)
		arrive(1, soon)
		time.AfterFunc(2*soon, s.end)
		take(1, 2*soon) // no more will come
		if s.take(&group) {
			t.Error("took a group after the end")
		}
	})
}

// TestOthersAreNoted: calls that wait for Settle are nobody in whose way a sync is; all others are.
func TestOthersAreNoted(t *testing.T) {
	h := newDeferring()
	close(h.tokens)
	c := dial(t, serve(t, h, Options{}), Options{})
	<-ask(t, c, "d") // and the connection is there
	for _, req := range []string{"now", "call"} {
		procs.Alone()
		<-ask(t, c, "d")
		<-ask(t, c, "d") // the batch of the one before has ended
		if !procs.Alone() {
			t.Error("a call that waits for Settle was noted")
		}
		<-ask(t, c, req)
		waitUntil(t, func() bool { return !procs.Alone() })
	}
}
