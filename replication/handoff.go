package replication

import (
	"time"
)

// handoff gives a node what it is owed. Pages of hints are read and their objects sent, a window of
// them at a time; each hint goes when the node has acknowledged that it holds the object durably.
// The receiver sets the pace: the window grows while acknowledgements come soon and shrinks when
// they are late or refused.
type handoff struct {
	node     NodeID
	flying   map[uint64]handed // by the id of the write
	reading  bool
	page     []byte // the store key behind which the next page begins
	more     bool
	window   int
	next     time.Duration // not before
	failed   bool          // something of this window was refused or lost
	began    time.Duration // of the window
	doing    int           // hints being forgotten
	progress time.Duration // when one was last forgotten
}

// handed is an object on its way.
type handed struct {
	part   Partition
	key    []byte
	digest uint64
	size   int
}

const (
	handoffWindowMin = 4
	handoffWindowMax = 512
	handoffSoon      = 50 * time.Millisecond // a window answered within this may grow
	handoffLate      = 2 * time.Second       // a window not answered within this is given up
	handoffPause     = time.Second
)

// tickHandoff starts and watches the handoffs, one for each node.
func (c *Core) tickHandoff() {
	if c.cfg.off.hints || c.replica.hints.total.Load() == 0 && len(c.handoff) == 0 {
		return
	}
	for _, m := range c.place.Members {
		if m.ID == c.self {
			continue
		}
		h := c.handoff[m.ID]
		if h == nil {
			if c.replica.hints.of(m.ID.Number()) == 0 {
				continue
			}
			h = &handoff{node: m.ID, flying: make(map[uint64]handed), window: handoffWindowMin}
			c.handoff[m.ID] = h
		}
		h.tick(c)
	}
}

func (h *handoff) tick(c *Core) {
	if len(h.flying) > 0 && c.now.Since > h.began+handoffLate {
		for id := range h.flying {
			c.end(id)
		}
		clear(h.flying)
		h.failed = true
		h.windowDone(c)
	}
	if h.reading || len(h.flying) > 0 || h.doing > 0 || c.now.Since < h.next ||
		c.replica.hints.of(h.node.Number()) == 0 || !c.reachable(h.node) {
		return
	}
	h.reading = true
	c.do(&Work{Kind: WorkHintScan, For: forHandoff, From: h.node, Target: h.node.Number(),
		After: h.page, Limit: h.window})
}

// wake is of no use here: tick looks after everything.
func (h *handoff) wake(*Core) {}

func (c *Core) handoffWork(w *Work) {
	h := c.handoff[w.From]
	if w.Kind == WorkHintDone {
		h.doing--
		if w.Result.Changed {
			h.progress = c.now.Since
		}
		h.windowDone(c)
		return
	}
	h.reading = false
	if w.Result.Err != nil {
		h.failed = true
		h.windowDone(c)
		return
	}
	h.began, h.more, h.failed = c.now.Since, w.Result.More, false
	for _, e := range w.Result.Entries {
		h.page = appendHintKey(nil, h.node.Number(), e.part, e.key)
		if e.damaged {
			h.failed = true
			continue
		}
		if e.object == nil { // forgotten since: nothing is owed
			h.forget(c, handed{part: e.part, key: e.key})
			continue
		}
		id := c.newID()
		h.flying[id] = handed{e.part, e.key, e.digest, len(e.key) + len(e.object)}
		c.begin(id, h)
		c.Counts.HintsSent++
		c.Counts.HintBytesSent += uint64(len(e.key) + len(e.object))
		c.send(h.node, ClassBulk, &peerMessage{kind: peerWrite, id: id, flags: flagHandoff,
			durability: durabilityOfRepair, key: e.key, object: e.object})
	}
	h.windowDone(c)
}

// acked forgets a hint whose object has arrived.
func (h *handoff) acked(c *Core, from NodeID, m *peerMessage) {
	e, ok := h.flying[m.id]
	if !ok || from != h.node {
		return
	}
	delete(h.flying, m.id)
	c.end(m.id)
	if m.ack == ackOK {
		h.forget(c, e)
	} else {
		h.failed = true
	}
	h.windowDone(c)
}

func (h *handoff) forget(c *Core, e handed) {
	h.doing++
	c.do(&Work{Kind: WorkHintDone, For: forHandoff, From: h.node, Target: h.node.Number(),
		Part: e.part, Key: e.key, Digest: e.digest})
}

// windowDone sizes the next window when this one is over.
func (h *handoff) windowDone(c *Core) {
	if h.reading || len(h.flying) > 0 || h.doing > 0 {
		return
	}
	switch {
	case h.failed:
		h.window = max(h.window/2, handoffWindowMin)
		h.next = c.now.Since + handoffPause
	case c.now.Since-h.began < handoffSoon:
		h.window = min(2*h.window, handoffWindowMax)
	}
	if !h.more {
		h.page = nil
		h.next = max(h.next, c.now.Since+handoffPause/10)
	}
	h.failed = false
	h.tick(c)
}
