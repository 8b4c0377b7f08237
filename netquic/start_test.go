package netquic

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// starts takes requests that begin with 's' and keeps them until they are answered; others go to
// Call, which says so.
type starts struct {
	mu      sync.Mutex
	begun   []startedCall
	largest int // group
	total   int // begun, answered or not

	bytes int          // of an answer of Call to such a request, else it says that it was called
	given atomic.Int64 // such answers
}

type startedCall struct {
	req      []byte
	deadline time.Time
	answer   func([]byte)
}

func (h *starts) TryCall(_, _ []byte) ([]byte, bool) { return nil, false }
func (h *starts) Starts(req []byte) bool             { return kindOf(req) == 's' }

func (h *starts) Call(_ context.Context, req, dst []byte) ([]byte, error) {
	if h.bytes > 0 && h.Starts(req) {
		h.given.Add(1)
		return append(dst, make([]byte, h.bytes)...), nil
	}
	return append(append(dst, "called "...), req...), nil
}

func (h *starts) Start(reqs [][]byte, deadlines []time.Time, answers []func([]byte)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.largest = max(h.largest, len(reqs))
	h.total += len(reqs)
	for i := range reqs {
		h.begun = append(h.begun,
			startedCall{bytes.Clone(reqs[i]), deadlines[i], answers[i]})
	}
}

// serveStarts serves h, and lets no test that has failed wait for answers.
func serveStarts(t *testing.T, h *starts, o Options) *Server {
	s := serve(t, h, o)
	t.Cleanup(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, call := range h.begun {
			call.answer(nil)
		}
	})
	return s
}

// small tells the server that answers to calls of c are small, by some that are: it expects more.
func (h *starts) small(t *testing.T, c *Client) {
	for range 30 {
		done := ask(t, c, "s")
		h.wait(t, 1)[0].answer(nil)
		<-done
	}
}

// wait waits for n calls and takes them out.
func (h *starts) wait(t *testing.T, n int) []startedCall {
	t.Helper()
	waitUntil(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.begun) >= n
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.begun
	h.begun = nil
	return all
}

// TestStartedCalls: answers find their callers in whatever order and from wherever they come, and
// what is not for Start goes to Call.
func TestStartedCalls(t *testing.T) {
	h := new(starts)
	s := serveStarts(t, h, Options{MaxFrameBytes: testMaxFrame})
	c := dial(t, s, Options{MaxFrameBytes: testMaxFrame, CallTimeout: 10 * time.Second})
	h.small(t, c)
	const calls = 50
	began := time.Now()
	var asked []chan string
	for i := range calls {
		asked = append(asked, ask(t, c, fmt.Sprint("s", i)))
	}
	if got := <-ask(t, c, "other"); got != "called other" {
		t.Errorf("what is not for Start: %q", got)
	}
	all := h.wait(t, calls)
	waitFor(t, s, func(m Metrics) bool { return m.InFlight == calls })
	for i := range all {
		call := all[len(all)-1-i]
		if left := call.deadline.Sub(began); left < 8*time.Second || left > 15*time.Second {
			t.Fatalf("%s has %v left", call.req, left)
		}
		go func() {
			resp := append([]byte("started "), call.req...)
			call.answer(resp)
			clear(resp) // it was copied
		}()
	}
	for i, done := range asked {
		if got, want := <-done, fmt.Sprint("started s", i); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	waitFor(t, s, func(m Metrics) bool { return m.InFlight == 0 })

	tooLarge := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), []byte("s"), nil)
		tooLarge <- err
	}()
	h.wait(t, 1)[0].answer(make([]byte, testMaxFrame))
	if err := <-tooLarge; !errors.Is(err, ErrAnswerTooLarge) || !errors.Is(err, ErrInDoubt) {
		t.Errorf("an answer that does not fit: %v", err)
	}
}

// startEcho answers what it is asked, as it begins.
type startEcho struct{ echo }

func (startEcho) Starts([]byte) bool { return true }

func (startEcho) Start(reqs [][]byte, _ []time.Time, answers []func([]byte)) {
	for i, answer := range answers {
		answer(reqs[i])
	}
}

// TestStartedCallsComeTogether: the calls of one packet are one group, and a group has an end.
func TestStartedCallsComeTogether(t *testing.T) {
	h := new(starts)
	s := serveStarts(t, h, Options{})
	_, stream := rawStream(t, s)
	const calls = 3 * startMost
	id := uint64(0)
	request := func(dst []byte) []byte {
		id += maxSlots
		return appendRequest(dst, id, 60000, []byte("s"))
	}
	for range 40 { // answers turn out small
		if _, err := stream.Write(request(nil)); err != nil {
			t.Fatal(err)
		}
		h.wait(t, 1)[0].answer(nil)
	}
	var packet []byte
	for range calls {
		packet = request(packet)
	}
	if _, err := stream.Write(packet); err != nil {
		t.Fatal(err)
	}
	for _, call := range h.wait(t, calls) {
		call.answer(nil)
	}
	if h.largest < 2 || h.largest > startMost {
		t.Errorf("the largest group of %d calls has %d", calls, h.largest)
	}
}

// slowBeside is starts where everything else is answered at once, which takes its time; the last of
// it waits until a call has begun.
type slowBeside struct {
	starts
	tries int
}

func (h *slowBeside) TryCall(req, dst []byte) ([]byte, bool) {
	if kindOf(req) == 's' {
		return nil, false
	}
	h.tries++
	for until := time.Now().Add(5 * time.Second); h.tries == 32 && time.Now().Before(until); {
		h.mu.Lock()
		total := h.total
		h.mu.Unlock()
		if total > 0 {
			break
		}
	}
	time.Sleep(settleAfter / 10)
	return append(dst, "beside"...), true
}

// TestStartedCallDoesNotWaitForLongBatch: of a batch of 33 requests the first begins before the
// others, which take long, are all answered.
func TestStartedCallDoesNotWaitForLongBatch(t *testing.T) {
	h := new(slowBeside)
	s := serve(t, h, Options{})
	_, stream := rawStream(t, s)
	packet := appendRequest(nil, maxSlots, 60000, []byte("s"))
	for i := range uint64(32) {
		packet = appendRequest(packet, (i+2)*maxSlots, 60000, nil)
	}
	began := time.Now()
	if _, err := stream.Write(packet); err != nil {
		t.Fatal(err)
	}
	h.wait(t, 1)[0].answer(nil)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the call began after %v, behind all others", took)
	}
	waitFor(t, s, func(m Metrics) bool { return m.Calls == 33 && m.InFlight == 0 })
}

// TestStartedCallBeforeBadFrame: what came before the bytes for which a connection is closed begins
// like any other call, and is no longer in flight when it has been answered.
func TestStartedCallBeforeBadFrame(t *testing.T) {
	h := new(starts)
	s := serveStarts(t, h, Options{})
	qc, stream := rawStream(t, s)
	packet := appendRequest(nil, maxSlots, 60000, []byte("s"))
	bad := appendRequest(nil, 2*maxSlots, 60000, []byte("s"))
	bad[4] = 99 // no kind
	if _, err := stream.Write(append(packet, bad...)); err != nil {
		t.Fatal(err)
	}
	if got := closedWith(t, qc); got != ReasonUnknownKind {
		t.Errorf("closed for %v", got)
	}
	h.wait(t, 1)[0].answer(nil)
	waitFor(t, s, func(m Metrics) bool { return m.InFlight == 0 && m.Connections == 0 })
}

// TestShutdownWaitsForStartedCalls, and delivers their answers; a call whose client is gone by then
// may still be answered.
func TestShutdownWaitsForStartedCalls(t *testing.T) {
	h := new(starts)
	s := serveStarts(t, h, Options{})
	gone, err := NewClient(s.Addr().String(), Options{Pin: s.o.Identity.Pin()})
	if err != nil {
		t.Fatal(err)
	}
	lost := ask(t, gone, "s")
	late := h.wait(t, 1)[0]
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	<-lost
	c := dial(t, s, Options{})
	kept := ask(t, c, "s")
	call := h.wait(t, 1)[0]
	waitFor(t, s, func(m Metrics) bool { return m.Connections == 1 })
	over := make(chan error, 1)
	go func() { over <- s.Shutdown(context.Background()) }()
	select {
	case err := <-over:
		t.Fatalf("Shutdown returned %v while calls were under way", err)
	case <-time.After(50 * time.Millisecond):
	}
	late.answer([]byte("to nobody"))
	call.answer([]byte("in time"))
	if got := <-kept; got != "in time" {
		t.Errorf("the caller got %q", got)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// TestStartedCallsOfSlowReader: answers that a client does not take keep nobody waiting, are held
// up to the limit only, and arrive when it takes them.
func TestStartedCallsOfSlowReader(t *testing.T) {
	const calls, answerBytes = 400, 64 << 10
	h := &starts{bytes: answerBytes}
	s := serveStarts(t, h, Options{MaxInFlightBytes: 8 << 20})
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{Protocol}}
	qc, err := quic.DialAddr(t.Context(), s.Addr().String(), conf, &quic.Config{
		InitialStreamReceiveWindow: 1 << 16, MaxStreamReceiveWindow: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer qc.CloseWithError(0, "")
	stream, err := qc.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // answers at once whatever begins
		for {
			h.mu.Lock()
			begun := h.begun
			h.begun = nil
			h.mu.Unlock()
			for _, call := range begun {
				call.answer(make([]byte, h.bytes))
				h.given.Add(1)
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	for i := range calls {
		req := appendRequest(nil, uint64(i+1)<<slotBits, 60000, []byte("s"))
		if _, err := stream.Write(req); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, s, func(m Metrics) bool { return m.Calls == calls })
	time.Sleep(50 * time.Millisecond) // whatever does not wait for room is answered by now
	given := h.given.Load()
	// Besides the limit there is what lane and QUIC hold, and the guess at what the first take.
	const most = 2 * (8 << 20) / answerShare / answerBytes
	if given == 0 || given > most {
		t.Errorf("%d answers given while none was read, want up to %d", given, most)
	}
	r := newFrameReader(stream, clientSide, 1<<20)
	seen := 0
	for seen < calls {
		if _, err := r.fill(); err != nil {
			t.Fatal(err)
		}
		for {
			f, ok, err := r.next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if f.status != statusOK {
				t.Fatalf("status %d", f.status)
			}
			seen++
		}
	}
	waitFor(t, s, func(m Metrics) bool { return m.InFlight == 0 })
}
