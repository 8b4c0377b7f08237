package netquic

import (
	"sync"
	"time"
)

// Deferrer is a Handler that can do what a request asks for without waiting, but must wait before
// the answer may be given: for a disk, say. One wait then serves all requests that have come
// meanwhile, and none of them needs a goroutine.
type Deferrer interface {
	Handler
	// TryDefer is asked about requests that TryCall has declined, in the same way: on the goroutine
	// that reads the lane, which it must not block. With ok it has done what was asked, and the
	// answer it has appended to dst goes out after a Settle that begins later and is given the tag.
	// With ok false the request goes to Call.
	TryDefer(req, dst []byte) (resp []byte, tag byte, ok bool)
	// Settle waits until answers may go out: those to requests with the given tags, which arrived
	// at the given times. What it returns, unless it is nil, is given to all of them instead. It
	// runs once at a time for each lane, and is not given up when callers or connections are gone.
	// The slices are valid until return.
	Settle(tags []byte, arrived []time.Time) (instead []byte)
}

// deferred are calls of one lane whose answers wait for Settle.
type deferred struct {
	ids     []uint64
	tags    []byte
	arrived []time.Time
	answers []byte // whole frames, in the same order
}

func (d *deferred) add(other *deferred) {
	d.ids = append(d.ids, other.ids...)
	d.tags = append(d.tags, other.tags...)
	d.arrived = append(d.arrived, other.arrived...)
	d.answers = append(d.answers, other.answers...)
}

// reset empties it and keeps its memory, unless that is much.
func (d *deferred) reset() {
	if cap(d.answers) > retainBufferBytes || cap(d.ids) > retainBufferBytes/responseBytes {
		*d = deferred{}
	}
	d.ids, d.tags, d.arrived = d.ids[:0], d.tags[:0], d.arrived[:0]
	d.answers = d.answers[:0]
}

// replace gives all calls the same answer.
func (d *deferred) replace(answer []byte, maxBytes int) {
	d.answers = d.answers[:0]
	for _, id := range d.ids {
		start := len(d.answers)
		d.answers = append(openResponse(d.answers, id, statusOK), answer...)
		d.answers = finish(d.answers, start, id, maxBytes)
	}
}

// settler settles what was deferred on one lane: a group at a time, while the next one gathers.
//
// Callers who ask again when they are answered would stay two groups for ever, each gathering while
// the other is settled, and every group costs a sync, packets and waking threads. So the next group
// waits for those just answered to join it, as long as that works and the last one took long.
// Durable PUTs over loopback by 8, 16 and 64 callers, in turn, twice, in thousands a second: 17.7
// 18.2, 31.9 34.0, 95.5 95.2 without; 20.0 20.1, 36.4 37.5, 102 101 with it.
type settler struct {
	l *serverLane

	mu     sync.Mutex
	work   sync.Cond
	next   deferred
	enough int  // take is waiting for so many calls
	late   bool // and has waited long enough
	ended  bool // no more will come

	// Of the goroutine that runs.
	all    int // calls answered last, and those gathered by then: joinEnough at most
	timer  *time.Timer
	futile int // groups that will not wait, since one did in vain
	again  int // so many the next time
}

const (
	// The longest wait for those just answered; where nothing else runs, timers come after 1 ms.
	joinAfter = 300 * time.Microsecond
	// So many are enough: 128 and 256 callers who wait for all get 7 and 12 % fewer answers.
	joinEnough = 64
	// What takes less to settle is done for each group as it has come: handing the log to the
	// operating system, say, and not a sync.
	joinWorth = 50 * time.Microsecond
	// Groups between two that wait in vain: this many, and twice as many each time up to the other.
	joinFutileMin = 16
	joinFutileMax = 256
)

func newSettler(l *serverLane) *settler {
	s := &settler{l: l, enough: 1, again: joinFutileMin}
	s.work.L = &s.mu
	s.timer = time.AfterFunc(time.Hour, s.tooLate)
	s.timer.Stop()
	return s
}

// tooLate may come when take waits for another group already. That one then counts as in vain.
func (s *settler) tooLate() {
	s.mu.Lock()
	s.late = true
	s.work.Signal()
	s.mu.Unlock()
}

// add takes the calls of a read batch, and leaves d empty.
func (s *settler) add(d *deferred) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.next.ids) == 0 {
		s.next, *d = *d, s.next
	} else {
		s.next.add(d)
	}
	d.reset()
	if len(s.next.ids) >= s.enough {
		s.work.Signal()
	}
}

// end lets run return when everything is settled.
func (s *settler) end() {
	s.mu.Lock()
	s.ended = true
	s.work.Signal()
	s.mu.Unlock()
}

func (s *settler) run() {
	c := s.l.c
	defer c.s.wg.Done()
	var group deferred
	for s.take(&group) {
		began := time.Now()
		if instead := c.s.deferrer.Settle(group.tags, group.arrived); instead != nil {
			group.replace(instead, c.s.o.MaxFrameBytes)
		}
		s.count(&group, time.Since(began))
		c.s.counters.bytesOut.Add(uint64(len(group.answers)))
		group.answers = s.l.out.sendSwap(group.answers, len(group.ids))
		for range group.ids {
			c.release(0)
		}
	}
}

// count notes how many the next group waits for, before the callers of this one, which took so long
// to settle, are answered and some of them are back.
func (s *settler) count(group *deferred, took time.Duration) {
	s.mu.Lock()
	s.all = 0
	if took >= joinWorth {
		s.all = min(len(group.ids)+len(s.next.ids), joinEnough)
	}
	s.mu.Unlock()
}

// take replaces a group that is done by the one that has gathered. It waits for one, and returns
// false when none will come.
func (s *settler) take(group *deferred) bool {
	group.reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaitLocked(1)
	if s.futile > 0 {
		s.futile--
	} else if len(s.next.ids) < s.all && !s.ended {
		s.timer.Reset(joinAfter)
		s.awaitLocked(s.all)
		s.timer.Stop()
		if len(s.next.ids) >= s.all {
			s.again = joinFutileMin
		} else {
			s.futile = s.again
			s.again = min(2*s.again, joinFutileMax)
		}
	}
	s.next, *group = *group, s.next
	return len(group.ids) > 0
}

// awaitLocked waits for n calls.
func (s *settler) awaitLocked(n int) {
	s.enough, s.late = n, false
	for len(s.next.ids) < n && !s.ended && !(s.late && n > 1) {
		s.work.Wait()
	}
	s.enough = 1
}
