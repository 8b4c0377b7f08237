package netquic

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// rawDial opens a connection that keeps to no rule of ours.
func rawDial(t *testing.T, s *Server, protocols ...string) (*quic.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
	qc, err := quic.DialAddr(ctx, s.Addr().String(), conf, &quic.Config{MaxIncomingStreams: -1})
	if err == nil {
		t.Cleanup(func() { qc.CloseWithError(0, "") })
	}
	return qc, err
}

// rawStream opens a stream on such a connection.
func rawStream(t *testing.T, s *Server) (*quic.Conn, *quic.Stream) {
	t.Helper()
	qc, err := rawDial(t, s, Protocol)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := qc.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	return qc, stream
}

// closedWith waits until the server has closed a connection and returns why.
func closedWith(t *testing.T, qc *quic.Conn) Reason {
	t.Helper()
	select {
	case <-qc.Context().Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the server keeps the connection")
	}
	var ce *CloseError
	if err := closeCause(context.Cause(qc.Context())); !errors.As(err, &ce) || !ce.Remote {
		t.Fatalf("closed by %v", err)
	}
	return ce.Reason
}

// waitFor waits until the server's metrics satisfy ok.
func waitFor(t *testing.T, s *Server, ok func(Metrics) bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(s.Metrics()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("metrics %+v", s.Metrics())
		}
	}
}

func TestBadClientsAreClosed(t *testing.T) {
	s := serve(t, echo{true}, Options{FrameTimeout: 100 * time.Millisecond})
	good := dial(t, s, Options{})
	half := appendRequest(nil, 1, 1000, []byte("hello"))[:10]
	for name, c := range map[string]struct {
		send []byte
		fin  bool
		want Reason
	}{
		"too long":  {unhex(t, "ffffffff01"), false, ReasonFrameTooLong},
		"kind":      {unhex(t, "0f00000009"), false, ReasonUnknownKind},
		"too short": {unhex(t, "0000000001"), false, ReasonMalformed},
		"cut off":   {half, true, ReasonTruncated},
		"half":      {half, false, ReasonSlowFrame},
		"behind good frames": {append(appendRequest(nil, 1, 1000, []byte("x")), 0xff, 0xff, 0xff,
			0xff), false, ReasonFrameTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			before := s.Metrics().Closed[c.want.String()]
			qc, stream := rawStream(t, s)
			stream.Write(c.send)
			if c.fin {
				stream.Close()
			}
			if got := closedWith(t, qc); got != c.want {
				t.Errorf("closed for %q, want %q", got, c.want)
			}
			waitFor(t, s, func(m Metrics) bool {
				return m.Closed[c.want.String()] == before+1
			})
			if _, err := good.Call(t.Context(), []byte("x"), nil); err != nil {
				t.Errorf("a good client suffers: %v", err)
			}
		})
	}
}

// TestSlowSender sends a large frame byte by byte, then one whose pieces come in time.
func TestSlowSender(t *testing.T) {
	s := serve(t, echo{true}, Options{FrameTimeout: 150 * time.Millisecond})
	qc, err := rawDial(t, s, Protocol)
	if err != nil {
		t.Fatal(err)
	}
	stream, _ := qc.OpenStream()
	for _, b := range appendRequest(nil, 1, 1000, make([]byte, 100)) { // 1.2 s
		if _, err := stream.Write([]byte{b}); err != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := closedWith(t, qc); got != ReasonSlowFrame {
		t.Errorf("closed for %v", got)
	}

	if qc, err = rawDial(t, s, Protocol); err != nil {
		t.Fatal(err)
	}
	stream, _ = qc.OpenStream()
	frame := appendRequest(nil, 1, 60000, make([]byte, 512<<10))
	for len(frame) > 0 { // slower than FrameTimeout as a whole
		n := min(len(frame), 80<<10)
		if _, err := stream.Write(frame[:n]); err != nil {
			t.Fatal(err)
		}
		frame = frame[n:]
		time.Sleep(40 * time.Millisecond)
	}
	if _, err := stream.Read(make([]byte, 1)); err != nil {
		t.Errorf("a steady large frame: %v", err)
	}
}

// TestSlowReader asks for much and reads nothing.
func TestSlowReader(t *testing.T) {
	s := serve(t, echo{true}, Options{FrameTimeout: 200 * time.Millisecond})
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{Protocol}}
	qc, err := quic.DialAddr(t.Context(), s.Addr().String(), conf, &quic.Config{
		InitialStreamReceiveWindow: 1 << 16, MaxStreamReceiveWindow: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	stream, _ := qc.OpenStream()
	frame := appendRequest(nil, 1, 60000, make([]byte, 64<<10))
	stream.SetWriteDeadline(time.Now().Add(5 * time.Second))
	sent := 0
	for {
		n, err := stream.Write(frame)
		if sent += n; err != nil {
			break
		}
	}
	if got := closedWith(t, qc); got != ReasonSlowReader {
		t.Errorf("closed for %v", got)
	}
	if limit := 16 << 20; sent > limit {
		t.Errorf("the server took %d bytes without answering", sent)
	}
}

func TestWrongProtocol(t *testing.T) {
	s := serve(t, echo{true}, Options{})
	for i, protocols := range [][]string{{"kvd-client/9"}, {"h3", "kvd-peer/1"}, nil} {
		if _, err := rawDial(t, s, protocols...); err == nil {
			t.Errorf("%v accepted", protocols)
		}
		waitFor(t, s, func(m Metrics) bool {
			return m.WrongProtocol == uint64(i+1) && m.HandshakesFailed == uint64(i+1)
		})
	}
	waitFor(t, s, func(m Metrics) bool { return m.Connections == 0 && m.Accepted == 0 })
}

// TestServerOfAnotherProtocol calls a QUIC server that is not ours.
func TestServerOfAnotherProtocol(t *testing.T) {
	id := identity(t)
	l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{id.cert}, NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := NewClient(l.Addr().String(), Options{Pin: id.Pin()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Call(t.Context(), nil, nil); !errors.Is(err, ErrWrongProtocol) ||
		errors.Is(err, ErrInDoubt) {
		t.Error(err)
	}
}

func TestTooManyConnections(t *testing.T) {
	s := serve(t, echo{true}, Options{MaxConnections: 3})
	var conns []*quic.Conn
	for range 3 {
		qc, err := rawDial(t, s, Protocol)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, qc)
	}
	_, err := rawDial(t, s, Protocol)
	var te *quic.TransportError
	if !errors.As(err, &te) || te.ErrorCode != quic.ConnectionRefused {
		t.Errorf("the fourth: %v", err)
	}
	conns[0].CloseWithError(0, "")
	waitFor(t, s, func(m Metrics) bool { return m.Connections-m.Handshakes == 2 && m.Refused >= 1 })
	// A packet of the fourth that comes only now takes the place until its handshake has timed out.
	for end := time.Now().Add(2 * handshakeTimeout); ; time.Sleep(10 * time.Millisecond) {
		_, err := rawDial(t, s, Protocol)
		if err == nil {
			return
		}
		if !errors.As(err, &te) || te.ErrorCode != quic.ConnectionRefused || time.Now().After(end) {
			t.Fatalf("after one has left: %v", err)
		}
	}
}

// TestLaneChurn ends lanes and opens others: their number is limited for the connection's life.
func TestLaneChurn(t *testing.T) {
	s := serve(t, echo{true}, Options{})
	qc, err := rawDial(t, s, Protocol)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	n := 0
	for ; n < 100; n++ {
		stream, err := qc.OpenStreamSync(ctx)
		if err != nil {
			break
		}
		stream.Write(appendRequest(nil, 1, 1000, []byte("x")))
		stream.Close()
		stream.Read(make([]byte, 100))
	}
	if n != maxLanes {
		t.Errorf("%d lanes, want %d", n, maxLanes)
	}
	if _, err := qc.OpenUniStream(); err == nil {
		t.Error("a unidirectional stream was allowed")
	}
}

// TestGarbageDatagrams throws bytes that are no QUIC at the port.
func TestGarbageDatagrams(t *testing.T) {
	s := serve(t, echo{true}, Options{})
	conn, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 1200)
	for i := range 500 {
		binary.LittleEndian.PutUint32(b, uint32(i)*2654435761)
		conn.Write(b[:1+i*2])
	}
	if _, err := dial(t, s, Options{}).Call(t.Context(), []byte("x"), nil); err != nil {
		t.Error(err)
	}
}

// badServer answers a client with bytes that are no answers.
func TestBadServer(t *testing.T) {
	id := identity(t)
	for name, c := range map[string]struct {
		send string
		want Reason
	}{
		"too long": {"ffffffff", ReasonFrameTooLong},
		"request":  {"0f000000 01", ReasonUnknownKind},
		"trailing": {"0b000000 02 0300100000000000 02 00", ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := quic.ListenAddr("127.0.0.1:0", id.tlsConfig(func() {}), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got := make(chan error, 1)
			go func() {
				qc, err := l.Accept(t.Context())
				if err != nil {
					got <- err
					return
				}
				stream, err := qc.AcceptStream(t.Context())
				if err == nil {
					// An answer to nobody comes first and is ignored.
					stream.Write(appendStatus(nil, 1<<40, statusOverloaded))
					stream.Write(unhex(t, c.send))
				}
				<-qc.Context().Done()
				got <- context.Cause(qc.Context())
			}()
			client, err := NewClient(l.Addr().String(), Options{Pin: id.Pin()})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var fe *FrameError
			_, err = client.Call(t.Context(), []byte("x"), nil)
			if !errors.As(err, &fe) || fe.Reason != c.want || !errors.Is(err, ErrInDoubt) {
				t.Errorf("the call: %v", err)
			}
			var ae *quic.ApplicationError
			if err := <-got; !errors.As(err, &ae) || Reason(ae.ErrorCode) != c.want {
				t.Errorf("the server was told %v", err)
			}
			if m := client.Metrics(); m.Late != 1 {
				t.Errorf("%+v", m)
			}
		})
	}
}
