package netquic

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"kvd/lsm/procs"
)

// peerConn is one connection that a peer has opened. What it sends is read and handed on; nothing
// but the welcome is sent.
type peerConn struct {
	// Fixed.
	p    *Peers
	qc   *quic.Conn
	name string

	// Own synchronisation.
	ended atomic.Int64 // lanes
}

// run takes the peer's lanes until the connection ends.
func (c *peerConn) run() {
	defer c.p.s.wg.Done()
	var wg sync.WaitGroup
	if err := c.welcome(); err == nil {
		wg.Go(c.readDatagrams)
		for n := 0; ; n++ {
			stream, err := c.qc.AcceptStream(context.Background())
			if err != nil {
				break
			}
			if n == peerLanes {
				c.close(ReasonMalformed, "a third lane")
				break
			}
			wg.Go(newPeerLane(c, stream).read)
		}
	}
	<-c.qc.Context().Done()
	wg.Wait()
	c.p.counters.closed.count(context.Cause(c.qc.Context()))
	c.p.forget(c)
}

// welcome tells the peer that it has been let in.
func (c *peerConn) welcome() error {
	stream, err := c.qc.OpenUniStream()
	if err == nil {
		if _, err = stream.Write(appendMessage(nil, kindWelcome, nil)); err == nil {
			return stream.Close()
		}
	}
	c.close(ReasonMalformed, "no stream for a welcome")
	return err
}

func (c *peerConn) close(reason Reason, detail string) {
	if detail == "" {
		detail = reason.String()
	}
	c.qc.CloseWithError(quic.ApplicationErrorCode(reason), detail)
}

// fail closes the connection for bytes that are no frames.
func (c *peerConn) fail(err error) {
	if fe, ok := errors.AsType[*FrameError](err); ok {
		c.close(fe.Reason, fe.Detail)
	}
}

// readDatagrams takes datagrams, each of which is one whole frame.
func (c *peerConn) readDatagrams() {
	for {
		b, err := c.qc.ReceiveDatagram(context.Background()) // ends with the connection
		if err != nil {
			return
		}
		c.p.counters.bytesIn.Add(uint64(len(b)))
		f, n, _, err := parseFrame(b, peerSide, c.p.s.o.MaxFrameBytes)
		if err == nil && (n == 0 || n != len(b)) {
			err = &FrameError{ReasonMalformed, "a datagram that is not one frame"}
		}
		if err != nil {
			c.fail(err)
			return
		}
		if f.probe {
			continue
		}
		c.p.counters.datagramsIn.Add(1)
		c.p.counters.received.Add(1)
		c.p.h.HandlePeer(c.name, [][]byte{f.body})
	}
}

// peerLane is one long-lived stream of messages. One goroutine uses it.
type peerLane struct {
	c     *peerConn
	in    *frameReader
	slow  slowFrame
	batch [][]byte // the messages of the read buffer
}

func newPeerLane(c *peerConn, stream *quic.Stream) *peerLane {
	l := &peerLane{c: c, in: newFrameReader(stream, peerSide, c.p.s.o.MaxFrameBytes)}
	l.slow.limit = c.p.s.o.FrameTimeout
	l.slow.timer = stoppedTimer(func() { c.close(ReasonSlowFrame, "") })
	return l
}

func (l *peerLane) read() {
	defer l.slow.timer.Stop()
	for {
		n, err := l.in.fill()
		if err == nil {
			l.c.p.counters.bytesIn.Add(uint64(n))
			err = l.handOn()
		}
		if err != nil {
			l.end(err)
			return
		}
	}
}

// handOn gives the handler all whole frames of the read buffer.
func (l *peerLane) handOn() error {
	l.batch = l.batch[:0]
	var f frame
	var ok bool
	var err error
	for {
		if f, ok, err = l.in.next(); !ok || err != nil {
			break
		}
		l.slow.whole()
		if !f.probe {
			l.batch = append(l.batch, f.body)
		}
	}
	if len(l.batch) > 0 {
		l.c.p.h.HandlePeer(l.c.name, l.batch)
		procs.Other()
		l.c.p.counters.received.Add(uint64(len(l.batch)))
		clear(l.batch) // it may be the last reference to a large buffer
	}
	if err == nil {
		l.slow.rest(l.in.partial())
	}
	return err
}

// end handles the end of the lane. A peer that shuts down ends both, and has then been read whole.
func (l *peerLane) end(err error) {
	switch {
	case !errors.Is(err, io.EOF):
		l.c.fail(err)
	case l.in.partial() > 0:
		l.c.close(ReasonTruncated, "")
	case l.c.ended.Add(1) == peerLanes:
		l.c.close(ReasonDone, "")
	}
}
