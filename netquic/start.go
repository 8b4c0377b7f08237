package netquic

import "time"

// Starter is a Handler that can begin what a request asks for without waiting for anything, and
// give the answer when it is there. Such a call needs no goroutine that waits, and the calls that
// have come together stay together.
type Starter interface {
	Handler
	// Starts tells whether Start takes a request that TryCall has declined. It must not block
	// either; with false the request goes to Call.
	Starts(req []byte) bool
	// Start begins calls that have come together, at least one, on the goroutine that reads their
	// lane, which it must not block. Each has to be answered by its deadline, by one call of its
	// function in answers, which may come from any goroutine, also before Start returns. It copies
	// the answer and never waits. The slices and the requests are valid until return.
	//
	// Shutdown returns when all are answered, also after it has cut their callers off: whoever
	// wants it to end sooner than the deadlines, which are the callers', answers then.
	Start(reqs [][]byte, deadlines []time.Time, answers []func(resp []byte))
}

// startMost is how many calls wait at most for the rest of their read batch before they begin.
const startMost = 64

// starting are calls of one read batch that are about to begin.
type starting struct {
	reqs      [][]byte
	deadlines []time.Time
	answers   []func(resp []byte)
}

// tryStart puts a call that has been admitted with those that are about to begin, unless it is not
// for Start or there is no room for its answer: then it has to wait as a job.
func (l *serverLane) tryStart(f frame, now time.Time) bool {
	s := l.c.s.starter
	if s == nil || !s.Starts(f.body) {
		return false
	}
	j := takeJob(l, f)
	if !l.c.answers.tryEnter(j) {
		j.recycle()
		return false
	}
	l.c.s.wg.Add(1)
	w := &l.starting
	w.reqs = append(w.reqs, f.body)
	w.deadlines = append(w.deadlines, deadlineOf(f, now))
	w.answers = append(w.answers, j.give)
	if len(w.reqs) >= startMost {
		l.start()
	}
	return true
}

// start begins the calls that have gathered.
func (l *serverLane) start() {
	w := &l.starting
	if len(w.reqs) == 0 {
		return
	}
	l.c.s.starter.Start(w.reqs, w.deadlines, w.answers)
	clear(w.reqs)
	clear(w.answers)
	w.reqs, w.deadlines, w.answers = w.reqs[:0], w.deadlines[:0], w.answers[:0]
}

// answerStarted queues the answer of a call that was started. While there is no room for it in the
// queue of the lane a worker waits with it.
func (j *job) answerStarted(resp []byte) {
	l := j.lane
	j.called, j.given = true, true
	head := openResponse(j.resp[:0], j.id, statusOK)
	j.resp = finish(append(head, resp...), 0, j.id, l.c.s.o.MaxFrameBytes)
	l.c.answers.answered(j, int64(len(j.resp)))
	if !l.out.trySend(j.resp) {
		l.c.s.workers.start(j)
		return
	}
	j.sent()
}
