package netquic

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// maxIdleWorkers is how many goroutines wait for the next call of Handler.Call; their stacks have
// grown to what calls need.
const maxIdleWorkers = 256

// workers runs calls that may block, each on a goroutine of its own, reused after it.
type workers struct {
	jobs chan *job // unbuffered: a send succeeds only when a worker waits
	idle atomic.Int64
	wg   sync.WaitGroup
}

// start runs j on a waiting worker or a new one.
func (w *workers) start(j *job) {
	select {
	case w.jobs <- j:
	default:
		w.wg.Add(1)
		go w.run(j)
	}
}

func (w *workers) run(j *job) {
	defer w.wg.Done()
	for {
		j.serve()
		if w.idle.Add(1) > maxIdleWorkers {
			w.idle.Add(-1)
			return
		}
		next, ok := <-w.jobs
		w.idle.Add(-1)
		if !ok {
			return
		}
		j = next
	}
}

// stop ends idle workers and waits for all. No start may come later.
func (w *workers) stop() {
	close(w.jobs)
	w.wg.Wait()
}

// job is one call on its way through Handler.Call or Starter.Start. Jobs are pooled with their
// buffers.
type job struct {
	lane  *serverLane
	id    uint64
	kind  byte   // of the request
	bytes int    // of the request
	req   []byte // for Handler.Call
	resp  []byte
	ctx   *callContext
	give  func(resp []byte) // answerStarted: made once

	called bool // the handler has given resp
	given  bool // it was Start

	// Of the answerGate.
	reserved int64
	turn     chan struct{} // one token when it need wait no longer; of this wait
	behind   *job          // waits next
}

var jobs = sync.Pool{New: func() any {
	return &job{ctx: new(callContext)}
}}

func takeJob(l *serverLane, f frame) *job {
	j := jobs.Get().(*job)
	if j.give == nil {
		j.give = j.answerStarted
	}
	j.lane, j.id, j.kind, j.bytes = l, f.id, kindOf(f.body), len(f.body)
	j.called, j.given = false, false
	return j
}

// serve runs the call, unless its answer is there already, and queues the answer.
func (j *job) serve() {
	l := j.lane
	if !j.given {
		gate := &l.c.answers
		gate.enter(j)
		j.resp = j.answer()
		gate.answered(j, int64(len(j.resp)))
	}
	l.out.send(j.resp)
	j.sent()
}

// sent ends a call whose answer has been queued.
func (j *job) sent() {
	c, started := j.lane.c, j.given
	c.s.counters.bytesOut.Add(uint64(len(j.resp)))
	c.answers.leave(int64(len(j.resp)))
	c.release(j.bytes)
	j.recycle()
	if started {
		c.s.wg.Done()
	}
}

// recycle gives the job back.
func (j *job) recycle() {
	if cap(j.req) > retainBufferBytes {
		j.req = nil
	}
	if cap(j.resp) > retainBufferBytes {
		j.resp = nil
	}
	j.lane = nil
	if j.ctx.end() {
		j.ctx = new(callContext)
	}
	jobs.Put(j)
}

func (j *job) answer() []byte {
	s := j.lane.c.s
	head := openResponse(j.resp[:0], j.id, statusOK)
	if j.ctx.Err() != nil {
		s.counters.expired.Add(1)
		return appendStatus(head[:0], j.id, statusExpired)
	}
	resp, err := s.handler.Call(j.ctx, j.req, head)
	j.called = err == nil
	if err == nil {
		return finish(resp, 0, j.id, s.o.MaxFrameBytes)
	}
	var remote *RemoteError
	if !errors.As(err, &remote) {
		remote = &RemoteError{Message: err.Error()}
	}
	message := remote.Message
	if room := s.o.MaxFrameBytes - responseBytes - errorBytes; len(message) > room {
		message = message[:room]
	}
	return appendError(head[:0], j.id, remote.Code, message)
}

// callContext is the context of one call: it ends with the caller's deadline or connection. It
// makes a timer and a channel only for a handler that asks for Done, so that the others pay
// nothing, and only for these it is not reused.
type callContext struct {
	parent   context.Context
	deadline time.Time

	mu     sync.Mutex
	inner  context.Context // made by the first Done
	cancel context.CancelFunc
}

func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.cancel = context.WithDeadline(c.parent, c.deadline)
	}
	return c.inner.Done()
}

func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner != nil {
		return c.inner.Err()
	}
	if err := c.parent.Err(); err != nil {
		return err
	}
	if !time.Now().Before(c.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

func (c *callContext) Value(key any) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner != nil {
		return c.inner.Value(key)
	}
	return nil
}

// end ends the context with its call. It tells whether the handler asked for Done: then somebody
// may still hold the context, and it cannot be used again.
func (c *callContext) end() (used bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		return false
	}
	c.cancel()
	return true
}
