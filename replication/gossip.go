package replication

import (
	"math"
	"time"
)

// The part of the core that carries what Membership decides.

func (c *Core) newMembership(ids []NodeID) *Membership {
	m := newMembership(c.self, ids, c.cfg.Incarnation, c.cfg.GossipInterval, c.cfg.Rand)
	m.alone = c.cfg.off.confirm
	m.quiet = !c.ready
	return m
}

func (c *Core) verdict(id NodeID) Verdict      { return c.members.Verdict(id) }
func (c *Core) incarnationOf(id NodeID) uint32 { return c.members.Incarnation(id) }
func (c *Core) heard(id NodeID)                { c.members.Heard(c.now.Since, id) }
func (c *Core) nextGossip() time.Duration      { return c.members.Next() }

func (c *Core) tickGossip() {
	if !c.ready && !c.raising && c.now.Since >= c.cfg.FreshWait {
		c.becomeReady()
	}
	if c.now.Since < c.members.Next() {
		return
	}
	for _, id := range c.members.Tick(c.now.Since) {
		c.sendGossip(id, true)
	}
}

func (c *Core) sendGossip(to NodeID, wantReply bool) {
	if c.ready { // it may have been raised since
		c.members.table[c.members.self].incarnation = c.replica.incarnation.Load()
	}
	c.send(to, ClassGossip, &peerMessage{kind: peerGossip, body: c.members.Gossip(nil, wantReply)})
}

// gossip takes in a table. A node that others know in a later life than it knows itself has lost
// its disk, and goes on as the one after that.
func (c *Core) gossip(from NodeID, m *peerMessage) {
	rows, wantReply, err := decodeGossip(m.body)
	if err != nil {
		c.Counts.Malformed++
		return
	}
	own := c.members.Receive(c.now.Since, from, rows)
	if wantReply {
		c.sendGossip(from, false)
	}
	mine := c.replica.incarnation.Load()
	later := own > mine || own == mine && !c.ready
	if later && own < math.MaxUint32 && !c.raising {
		c.Counts.LivesForgotten++
		c.ready, c.raising = false, true // no dots before the incarnation is durable
		c.members.quiet = true
		c.do(&Work{Kind: WorkIncarnation, For: forIncarnation, Number: own + 1})
	}
	if c.ready || wantReply {
		return // not an answer to a question of ours
	}
	c.answeredBy[from] = true
	if !c.raising && len(c.answeredBy) == len(c.place.Members)-1 {
		c.becomeReady()
	}
}

// becomeReady lets a node take writes: it knows which of its lives this is.
func (c *Core) becomeReady() {
	c.ready = true
	c.members.quiet = false
	c.members.table[c.members.self].incarnation = c.replica.incarnation.Load()
}

func (c *Core) incarnationRaised(w *Work) {
	c.raising = false
	if w.Result.Err == nil { // else the next gossip tries again
		c.becomeReady()
	}
}
