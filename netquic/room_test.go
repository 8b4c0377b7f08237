package netquic

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowStream takes a write when it is told to.
type slowStream struct {
	takes chan struct{}

	mu  sync.Mutex
	got []byte
}

func (s *slowStream) Write(b []byte) (int, error) {
	<-s.takes
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, b...)
	return len(b), nil
}

func (s *slowStream) Close() error { return nil }

// TestLargeAnswersAreQueuedInTurn has a hundred answers wait for a lane, each as large as its room,
// and others come all the time. In a race for it some were overtaken for seconds.
func TestLargeAnswersAreQueuedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowStream{takes: make(chan struct{})}
		w := newGroupWriter(s, nil)
		go w.run()
		const answers, ahead = 200, 100
		for i := range answers {
			go w.send(bytes.Repeat([]byte{byte(i)}, largeRoomBytes))
			synctest.Wait()
			if i >= ahead {
				s.takes <- struct{}{}
			}
		}
		for range answers - ahead {
			synctest.Wait()
			s.takes <- struct{}{}
		}
		synctest.Wait()
		for i := range answers {
			if got := s.got[i*largeRoomBytes]; got != byte(i) {
				t.Fatalf("answer %d was written in place of %d", got, i)
			}
		}
		w.close()
	})
}

// TestSmallAnswersDoNotWaitForLarge queues, while large ones wait for room, a pair, and what the
// reading goroutine of the lane has answered.
func TestSmallAnswersDoNotWaitForLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowStream{takes: make(chan struct{})}
		w := newGroupWriter(s, nil)
		go w.run()
		for range 10 {
			go w.send(make([]byte, largeRoomBytes/2+1)) // no two find room
			synctest.Wait()
		}
		var queued atomic.Int32
		go func() {
			w.send(make([]byte, smallBytes))
			w.sendSwap(make([]byte, 2*smallBytes), 2)
			queued.Store(1)
		}()
		synctest.Wait()
		if queued.Load() == 0 {
			t.Error("small answers wait for large ones")
		}
		go func() { // their own room is bounded too: a client that reads nothing gets no further
			for range 2 * smallRoomBytes / (64 << 10) {
				w.sendSwap(make([]byte, 64<<10), 1)
				queued.Add(1)
			}
		}()
		synctest.Wait()
		if n := int(queued.Load()); n > smallRoomBytes/(64<<10) {
			t.Errorf("%d batches are queued", n)
		}
		w.die() // everybody returns, or the bubble tells
		close(s.takes)
	})
}

// TestCallerThatWaitsForRoomGivesUp at its deadline, or when its context ends, without taking the
// room from those behind it.
func TestCallerThatWaitsForRoomGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowStream{takes: make(chan struct{})}
		sess := &session{c: &Client{}}
		l := &clientLane{s: sess, out: newGroupWriter(s, &sess.waiting)}
		l.slots.Store(new([]*call))
		go l.out.run()
		ctx, cancel := context.WithCancel(t.Context())
		begin := func(ctx context.Context, after time.Duration, want error) {
			req := make([]byte, largeRoomBytes)
			if _, err := l.begin(ctx, time.Now().Add(after), req, nil); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		for range 2 { // one is being written, one queued
			go begin(ctx, time.Hour, nil)
			synctest.Wait()
		}
		go begin(ctx, time.Second, ErrTimeout)
		synctest.Wait()
		go begin(ctx, time.Hour, context.Canceled)
		synctest.Wait()
		time.Sleep(2 * time.Second)
		cancel()
		synctest.Wait()
		go begin(t.Context(), time.Hour, nil)
		synctest.Wait()
		for range 3 {
			s.takes <- struct{}{}
			synctest.Wait()
		}
		if n := len(s.got); n < 3*largeRoomBytes {
			t.Errorf("%d bytes were written", n)
		}
		for range 2 { // and two behind them who find no room before the lane ends
			go begin(t.Context(), time.Hour, nil)
			synctest.Wait()
		}
		go begin(t.Context(), time.Hour, errDraining)
		go begin(t.Context(), time.Hour, errDraining)
		synctest.Wait()
		l.out.die()
		synctest.Wait()
		close(s.takes)
	})
}

// jobOf makes a call of a kind.
func jobOf(kind byte) *job {
	return &job{kind: kind}
}

// pass runs j with an answer of n bytes through the gate.
func (g *answerGate) pass(j *job, n int64) {
	g.enter(j)
	j.called = true
	g.answered(j, n)
	g.leave(n)
}

func TestAnswerGate(t *testing.T) {
	var g answerGate
	g.open(100)
	j := jobOf(0)
	for range 50 {
		g.pass(j, 60)
	}
	if held, mean := g.held.Load(), g.means[0].Load(); held != 0 || mean < 50 {
		t.Fatalf("held %d, mean %d", held, mean)
	}
	if n := testing.AllocsPerRun(100, func() { g.pass(j, 60) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestAnswerGateLetsInInTurn has pages and pairs asked for, of which the first come in turn and the
// others need not wait for them, until the connection ends, when nobody waits any more.
func TestAnswerGateLetsInInTurn(t *testing.T) {
	const pageBytes, pages = 1 << 20, 50
	synctest.Test(t, func(t *testing.T) {
		var g answerGate
		g.open(2*pageBytes + 100)
		const page, pair = 1, 2
		for range 100 {
			g.pass(jobOf(page), pageBytes)
			g.pass(jobOf(pair), 10)
		}
		entered := make(chan int, pages)
		var jobs []*job
		for i := range pages {
			j := jobOf(page)
			jobs = append(jobs, j)
			go func() {
				g.enter(j)
				entered <- i
			}()
			synctest.Wait()
		}
		for i := range pages / 2 {
			if got := <-entered; got != i {
				t.Fatalf("page %d came in the place of %d", got, i)
			}
			g.pass(jobOf(pair), 10) // though pages wait
			g.answered(jobs[i], pageBytes)
			g.leave(pageBytes)
			synctest.Wait()
		}
		if n := len(entered); n != 2 {
			t.Errorf("%d pages at once, want 2", n)
		}
		g.end()
		for i := pages / 2; i < pages; i++ {
			<-entered
			g.answered(jobs[i], 0)
		}
		if n := g.held.Load(); n != 0 {
			t.Errorf("held %d at the end", n)
		}
	})
}

// TestSmallAnswersGoBeforePages: a pair that finds no room waits for some, and not for the pages
// that wait already.
func TestSmallAnswersGoBeforePages(t *testing.T) {
	const pageBytes = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		var g answerGate
		g.open(2 * pageBytes)
		const page, pair = 1, 2
		for range 100 {
			g.pass(jobOf(page), pageBytes)
			g.pass(jobOf(pair), 10)
		}
		entered := make(chan byte, 100)
		enter := func(kind byte) *job {
			j := jobOf(kind)
			go func() {
				g.enter(j)
				entered <- kind
			}()
			synctest.Wait()
			return j
		}
		first := enter(page)
		for range 5 {
			enter(page)
		}
		g.answered(first, pageBytes+1000) // more than there was room for
		enter(pair)
		enter(pair)
		if n := len(entered); n != 2 {
			t.Errorf("%d calls let in, want 2", n)
		}
		g.leave(pageBytes + 1000)
		var got []byte
		for range 4 {
			got = append(got, <-entered)
		}
		if want := []byte{page, page, pair, pair}; !bytes.Equal(got, want) {
			t.Errorf("let in: %v, want %v", got, want)
		}
		g.end()
	})
}

// TestExpiredCallsSayNothingOfTheirKind: forty in a row made pages of 1 MiB count as small.
func TestExpiredCallsSayNothingOfTheirKind(t *testing.T) {
	var g answerGate
	g.open(64 << 20)
	before := g.means[1].Load()
	for range 40 {
		j := jobOf(1)
		g.enter(j)
		g.answered(j, 10) // a status
		g.leave(10)
	}
	if got, held := g.means[1].Load(), g.held.Load(); got != before || held != 0 {
		t.Errorf("the mean was %d and is %d, %d bytes are held", before, got, held)
	}
}
