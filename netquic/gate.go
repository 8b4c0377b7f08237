package netquic

import (
	"sync"
	"sync/atomic"
)

const (
	answerShare = 4  // answers may take this part of MaxInFlightBytes
	firstShare  = 16 // and one of an unknown kind is expected to take this part of that
	meanWeight  = 8  // a mean follows the last so many answers
)

// answerGate bounds the answers of a connection that Handler.Call has given or is about to give and
// its client has not taken: while they exceed the limit, further calls wait before they start, and
// hold their requests only. How large an answer will be is known afterwards, so a call reserves
// what answers to its kind of request took of late: calls with small answers run together in
// thousands, 16 at a time those that read a page of 1 MiB. Requests are of a kind when their first
// bytes are equal, which is a guess; it costs nothing when it is wrong but a worse estimate. One
// mean for all kinds let 300 pages through at once behind small answers.
//
// One call may always run. All methods may be called by many goroutines; none allocates.
type answerGate struct {
	limit int64 // fixed by open

	held    atomic.Int64      // bytes, reserved or of answers
	means   [256]atomic.Int64 // bytes of an answer, of late, by kind
	waiting atomic.Int64      // calls; a change of held after which it is zero need wake nobody

	mu   sync.Mutex
	room sync.Cond
}

func (g *answerGate) open(limit int64) {
	g.limit = limit
	for i := range g.means {
		g.means[i].Store(limit / firstShare)
	}
	g.room.L = &g.mu
}

// kindOf returns the kind of a request.
func kindOf(req []byte) byte {
	if len(req) == 0 {
		return 0
	}
	return req[0]
}

// enter waits until the call may start, and returns what it has reserved. A call whose context has
// ended need not wait: it will not start.
func (g *answerGate) enter(ctx *callContext, kind byte) (reserved int64) {
	if n, ok := g.reserve(kind); ok {
		return n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting.Add(1)
	n, ok := g.reserve(kind)
	for ; !ok && ctx.Err() == nil; n, ok = g.reserve(kind) {
		g.room.Wait()
	}
	if g.waiting.Add(-1) > 0 {
		g.room.Signal() // the room may suffice for the next one too
	}
	return n
}

func (g *answerGate) reserve(kind byte) (n int64, ok bool) {
	n = g.means[kind].Load()
	for {
		held := g.held.Load()
		if held > 0 && held+n > g.limit {
			return 0, false
		}
		if g.held.CompareAndSwap(held, held+n) {
			return n, true
		}
	}
}

// answered replaces the reservation of a call by the bytes of its answer.
func (g *answerGate) answered(kind byte, reserved, bytes int64) {
	mean := g.means[kind].Load()
	g.means[kind].Store(mean + (bytes-mean)/meanWeight) // a lost update of two at once does no harm
	g.add(bytes - reserved)
}

// leave takes an answer out that the lane's writer has, or that nobody wants any more.
func (g *answerGate) leave(bytes int64) { g.add(-bytes) }

func (g *answerGate) add(bytes int64) {
	if g.held.Add(bytes); bytes < 0 && g.waiting.Load() > 0 {
		g.mu.Lock()
		g.room.Signal()
		g.mu.Unlock()
	}
}

// wake lets waiting calls see that their connection has ended.
func (g *answerGate) wake() {
	g.mu.Lock()
	g.room.Broadcast()
	g.mu.Unlock()
}
