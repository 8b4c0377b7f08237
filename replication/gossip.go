package replication

import (
	"math"
	"slices"
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
	if c.now.Since < c.members.Next() {
		return
	}
	c.asking = c.asking && c.now.Since < c.cfg.FreshWait
	c.settleLife()
	for _, id := range c.members.Tick(c.now.Since) {
		c.sendGossip(id, true)
	}
}

func (c *Core) sendGossip(to NodeID, wantReply bool) {
	if c.ready { // it may have been raised since
		c.members.table[c.members.self].incarnation = c.replica.incarnation.Load()
	}
	c.members.empty = c.cfg.Empty && c.replica.changed.Load() == 0
	for _, m := range c.place.Members {
		c.members.Lived(m.ID, c.replica.lives.of(m.ID.Number()))
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
	if !slices.ContainsFunc(rows, func(r gossipRow) bool { return r.number == from.Number() }) {
		c.hasAllOf(from, c.sync.shared[from]...) // its disk is empty
	}
	own := c.members.Receive(c.now.Since, from, rows)
	if wantReply {
		c.sendGossip(from, false)
	}
	mine := c.replica.incarnation.Load()
	later := own > mine || own == mine && !c.ready
	if later && own < math.MaxUint32 && own >= c.life {
		c.Counts.LivesForgotten++
		c.ready, c.life = false, own+1
	}
	if c.asking && !wantReply { // an answer to a question of ours
		c.answeredBy[from] = true
		c.asking = len(c.answeredBy) < len(c.place.Members)-1
	}
	c.settleLife()
}

// settleLife makes it durable in which of its lives this node is, once there is nobody left to ask.
// It gives out no dots before.
func (c *Core) settleLife() {
	if c.ready || c.asking || c.raising {
		return
	}
	c.raising = true
	c.do(&Work{Kind: WorkIncarnation, For: forIncarnation,
		Number: max(c.life, c.replica.incarnation.Load())})
}

func (c *Core) incarnationRaised(w *Work) {
	c.raising = false
	if w.Result.Err != nil {
		return // the next gossip tries again
	}
	c.ready = w.Number >= c.life
	c.members.quiet = c.members.quiet && !c.ready
	c.settleLife()
}
