package netquic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// These tests are named after what was once broken.

// failingStream fails its first Write once fail is closed.
type failingStream struct{ entered, fail chan struct{} }

func (f *failingStream) Write([]byte) (int, error) {
	close(f.entered)
	<-f.fail
	return 0, io.ErrClosedPipe
}

func (f *failingStream) Close() error { return nil }

func TestCallsOfALaneWhoseWriterFailedFirstEnd(t *testing.T) {
	s := &session{}
	f := &failingStream{make(chan struct{}), make(chan struct{})}
	l := &clientLane{s: s, out: newGroupWriter(f, &s.waiting)}
	l.slots.Store(new([]*call))
	ran := make(chan error, 1)
	go func() { ran <- l.out.run() }()
	deadline := time.Now().Add(time.Minute)
	given, err := l.begin(t.Context(), deadline, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	<-f.entered
	queued, err := l.begin(t.Context(), deadline, []byte("y"), nil)
	if err != nil {
		t.Fatal(err)
	}
	close(f.fail)
	if err := <-ran; err != io.ErrClosedPipe {
		t.Fatal(err)
	}
	l.fail(io.ErrClosedPipe, false)
	l.fail(io.ErrClosedPipe, false) // the reader notices too
	if len(given.done) != 1 || len(queued.done) != 1 {
		t.Fatalf("woken: given %d, queued %d", len(given.done), len(queued.done))
	}
	if !given.inDoubt || given.retry {
		t.Error("a call given to the stream is not in doubt")
	}
	if queued.inDoubt || !queued.retry {
		t.Error("a call that was only queued is not sent again")
	}
}

// A client that always has a frame in the middle, each of which takes 20 ms.
func TestBusyClientIsNoSlowSender(t *testing.T) {
	s := serve(t, echo{true}, Options{FrameTimeout: 250 * time.Millisecond})
	qc, stream := rawStream(t, s)
	go io.Copy(io.Discard, stream)
	f := appendRequest(nil, 1<<20, 5000, make([]byte, 100))
	half := len(f) / 2
	shifted := append(append([]byte(nil), f[half:]...), f[:half]...)
	stream.Write(f[:half])
	for begun := time.Now(); time.Since(begun) < 700*time.Millisecond; {
		if _, err := stream.Write(shifted); err != nil {
			t.Fatalf("after %v: %v", time.Since(begun), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got := closedWith(t, qc); got != ReasonSlowFrame {
		t.Errorf("a frame that stays incomplete: closed for %v", got)
	}
}

// A call whose connection the server has not accepted yet when it begins to shut down.
func TestShutdownPutsNoCallOfAFreshConnectionInDoubt(t *testing.T) {
	o := Options{Identity: identity(t)}
	s, err := Listen("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	addr := s.Addr().String()
	c := dial(t, s, Options{})
	got := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), []byte("x"), nil)
		got <- err
	}()
	for l := c.links[0].current.Load(); l == nil || l.waiting.Load() == 0; {
		time.Sleep(time.Millisecond)
		l = c.links[0].current.Load()
	}
	s.draining.Store(true)
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), echo{}) }()
	waitFor(t, s, func(m Metrics) bool { return m.Closed["unstarted"] == 1 })
	if err := errors.Join(s.Shutdown(t.Context()), <-served); err != nil {
		t.Error(err)
	}
	s, wait := start(t, addr, echo{}, o)
	if err := <-got; err != nil {
		t.Errorf("the call: %v", err)
	}
	if m := c.Metrics(); m.Retries == 0 {
		t.Errorf("%+v", m)
	}
	s.Shutdown(t.Context())
	wait()
}

func TestIsUnstarted(t *testing.T) {
	for i, c := range []struct {
		err  error
		want bool
	}{
		{&quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}, true},
		{&quic.TransportError{ErrorCode: quic.ConnectionRefused}, false},
		{&quic.TransportError{Remote: true, ErrorCode: quic.InternalError}, false},
		{&CloseError{Reason: ReasonUnstarted, Remote: true}, true},
		{&CloseError{Reason: ReasonUnstarted}, false},
		{&CloseError{Reason: ReasonShutdown, Remote: true}, false},
		{io.EOF, false},
	} {
		if got := isUnstarted(c.err); got != c.want {
			t.Errorf("%d: %v: %v", i, c.err, got)
		}
	}
}

func TestShutdownTellsUnusedConnectionsThatNothingWasStarted(t *testing.T) {
	s, wait := start(t, "127.0.0.1:0", echo{}, Options{Identity: identity(t)})
	qc, err := rawDial(t, s, Protocol)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, s, func(m Metrics) bool { return m.Accepted == 1 })
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	wait()
	if got := closedWith(t, qc); got != ReasonUnstarted {
		t.Errorf("closed for %v", got)
	}
}

// A client that asks for many large answers and takes none, and then breaks off.
func TestAnswersNobodyTakesAreBounded(t *testing.T) {
	const asked, limit = 300, 32
	var executed atomic.Int64
	page := make([]byte, 1<<20)
	taken := make(chan struct{}) // closed when all calls are: no answer makes a later one too many
	h := handler(func(_ context.Context, req, dst []byte) ([]byte, error) {
		if string(req) == "small" {
			return dst, nil
		}
		executed.Add(1)
		<-taken
		return append(dst, page...), nil
	})
	s := serve(t, h, Options{MaxInFlightBytes: 16 << 20, FrameTimeout: time.Minute})
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{Protocol}}
	qc, err := quic.DialAddr(t.Context(), s.Addr().String(), conf, &quic.Config{
		InitialStreamReceiveWindow: 1 << 16, MaxStreamReceiveWindow: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := qc.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	var requests []byte
	for i := range asked { // behind many small answers to requests of another kind
		requests = appendRequest(requests, uint64(i), 60000, []byte("small"))
	}
	for i := range asked {
		requests = appendRequest(requests, uint64(i), 60000, []byte("page"))
	}
	if _, err := stream.Write(requests); err != nil {
		t.Fatal(err)
	}
	waitFor(t, s, func(m Metrics) bool { return m.Calls == 2*asked })
	close(taken)
	for n := int64(-1); n != executed.Load(); time.Sleep(50 * time.Millisecond) {
		n = executed.Load()
	}
	if n := executed.Load(); n == 0 || n > limit {
		t.Errorf("%d calls executed that leave 1 MiB each, want at most %d", n, limit)
	}
	qc.CloseWithError(0, "")
	waitFor(t, s, func(m Metrics) bool { return m.InFlight == 0 })
	if n := executed.Load(); n > limit {
		t.Errorf("%d calls executed, though their client had gone", n)
	}
}

func TestPinThatBecameKnownMeanwhileIsCompared(t *testing.T) {
	cert, err := x509.ParseCertificate(identity(t).cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	cs := tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	v := &verifier{addr: "127.0.0.1:7", file: filepath.Join(t.TempDir(), "known")}
	if err := v.verify(cs); err != nil {
		t.Fatal(err)
	}
	if err := Remember(v.file, v.addr, Pin{1}); err != nil { // by another process
		t.Fatal(err)
	}
	var mismatch *PinMismatchError
	if err := v.remember(cs); !errors.As(err, &mismatch) || mismatch.Want != (Pin{1}) {
		t.Errorf("remembered: %v", err)
	}
}
