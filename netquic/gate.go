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

// answerGate bounds the answers of a connection that Handler.Call or Starter.Start has given or is
// about to give and its client has not taken: while they exceed the limit, further calls wait
// before they start, and hold their requests only. How large it will be is known afterwards, so a
// call reserves what answers to its kind of request took of late: calls with small answers run
// together in thousands, 16 at a time those that read a page of 1 MiB. Requests are of a kind when
// their first bytes are equal, which is a guess; it costs nothing when it is wrong but a worse
// estimate. One mean for all kinds let 300 pages through at once behind small answers.
//
// One call may always run. Those who wait are let in in turn, the small ones before pages. All
// methods may be called by many goroutines; they allocate nothing but for those who wait.
type answerGate struct {
	limit int64 // fixed by open

	means [256]atomic.Int64 // bytes of an answer, of late, by kind
	held  atomic.Int64      // bytes, reserved or of answers; changed under mu

	mu           sync.Mutex
	small, large jobQueue // those who wait
	ended        bool     // nobody waits any more
}

// jobQueue is jobs in the order of their coming, linked by job.behind.
type jobQueue struct{ first, last *job }

func (q *jobQueue) push(j *job) {
	if q.first == nil {
		q.first = j
	} else {
		q.last.behind = j
	}
	q.last = j
}

func (q *jobQueue) pop() *job {
	j := q.first
	q.first, j.behind = j.behind, nil
	return j
}

func (g *answerGate) open(limit int64) {
	g.limit = limit
	for i := range g.means {
		g.means[i].Store(limit / firstShare)
	}
}

// kindOf returns the kind of a request.
func kindOf(req []byte) byte {
	if len(req) == 0 {
		return 0
	}
	return req[0]
}

// tryEnter lets the call start if nobody waits and there is room for its answer.
func (g *answerGate) tryEnter(j *job) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.small.first == nil && g.large.first == nil && g.reserveLocked(j)
}

// enter waits until the call may start.
func (g *answerGate) enter(j *job) {
	g.mu.Lock()
	q := &g.large
	if g.means[j.kind].Load() <= smallBytes {
		q = &g.small
	}
	if q.first == nil && g.reserveLocked(j) {
		g.mu.Unlock()
		return
	}
	j.turn = make(chan struct{}, 1)
	q.push(j)
	g.mu.Unlock()
	<-j.turn
}

// reserveLocked takes what j is expected to need, if there is as much.
func (g *answerGate) reserveLocked(j *job) bool {
	n, held := g.means[j.kind].Load(), g.held.Load()
	if held > 0 && held+n > g.limit && !g.ended {
		return false
	}
	j.reserved = n
	g.held.Store(held + n)
	return true
}

// answered replaces the reservation of a call by the bytes of its answer. What the handler has not
// given, an error or that the call had expired, says nothing of its kind: forty in a row let 3328
// pages in at once.
func (g *answerGate) answered(j *job, bytes int64) {
	if j.called {
		mean := &g.means[j.kind]
		last := mean.Load()
		mean.Store(last + (bytes-last)/meanWeight) // a lost update of two at once does no harm
	}
	g.add(bytes - j.reserved)
}

// leave takes an answer out that the lane's writer has, or that nobody wants any more.
func (g *answerGate) leave(bytes int64) { g.add(-bytes) }

func (g *answerGate) add(bytes int64) {
	g.mu.Lock()
	g.held.Add(bytes)
	g.letInLocked()
	g.mu.Unlock()
}

// letInLocked starts those who have waited longest, as far as there is room.
func (g *answerGate) letInLocked() {
	for _, q := range [...]*jobQueue{&g.small, &g.large} {
		for q.first != nil && g.reserveLocked(q.first) {
			q.pop().turn <- struct{}{}
		}
	}
}

// end starts all who wait, and lets nobody wait any more: the connection has ended, and calls see
// that by themselves.
func (g *answerGate) end() {
	g.mu.Lock()
	g.ended = true
	g.letInLocked()
	g.mu.Unlock()
}
