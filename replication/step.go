package replication

import (
	"context"
	"sync"
	"time"
)

// stepping is what is under way between the core and everything around it: what has happened, and
// what the core wants done about it. It is pooled with its memory.
type stepping struct {
	events   []Event
	effects  []Effect
	answered []answeredCall
	unsynced []*Work // done and visible, not yet durable
}

type answeredCall struct {
	pendingCall
	resp []byte
}

var steppingPool = sync.Pool{New: func() any { return new(stepping) }}

// step gives the core events and carries out what it wants.
func (c *Cluster) step(events ...Event) {
	s := steppingPool.Get().(*stepping)
	s.events = append(s.events, events...)
	c.drive(s)
}

// drive gives the core the events of s and carries out what it wants, outside its lock. Work that
// is done at once is an event again. What came together stays together on its way: the requests of
// one packet and the writes they make, their messages to one peer, the acknowledgements, answers.
// Packets and system calls are what a request costs most: see docs/benchmarks.md.
func (c *Cluster) drive(s *stepping) {
	for len(s.events)+len(s.answered) > 0 {
		c.react(s)
		c.carryOut(s)
	}
	// The core has seen all of it, and what peers are to do meanwhile is on its way to them.
	for i, w := range s.unsynced {
		c.synced[w.Durability].add(w)
		s.unsynced[i] = nil
	}
	s.unsynced = s.unsynced[:0]
	steppingPool.Put(s)
}

// react lets the core react to the events of s, and answers clients.
func (c *Cluster) react(s *stepping) {
	c.mu.Lock()
	now := c.instant()
	for i := range s.events {
		s.effects = append(s.effects, c.core.Step(now, s.events[i])...)
	}
	if next := c.core.NextWake(); next < c.sleeping {
		c.sleeping = next
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	for i := range s.effects {
		e := &s.effects[i]
		if e.Kind != EffectAnswer {
			continue
		}
		if p, ok := c.waiting[e.Token]; ok {
			delete(c.waiting, e.Token)
			s.answered = append(s.answered, answeredCall{p, e.Answer})
		}
	}
	c.mu.Unlock()
	c.answer(s.answered)
	clear(s.answered)
	s.answered = s.answered[:0]
	clear(s.events)
	s.events = s.events[:0]
}

// answer gives clients their answers.
func (c *Cluster) answer(all []answeredCall) {
	if len(all) == 0 {
		return
	}
	now := time.Now()
	for i := range all {
		a := &all[i]
		s := status(a.resp[0])
		ok := s == statusOK || s == statusNotFound
		c.node.ops[a.kind].record(now.Sub(a.began), ok)
		a.answer(a.resp)
	}
}

// carryOut sends messages and does work, or hands it to the workers when it may have to wait.
func (c *Cluster) carryOut(s *stepping) {
	for i := range s.effects {
		switch e := &s.effects[i]; e.Kind {
		case EffectSend:
			c.options.Send(e.To, e.Class, e.Message)
		case EffectWork:
			sync, done := c.replica.TryDo(e.Work)
			if !done {
				c.enqueue(e.Work)
				continue
			}
			s.done(e.Work, sync)
		}
	}
	clear(s.effects)
	s.effects = s.effects[:0]
}

// enqueue hands work to the workers. When they are so far behind that the queue is full, whoever
// made the work does it: that is what slows down those who ask for too much.
func (c *Cluster) enqueue(w *Work) {
	select {
	case c.work <- w:
	default:
		c.do(w)
	}
}

func (c *Cluster) workLoop(ctx context.Context) {
	for {
		select {
		case w := <-c.work:
			c.do(w)
		case <-ctx.Done():
			return
		}
	}
}

func (c *Cluster) do(w *Work) {
	sync := c.replica.Do(w)
	if w.For == forNothing {
		return
	}
	s := steppingPool.Get().(*stepping)
	s.done(w, sync)
	c.drive(s)
}

// done makes an event of work that is visible now. The core has the Work until it has seen that; if
// it has to be durable as well, the syncer gets it afterwards and gives it back once more.
func (s *stepping) done(w *Work, sync bool) {
	s.events = append(s.events, Event{Kind: EventWork, Work: w})
	if sync {
		s.unsynced = append(s.unsynced, w)
	}
}
