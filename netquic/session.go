package netquic

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// session is one established connection of a client.
type session struct {
	// Fixed after newSession.
	c     *Client
	qc    *quic.Conn
	lanes []*clientLane

	// Own synchronisation.
	next     atomic.Uint32 // lane of the next call
	retired  atomic.Bool   // takes no new calls: the server is shutting down, or it is over
	draining atomic.Bool   // the server has said that it executes nothing new
	waiting  atomic.Int64  // calls in flight
}

// newSession opens the lanes of a connection.
func newSession(c *Client, qc *quic.Conn) (*session, error) {
	s := &session{c: c, qc: qc}
	for range c.o.Lanes {
		stream, err := qc.OpenStream()
		if err != nil {
			return nil, err
		}
		l := &clientLane{s: s}
		l.in = newFrameReader(stream, clientSide, c.o.MaxFrameBytes)
		l.out = newGroupWriter(stream, &s.waiting)
		l.slots.Store(new([]*call))
		s.lanes = append(s.lanes, l)
	}
	for _, l := range s.lanes {
		c.wg.Add(2)
		go l.read()
		go l.write()
	}
	return s, nil
}

func (s *session) lane() *clientLane {
	if len(s.lanes) == 1 {
		return s.lanes[0]
	}
	return s.lanes[s.next.Add(1)%uint32(len(s.lanes))]
}

// drain notes that the server is shutting down. When the last call has ended the connection is
// closed.
func (s *session) drain() {
	s.retired.Store(true)
	s.draining.Store(true)
}

// closeIfDrained closes a connection without calls in flight to a server that shuts down. A call
// that comes in between began after the server stopped executing, so it may be sent again.
func (s *session) closeIfDrained() {
	if s.draining.Load() && s.waiting.Load() == 0 {
		for _, l := range s.lanes {
			l.fail(errDraining, true)
		}
		s.close(ReasonDone, ReasonDone.String(), errDraining)
	}
}

// close ends the connection; waiting calls fail with cause, or are sent again when it says that the
// server has started none of them.
func (s *session) close(reason Reason, detail string, cause error) {
	s.retired.Store(true)
	for _, l := range s.lanes {
		l.fail(cause, isUnstarted(cause))
	}
	s.qc.CloseWithError(quic.ApplicationErrorCode(reason), detail)
}

func (s *session) ended() bool { return s.qc.Context().Err() != nil }

// clientLane is one long-lived stream of calls. Callers queue their requests on out; the reading
// goroutine hands each answer to the caller that waits under its id.
type clientLane struct {
	s   *session
	in  *frameReader
	out *groupWriter

	slots atomic.Pointer[[]*call] // by index; grows, never shrinks; replaced under out.mu

	// Guarded by out.mu.
	free []*call
}

// begin queues a request and returns its call. While too much is queued it waits, but not longer
// than the caller may. A lane that takes no more calls returns errDraining.
func (l *clientLane) begin(ctx context.Context, deadline time.Time, req, dst []byte) (
	*call, error) {
	w := l.out
	bytes := requestBytes + len(req)
	room := w.roomFor(bytes)
	taken, err := room.enter(ctx, deadline, bytes)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != writerOpen {
		room.free.Release(taken)
		return nil, errDraining
	}
	k := l.slotLocked()
	if k == nil {
		room.free.Release(taken)
		return nil, ErrOverloaded
	}
	room.queued += taken
	k.id += maxSlots // the next use of this slot
	k.dst, k.err, k.retry, k.inDoubt = dst, nil, false, false
	k.batch, k.offset = w.taken, len(w.out)
	k.state.Store(k.id)
	l.s.waiting.Add(1)
	w.out = appendRequest(w.out, k.id, millisLeft(deadline), req)
	w.sends++
	w.work.Signal()
	return k, nil
}

// slotLocked returns a free slot, nil when there are no more.
func (l *clientLane) slotLocked() *call {
	if n := len(l.free); n > 0 {
		k := l.free[n-1]
		l.free = l.free[:n-1]
		return k
	}
	old := *l.slots.Load()
	n := len(old)
	if n == maxSlots {
		return nil
	}
	k := &call{index: uint64(n), id: uint64(n), done: make(chan struct{}, 1)}
	if n < cap(old) {
		grown := append(old, k) // readers of the old header do not look beyond its length
		l.slots.Store(&grown)
	} else {
		grown := make([]*call, n+1, max(16, 2*n))
		copy(grown, old)
		grown[n] = k
		l.slots.Store(&grown)
	}
	return k
}

// end gives the slot back.
func (l *clientLane) end(k *call) {
	k.dst, k.err = nil, nil
	k.state.Store(callFree)
	l.out.mu.Lock()
	l.free = append(l.free, k)
	l.out.mu.Unlock()
	if l.s.waiting.Add(-1) == 0 {
		l.s.closeIfDrained()
	}
}

// call makes one call on this lane. With retry it certainly had no effect and may be made on
// another connection.
func (l *clientLane) call(ctx context.Context, deadline time.Time, timed bool, req, dst []byte) (
	resp []byte, retry bool, err error) {
	k, err := l.begin(ctx, deadline, req, dst)
	if err == errDraining {
		return dst, true, err
	}
	if err != nil {
		return dst, false, &CallError{Addr: l.s.c.addr, Err: err}
	}
	defer l.end(k)
	if err := k.wait(ctx, deadline, timed); err != nil {
		return dst, false, &CallError{Addr: l.s.c.addr, InDoubt: !l.withdraw(k), Err: err}
	}
	if k.err != nil {
		if k.retry {
			return dst, true, k.err
		}
		return dst, false, &CallError{Addr: l.s.c.addr, InDoubt: k.inDoubt, Err: k.err}
	}
	switch k.status {
	case statusOK:
		return k.dst, false, nil
	case statusError:
		body := k.dst[len(dst):]
		return dst, false, &RemoteError{Code: binary.LittleEndian.Uint32(body),
			Message: string(body[errorBytes:])}
	case statusOverloaded:
		return dst, false, &CallError{Addr: l.s.c.addr, Err: ErrOverloaded}
	case statusDraining:
		l.s.drain()
		return dst, true, errDraining
	case statusExpired:
		return dst, false, &CallError{Addr: l.s.c.addr, Err: errExpired}
	default:
		return dst, false, &CallError{Addr: l.s.c.addr, InDoubt: true, Err: ErrAnswerTooLarge}
	}
}

// withdraw makes a request that still waits to be written one that the server will not execute, by
// setting the time it has left to zero. It tells whether it came in time.
func (l *clientLane) withdraw(k *call) bool {
	w := l.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken != k.batch || w.state != writerOpen {
		return false
	}
	clear(w.out[k.offset+prefixBytes:][:requestBytes-prefixBytes])
	return true
}

func (l *clientLane) write() {
	defer l.s.c.wg.Done()
	if err := l.out.run(); err != nil && err != errLaneDead {
		l.s.close(ReasonDone, "", l.cause(err))
	}
}

// read is the reading goroutine.
func (l *clientLane) read() {
	defer l.s.c.wg.Done()
	for {
		_, err := l.in.fill()
		for err == nil {
			var f frame
			var ok bool
			if f, ok, err = l.in.next(); !ok {
				break
			}
			l.deliver(f)
		}
		if err != nil {
			l.ended(err)
			return
		}
	}
}

// deliver hands an answer to its caller. Answers nobody waits for any more are counted.
func (l *clientLane) deliver(f frame) {
	slots := *l.slots.Load()
	i := f.id % maxSlots
	if i >= uint64(len(slots)) || f.id < maxSlots || !slots[i].take(f.id) {
		l.s.c.counters.late.Add(1)
		return
	}
	k := slots[i]
	k.status = f.status
	k.dst = append(k.dst, f.body...)
	k.done <- struct{}{}
}

// ended handles the end of the lane. A clean one says that the server shuts down and that what it
// has not answered it has not executed.
func (l *clientLane) ended(err error) {
	var fe *FrameError
	switch {
	case errors.As(err, &fe):
		l.s.close(fe.Reason, fe.Detail, err)
	case errors.Is(err, io.EOF) && l.in.partial() > 0:
		l.s.close(ReasonTruncated, ReasonTruncated.String(),
			&FrameError{ReasonTruncated, "the lane ended inside a frame"})
	case errors.Is(err, io.EOF):
		l.s.drain()
		l.fail(errDraining, true)
		l.s.closeIfDrained()
	default:
		l.s.close(ReasonDone, "", l.cause(err))
	}
}

func (l *clientLane) cause(err error) error {
	if cause := context.Cause(l.s.qc.Context()); cause != nil {
		err = cause
	}
	return closeCause(err)
}

// fail ends the lane and all calls waiting on it. Calls may be sent again when the server has
// vouched for not having executed them, or when they had not been given to the stream yet. It may
// be called more than once, and must do its work on a dead lane too: a writer that noticed first
// has ended the lane, but has woken nobody.
func (l *clientLane) fail(cause error, vouched bool) {
	w := l.out
	w.mu.Lock()
	taken := w.taken
	w.dieLocked()
	w.mu.Unlock()
	for _, k := range *l.slots.Load() {
		id := k.state.Load()
		if id == callFree || id == callTaken || !k.take(id) {
			continue
		}
		k.err = cause
		k.retry = vouched || k.batch == taken
		k.inDoubt = !k.retry
		k.done <- struct{}{}
	}
}
