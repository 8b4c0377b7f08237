package replication

import (
	"slices"
	"time"
)

// getOp is a read that this node coordinates: the whole object from one replica, digests from R-1
// others. When they differ it asks for the whole objects, merges them, and brings the replicas that
// are behind up to date: with R above one before it answers, so that a later read never finds less.
type getOp struct {
	id      uint64
	waiters []waiter // equal reads that came before the first message was sent
	flight  flight
	next    []waiter // equal reads that came after: they need answers that are as new as they are
	op      Op
	part    Partition
	need    int
	left    []NodeID // replicas that were not asked yet, best first
	asked   []asked
	merged  Object
	merging bool          // all differing objects are here, repairs are under way
	recheck time.Duration // when it is looked again whether owners that were slow are away
}

// waiter is a read that waits for an answer until its deadline.
type waiter struct {
	from     origin
	deadline time.Duration
}

// flight names reads that may share their answers.
type flight struct {
	key    string
	level  Level
	strict bool
}

// asked is a replica that was asked.
type asked struct {
	node   NodeID
	state  askedState
	full   bool // the whole object was asked for
	hedged bool // somebody else was asked because it is slow
	sent   time.Duration
	digest uint64
	object Object // if full
}

type askedState uint8

const (
	askedWaiting askedState = iota
	askedAnswered
	askedRepairing // was behind, has been sent what it lacks
	askedCurrent   // holds the merged object now
	askedFailed
)

// startGet begins a read, or lets it share the next one of its kind. A read must not use answers
// that were asked for before it came: it could miss a write that was acknowledged in between.
func (c *Core) startGet(from origin, op Op, deadline time.Duration) {
	part := PartitionOf(op.Key)
	owners := c.place.Owners(part)
	need, err := op.Level.need(len(owners))
	if err != nil {
		c.refuse(from, err)
		return
	}
	f := flight{string(op.Key), op.Level, op.Strict}
	if g := c.flights[f]; g != nil {
		c.Counts.Shared++
		g.next = append(g.next, waiter{from, deadline})
		c.wakeAt(g.id, deadline)
		return
	}
	c.fly(f, op, need, []waiter{{from, deadline}})
}

// fly asks the replicas on behalf of all waiters.
func (c *Core) fly(f flight, op Op, need int, waiters []waiter) {
	part := PartitionOf(op.Key)
	g := &getOp{id: c.newID(), flight: f, waiters: waiters, op: op, part: part, need: need}
	g.left = c.readOrder(part, op.Strict || c.cfg.off.sloppy)
	if len(g.left) < need {
		c.Counts.Unavailable++
		for _, w := range waiters {
			c.refuse(w.from, &UnavailableError{Need: need, Got: len(g.left)})
		}
		return
	}
	c.flights[f] = g
	c.begin(g.id, g)
	for _, w := range waiters {
		c.wakeAt(g.id, w.deadline)
	}
	for i := range need {
		g.ask(c, i == 0)
	}
}

// readOrder lists the nodes to read from: the owners that can be reached, this node first if its
// reads count, the others by how soon they answer, then as many stand-ins as owners are missing.
func (c *Core) readOrder(part Partition, strict bool) (order []NodeID) {
	owners := c.place.Owners(part)
	for _, id := range owners {
		if c.reachable(id) && (id != c.self || c.counts(part)) {
			order = append(order, id)
		}
	}
	cost := func(id NodeID) time.Duration {
		if id == c.self {
			return -1
		}
		return c.links[id].cost(c.now.Since)
	}
	slices.SortStableFunc(order, func(a, b NodeID) int { return int(cost(a) - cost(b)) })
	missing := len(owners) - len(order)
	if strict {
		return order
	}
	for _, id := range c.place.Fallbacks(part) {
		if missing == 0 {
			break
		}
		if c.reachable(id) {
			order = append(order, id)
			missing--
		}
	}
	return order
}

// ask asks the next replica, for its object or just for a digest. It reports false when there is
// none left.
func (g *getOp) ask(c *Core, full bool) bool {
	if len(g.left) == 0 {
		return false
	}
	node := g.left[0]
	g.left = g.left[1:]
	g.asked = append(g.asked, asked{node: node})
	g.askFor(c, &g.asked[len(g.asked)-1], full)
	return true
}

func (g *getOp) askFor(c *Core, a *asked, full bool) {
	a.state, a.full, a.sent = askedWaiting, full, c.now.Since
	if a.node == c.self {
		a.full = true // it costs no message
		c.do(&Work{Kind: WorkRead, For: forGet, ID: g.id, Part: g.part, Key: g.op.Key})
		return
	}
	m := peerMessage{kind: peerRead, id: g.id, key: g.op.Key}
	if !full {
		m.flags = flagDigest
	}
	c.send(a.node, ClassRequest, &m)
	c.sent(a.node)
	c.wakeAt(g.id, c.now.Since+c.patience(a.node))
}

// localRead is told what this node's own store has.
func (g *getOp) localRead(c *Core, w *Work) {
	a := g.of(c.self)
	if a == nil || a.state != askedWaiting {
		return
	}
	if w.Result.Err != nil {
		g.failed(c, a)
		return
	}
	a.state, a.object, a.digest = askedAnswered, w.Result.Object, w.Result.Object.Digest()
	g.check(c)
}

// readAck is told what a peer has.
func (g *getOp) readAck(c *Core, from NodeID, m *peerMessage) {
	a := g.of(from)
	if a == nil || a.state != askedWaiting {
		return
	}
	found := m.flags&flagFound != 0
	if m.ack == ackOK && a.full && !found {
		return // the answer to an earlier question of ours, for the digest
	}
	c.settled(from, c.now.Since-a.sent)
	if m.ack != ackOK {
		g.failed(c, a)
		return
	}
	a.state, a.digest = askedAnswered, m.digest
	if a.full && len(m.object) > 0 {
		o, err := DecodeObject(append([]byte(nil), m.object...))
		if err != nil {
			c.Counts.Malformed++
			g.failed(c, a)
			return
		}
		a.object = o
	}
	g.check(c)
}

func (g *getOp) failed(c *Core, a *asked) {
	a.state = askedFailed
	if !g.ask(c, true) {
		g.check(c)
	}
}

func (g *getOp) of(node NodeID) *asked {
	for i := range g.asked {
		if g.asked[i].node == node {
			return &g.asked[i]
		}
	}
	return nil
}

// check goes on when there are enough answers: agreement is the answer, a difference is merged.
func (g *getOp) check(c *Core) {
	if g.merging {
		g.checkRepairs(c)
		return
	}
	answers, possible, full := g.counting(c), len(g.left), false
	var merged Object
	for i := range g.asked {
		switch a := &g.asked[i]; a.state {
		case askedAnswered:
			possible++
			if a.full {
				full = true
				merged = Merge(merged, a.object, c.cfg.Policy(g.op.Key))
			}
		case askedWaiting:
			possible++
		}
	}
	if possible < g.need {
		c.Counts.Unavailable++
		g.end(c, appendOpError(nil, &UnavailableError{Need: g.need, Got: answers}, false))
		return
	}
	if answers < g.need {
		return
	}
	digest, agree, asking := merged.Digest(), true, false
	for i := range g.asked {
		a := &g.asked[i]
		if a.state != askedAnswered || full && a.digest == digest {
			continue
		}
		agree = false
		if !a.full {
			g.askFor(c, a, true)
			asking = true
		}
	}
	if asking {
		return // with what comes the answers are enough again
	}
	if len(merged.Clock) == 0 && !g.ownerSpoke(c) {
		return // those who would know have not answered: "there is none" would be a guess
	}
	g.merged = merged
	if agree || c.cfg.off.readRepair {
		g.end(c, g.success(c))
		return
	}
	g.repair(c, digest)
}

// counting is how many answers count. That of a node that is no owner does in place of an owner
// that is away, not of one that is slow: it has only what it was given while an owner was away, and
// its "nothing" is the fastest answer of all.
func (g *getOp) counting(c *Core) int {
	owners, standIns, away := 0, 0, 0
	for i := range g.asked {
		if s := g.asked[i].state; s != askedAnswered && s != askedCurrent {
			continue
		}
		if c.place.Owns(g.asked[i].node, g.part) {
			owners++
		} else {
			standIns++
		}
	}
	for _, id := range c.place.Owners(g.part) {
		switch a := g.of(id); {
		case a == nil && !slices.Contains(g.left, id), // it could not be reached
			a != nil && a.state == askedFailed,
			a != nil && a.state == askedWaiting && !c.answers(id):
			away++
		}
	}
	return owners + min(standIns, away)
}

// ownerSpoke reports whether any owner has answered. Then stand-ins make up for the others.
func (g *getOp) ownerSpoke(c *Core) bool {
	return slices.ContainsFunc(g.asked, func(a asked) bool {
		return a.state == askedAnswered && c.place.Owns(a.node, g.part)
	})
}

// repair sends what they lack to the replicas that are behind.
func (g *getOp) repair(c *Core, digest uint64) {
	if !g.merged.fits() {
		g.end(c, appendOpError(nil, ErrTooManySiblings, false))
		return
	}
	g.merging = true
	encoded := g.merged.AppendTo(nil)
	for i := range g.asked {
		a := &g.asked[i]
		switch {
		case a.state != askedAnswered:
		case a.digest == digest || !c.place.Owns(a.node, g.part):
			// A stand-in that has less is left as it is: nobody would ever fetch it there.
			a.state = askedCurrent
		case a.node == c.self:
			a.state = askedRepairing
			c.do(&Work{Kind: WorkMerge, For: forRepair, ID: g.id, Part: g.part, Key: g.op.Key,
				Object: g.merged, Durability: durabilityOfRepair})
		default:
			a.state, a.sent = askedRepairing, c.now.Since
			c.Counts.RepairsSent++
			c.send(a.node, ClassRequest, &peerMessage{kind: peerWrite, id: g.id, flags: flagRepair,
				durability: durabilityOfRepair, key: g.op.Key, object: encoded})
		}
	}
	if g.need == 1 {
		g.end(c, g.success(c)) // nothing is promised that a repair would keep
		return
	}
	g.checkRepairs(c)
}

func (g *getOp) localRepair(c *Core, w *Work) {
	if w.Result.Err == nil && !w.Result.Durable {
		return
	}
	a := ackOK
	if w.Result.Err != nil {
		a = ackFailed
	}
	g.repaired(c, c.self, a)
}

// repaired is told how a repair went.
func (g *getOp) repaired(c *Core, node NodeID, a ack) {
	if r := g.of(node); r != nil && r.state == askedRepairing {
		r.state = askedCurrent
		if a != ackOK {
			r.state = askedFailed
		}
		g.checkRepairs(c)
	}
}

func (g *getOp) checkRepairs(c *Core) {
	current, possible := 0, 0
	for i := range g.asked {
		switch g.asked[i].state {
		case askedCurrent:
			current++
			possible++
		case askedRepairing:
			possible++
		}
	}
	switch {
	case current >= g.need:
		g.end(c, g.success(c))
	case possible < g.need:
		c.Counts.Unavailable++
		g.end(c, appendOpError(nil, &UnavailableError{Need: g.need, Got: current}, false))
	}
}

// success is the answer, with the nodes that it rests on.
func (g *getOp) success(c *Core) []byte {
	var nodes []NodeID
	for i := range g.asked {
		if s := g.asked[i].state; s == askedAnswered || s == askedCurrent {
			nodes = append(nodes, g.asked[i].node)
		}
	}
	if len(g.merged.Values()) > 1 {
		c.Counts.Siblings++
	}
	return appendReadAnswer(nil, &g.merged, c.cfg.Cluster, g.op.Key, nodes)
}

// end answers all who wait and starts the read of those who came later.
func (g *getOp) end(c *Core, answer []byte) {
	c.end(g.id)
	delete(c.flights, g.flight)
	for i := range g.asked {
		if a := &g.asked[i]; a.state == askedWaiting && a.node != c.self {
			c.settled(a.node, -1)
		}
	}
	for _, w := range g.waiters {
		c.answer(w.from, answer)
	}
	if len(g.next) > 0 {
		c.fly(g.flight, g.op, g.need, g.next)
	}
}

// expire answers those whose deadline has come. It reports whether anybody is left.
func (g *getOp) expire(c *Core) bool {
	answers := g.counting(c)
	late := func(all []waiter) (rest []waiter) {
		for _, w := range all {
			if c.now.Since < w.deadline {
				rest = append(rest, w)
				continue
			}
			c.Counts.Unavailable++
			c.refuse(w.from, &UnavailableError{Need: g.need, Got: answers})
		}
		return rest
	}
	g.waiters, g.next = late(g.waiters), late(g.next)
	return len(g.waiters) > 0
}

// wake asks somebody else when a replica is slow, and gives up at the deadlines.
func (g *getOp) wake(c *Core) {
	if !g.expire(c) {
		g.end(c, nil)
		return
	}
	if g.merging {
		return
	}
	for i := range len(g.asked) {
		a := &g.asked[i]
		if a.state != askedWaiting || a.hedged || a.node == c.self ||
			c.now.Since < a.sent+c.patience(a.node) {
			continue
		}
		a.hedged = true
		if !g.ask(c, true) {
			g.askStandIn(c)
			continue
		}
		c.Counts.Hedged++
	}
	if g.check(c); c.ops[g.id] == g && !g.merging && c.now.Since >= g.recheck {
		g.recheck = c.now.Since + recheckPause
		c.wakeAt(g.id, g.recheck)
	}
}

// recheckPause is short beside silentAfter, which is what it watches for.
const recheckPause = 50 * time.Millisecond

// askStandIn asks a node that is no owner when the owners are silent.
func (g *getOp) askStandIn(c *Core) {
	if g.op.Strict || c.cfg.off.sloppy {
		return
	}
	for _, id := range c.place.Fallbacks(g.part) {
		if c.reachable(id) && g.of(id) == nil {
			g.left = append(g.left, id)
			g.ask(c, true)
			return
		}
	}
}
