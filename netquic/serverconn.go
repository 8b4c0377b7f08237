package netquic

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"kvd/lsm/procs"
)

// serverConn is one connection of a client.
type serverConn struct {
	// Fixed after newServerConn.
	s   *Server
	qc  *quic.Conn
	ctx context.Context // ends with the connection

	// Own synchronisation.
	calls atomic.Int64 // in Handler.Call, or waiting for it or for Settle, or started
	bytes atomic.Int64 // of their requests

	answers answerGate // of calls that Handler.Call answers, or that were started

	mu    sync.Mutex
	lanes []*serverLane
	ended bool // endLanes was called: new lanes end at once
}

func newServerConn(s *Server, qc *quic.Conn) *serverConn {
	c := &serverConn{s: s, qc: qc, ctx: qc.Context()}
	c.answers.open(s.o.MaxInFlightBytes / answerShare)
	return c
}

// run takes the client's lanes until the connection ends.
func (c *serverConn) run() {
	defer c.s.wg.Done()
	for {
		stream, err := c.qc.AcceptStream(context.Background())
		if err != nil {
			break
		}
		l := newServerLane(c, stream)
		c.mu.Lock()
		c.lanes = append(c.lanes, l)
		ended := c.ended
		c.mu.Unlock()
		if ended {
			l.out.close()
		}
		c.s.wg.Add(2)
		go l.read()
		go l.write()
	}
	<-c.ctx.Done()
	c.answers.end()
	c.s.counters.closed.count(context.Cause(c.ctx))
	c.s.forget(c)
}

func (c *serverConn) close(reason Reason, detail string) {
	if detail == "" {
		detail = reason.String()
	}
	c.qc.CloseWithError(quic.ApplicationErrorCode(reason), detail)
}

// endLanes ends all lanes once what is queued on them is written: the client then knows that
// whatever it got no answer for was not executed. It tells whether there were any.
func (c *serverConn) endLanes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for _, l := range c.lanes {
		l.out.close()
	}
	return len(c.lanes) > 0
}

// admit takes a call of this connection in, or tells that there are too many.
func (c *serverConn) admit(bytes int) bool {
	calls, held := c.calls.Add(1), c.bytes.Add(int64(bytes))
	held += c.answers.held.Load()
	if calls == 1 || calls <= int64(c.s.o.MaxInFlight) && held <= c.s.o.MaxInFlightBytes {
		c.s.enter()
		c.s.counters.inFlight.Add(1)
		return true
	}
	c.calls.Add(-1)
	c.bytes.Add(-int64(bytes))
	return false
}

func (c *serverConn) release(bytes int) {
	c.calls.Add(-1)
	c.bytes.Add(-int64(bytes))
	c.s.counters.inFlight.Add(-1)
	c.s.leave()
}

// serverLane is one long-lived stream of calls. Its reading goroutine parses requests, answers
// what needs no waiting, does what only waits for a disk, whose answers its settling goroutine lets
// out, begins what is answered later, and hands the rest to workers; its writing goroutine sends
// the answers.
type serverLane struct {
	c      *serverConn
	stream *quic.Stream
	in     *frameReader
	out    *groupWriter

	// Of the reading goroutine.
	answers  []byte   // of the current read batch, not yet queued
	count    int      // of answers
	deferred deferred // of the current read batch
	settler  *settler // nil before the first of them
	starting starting // of the current read batch
	slow     slowFrame
}

func newServerLane(c *serverConn, stream *quic.Stream) *serverLane {
	l := &serverLane{c: c, stream: stream}
	l.in = newFrameReader(stream, serverSide, c.s.o.MaxFrameBytes)
	l.out = newGroupWriter(stream, &c.calls)
	l.out.limit = c.s.o.FrameTimeout
	l.out.stall = stoppedTimer(func() { c.close(ReasonSlowReader, "") })
	l.slow.limit = c.s.o.FrameTimeout
	l.slow.timer = stoppedTimer(func() { c.close(ReasonSlowFrame, "") })
	return l
}

func stoppedTimer(f func()) *time.Timer {
	t := time.AfterFunc(time.Hour, f)
	t.Stop()
	return t
}

func (l *serverLane) write() {
	defer l.c.s.wg.Done()
	if err := l.out.run(); err != nil {
		l.out.stall.Stop()
		l.stream.CancelRead(0) // a lane that cannot answer takes no requests
	}
}

// read is the reading goroutine.
func (l *serverLane) read() {
	defer l.c.s.wg.Done()
	defer l.slow.timer.Stop()
	defer func() {
		if l.settler != nil {
			l.settler.end()
		}
	}()
	for {
		n, err := l.in.fill()
		if err != nil {
			l.ended(err)
			return
		}
		l.c.s.counters.bytesIn.Add(uint64(n))
		if err := l.batch(time.Now()); err != nil {
			var fe *FrameError
			if errors.As(err, &fe) {
				l.c.close(fe.Reason, fe.Detail)
			}
			l.out.die()
			return
		}
	}
}

// ended handles the end of what the client sends on this lane.
func (l *serverLane) ended(err error) {
	switch {
	case !errors.Is(err, io.EOF):
		l.out.die()
	case l.in.partial() > 0:
		l.out.die()
		l.c.close(ReasonTruncated, "")
	default:
		l.out.close() // answers of calls still running are dropped: nobody reads them
	}
}

// settleAfter is for how long what has been deferred, or is to be started, waits for the rest of
// its batch at most.
const settleAfter = 200 * time.Microsecond

// batch handles all whole frames of the read buffer and queues their answers at once, those that
// have to wait with the settler.
func (l *serverLane) batch(now time.Time) error {
	s := l.c.s
	s.enter()
	defer s.leave()
	draining := s.draining.Load()
	var calls, inline, waiting uint64
	for frames := 1; ; frames++ {
		f, ok, err := l.in.next()
		if err != nil {
			l.start()
			l.settle() // what has been done
			return err
		}
		if !ok {
			break
		}
		l.slow.whole()
		l.count++
		switch {
		case draining:
			s.counters.drained.Add(1)
			l.answers = appendStatus(l.answers, f.id, statusDraining)
		case f.millis == 0:
			s.counters.expired.Add(1)
			l.answers = appendStatus(l.answers, f.id, statusExpired)
		default:
			calls++
			switch {
			case l.tryCall(f):
				inline++
			case !l.c.admit(len(f.body)):
				calls--
				s.counters.overloaded.Add(1)
				l.answers = appendStatus(l.answers, f.id, statusOverloaded)
			case l.tryDefer(f, now):
				inline++
				waiting++
				l.count--
			case l.tryStart(f, now):
				l.count--
			default:
				l.dispatch(f, now)
				l.count--
			}
		}
		if len(l.answers) >= readBufferBytes {
			l.flush()
		}
		// The rest of the batch may take long. The clock is for every 16th frame.
		if frames%16 == 0 && len(l.deferred.ids)+len(l.starting.reqs) > 0 &&
			time.Since(now) > settleAfter {
			l.start()
			l.settle()
		}
	}
	l.flush()
	l.start()
	l.settle()
	l.slow.rest(l.in.partial())
	if calls > waiting {
		procs.Other()
	}
	if calls > 0 {
		s.counters.calls.Add(calls)
	}
	if inline > 0 {
		s.counters.inline.Add(inline)
	}
	return nil
}

// tryCall lets the handler answer straight into the batch of answers.
func (l *serverLane) tryCall(f frame) bool {
	start := len(l.answers)
	head := openResponse(l.answers, f.id, statusOK)
	resp, ok := l.c.s.handler.TryCall(f.body, head)
	if !ok {
		l.answers = head[:start]
		return false
	}
	l.answers = finish(resp, start, f.id, l.c.s.o.MaxFrameBytes)
	return true
}

// tryDefer lets the handler answer a call that has been admitted into the batch of answers that
// wait for Settle.
func (l *serverLane) tryDefer(f frame, now time.Time) bool {
	d := l.c.s.deferrer
	if d == nil {
		return false
	}
	w := &l.deferred
	start := len(w.answers)
	head := openResponse(w.answers, f.id, statusOK)
	resp, tag, ok := d.TryDefer(f.body, head)
	if !ok {
		w.answers = head[:start]
		return false
	}
	w.answers = finish(resp, start, f.id, l.c.s.o.MaxFrameBytes)
	w.ids, w.tags = append(w.ids, f.id), append(w.tags, tag)
	w.arrived = append(w.arrived, now)
	l.c.bytes.Add(-int64(len(f.body))) // nobody needs the request any more
	return true
}

// settle hands what the batch has deferred to the goroutine that settles it.
func (l *serverLane) settle() {
	if len(l.deferred.ids) == 0 {
		return
	}
	if l.settler == nil {
		l.settler = newSettler(l)
		l.c.s.wg.Add(1)
		go l.settler.run()
	}
	l.settler.add(&l.deferred)
}

// finish completes the answer that starts at resp[start:] with an open response.
func finish(resp []byte, start int, id uint64, maxBytes int) []byte {
	if len(resp) < start+responseBytes {
		panic("netquic: the handler did not append its answer to dst")
	}
	if len(resp)-start > maxBytes {
		return appendStatus(resp[:start], id, statusTooLarge)
	}
	closeResponse(resp, start)
	return resp
}

// dispatch hands a request that has been admitted to a worker.
func (l *serverLane) dispatch(f frame, now time.Time) {
	j := takeJob(l, f)
	j.req = append(j.req[:0], f.body...)
	j.ctx.parent = l.c.ctx
	j.ctx.deadline = deadlineOf(f, now)
	l.c.s.workers.start(j)
}

// deadlineOf returns when the caller gives up.
func deadlineOf(f frame, now time.Time) time.Time {
	return now.Add(time.Duration(f.millis) * time.Millisecond)
}

func (l *serverLane) flush() {
	if len(l.answers) == 0 {
		return
	}
	l.c.s.counters.bytesOut.Add(uint64(len(l.answers)))
	l.answers = l.out.sendSwap(l.answers, l.count)
	l.count = 0
	if cap(l.answers) > retainBufferBytes {
		l.answers = nil
	}
}
