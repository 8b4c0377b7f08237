package replication

import (
	"bytes"
	"errors"
	"time"

	"kvd/lsm"
)

// putOp is a write that this node coordinates. It gives the write a dot in its own store, sends the
// merged object to every other owner at once, and answers when W of them hold it as durably as was
// asked. It lives on until all have answered or the time is up, and then leaves hints for those
// that did not.
type putOp struct {
	id        uint64
	from      origin
	op        Op
	part      Partition
	began     time.Duration
	deadline  time.Duration
	need      int
	targets   []target
	owed      []NodeID // owners that nobody stands in for yet
	written   bool     // here, if not durably yet
	object    []byte   // encoded, from then on until the write is answered
	seen      Clock    // of the object, and its greatest stamp
	newest    Stamp
	replied   bool
	repliedAt time.Duration
	lingering bool
}

// target is a node that is to hold the write, for an owner: itself, or one that it stands in for.
type target struct {
	node, owner NodeID
	state       targetState
	sent        time.Duration
	replaced    bool // somebody else has been asked as well
}

type targetState uint8

const (
	targetWaiting targetState = iota
	targetHolds
	targetFailed
)

const (
	// settleTime is how long after its deadline a write waits for late answers before it leaves
	// hints.
	settleTime = time.Second
	// lingerTime is as long as a write that was answered has, however late its deadline: an owner
	// that has lost a message lacks the write until there is a hint.
	lingerTime = 10 * time.Second
)

// planWrite assigns each owner to itself when it can be reached, else to the next node on the ring
// that can stand in. Whoever is left over is owed the write.
func planWrite(owners, fallbacks []NodeID, sloppy bool, reachable func(NodeID) bool) (
	targets []target, owed []NodeID) {
	for _, owner := range owners {
		if reachable(owner) {
			targets = append(targets, target{node: owner, owner: owner})
			continue
		}
		stood := false
		for sloppy && len(fallbacks) > 0 && !stood {
			next := fallbacks[0]
			fallbacks = fallbacks[1:]
			if reachable(next) {
				targets = append(targets, target{node: next, owner: owner})
				stood = true
			}
		}
		if !stood {
			owed = append(owed, owner)
		}
	}
	return targets, owed
}

// startPut begins a write. What cannot succeed is refused before anything is written.
func (c *Core) startPut(from origin, op Op, raw []byte, deadline time.Duration) {
	part := PartitionOf(op.Key)
	owners := c.place.Owners(part)
	need, err := op.Level.need(len(owners))
	if err != nil {
		c.refuse(from, err)
		return
	}
	seen, newest, err := c.contextOf(&op)
	if err != nil {
		c.refuse(from, err)
		return
	}
	own := c.place.Owns(c.self, part)
	if (!own || !c.ready) && c.forward(from, part, raw, deadline) {
		return
	}
	if !own && from.node != "" {
		c.Counts.NotOwned++ // passed on by a node with another placement
		c.refuse(from, &UnavailableError{Need: need})
		return
	}
	sloppy := !op.Strict && !c.cfg.off.sloppy
	fallbacks := c.place.Fallbacks(part)
	if !own {
		if !sloppy {
			c.Counts.Unavailable++
			c.refuse(from, &UnavailableError{Need: need})
			return
		}
		fallbacks = append([]NodeID{c.self}, without(fallbacks, c.self)...)
	}
	can := c.reachable
	if !own { // the owners that could be sent to are silent, or they would have got the request
		can = c.answers
	}
	targets, owed := planWrite(owners, fallbacks, sloppy, can)
	if len(targets) < need || !c.ready {
		c.Counts.Unavailable++
		c.refuse(from, &UnavailableError{Need: need, Got: len(targets)})
		return
	}
	p := &putOp{id: c.newID(), from: from, op: op, part: part, began: c.now.Since,
		deadline: deadline, need: need, targets: targets, owed: owed}
	c.begin(p.id, p)
	c.wakeAt(p.id, deadline)
	w := &Work{Kind: WorkUpdate, For: forPut, ID: p.id, Part: part, Key: op.Key, Value: op.Value,
		Tombstone: op.Tombstone, Seen: seen, Newest: newest, Blind: !op.HasContext,
		Durability: op.Durability}
	for _, id := range owed {
		if c.hintable(id) || !own {
			w.Targets = append(w.Targets, id.Number())
		}
	}
	for _, t := range targets {
		if t.node == c.self && t.owner != c.self {
			w.Targets = append(w.Targets, t.owner.Number())
		}
	}
	c.do(w)
}

func without(ids []NodeID, id NodeID) (rest []NodeID) {
	for _, x := range ids {
		if x != id {
			rest = append(rest, x)
		}
	}
	return rest
}

// contextOf reads the context that came with a write.
func (c *Core) contextOf(op *Op) (Clock, Stamp, error) {
	if !op.HasContext {
		return nil, 0, nil
	}
	return DecodeContext(op.Context, c.cfg.Cluster, op.Key)
}

// stored is told of this node's own part: first when the write is visible, then when it is durable.
func (p *putOp) stored(c *Core, w *Work) {
	switch {
	case w.Kind == WorkHint:
		return // nobody waits for a hint
	case w.Result.Err != nil && !p.written:
		p.failedHere(c, w.Result.Err)
	case w.Result.Err != nil:
		p.mark(c, c.self, targetFailed)
	case !w.Result.Durable:
		p.written, p.object, p.seen = true, w.Result.Encoded, w.Result.Object.Clock
		p.newest = w.Result.Object.MaxStamp()
		p.op.Value = nil // it is in the object
		for i := range p.targets {
			if p.targets[i].node != c.self {
				p.sendTo(c, &p.targets[i])
			}
		}
	default:
		p.mark(c, c.self, targetHolds)
	}
	if c.ops[p.id] == p {
		p.check(c)
	}
}

// failedHere ends a write that this node could not begin. Another owner may be able to.
func (p *putOp) failedHere(c *Core, err error) {
	c.end(p.id)
	if p.replied {
		return // in doubt, since the deadline
	}
	if !errors.Is(err, lsm.ErrInDoubt) && !errors.Is(err, ErrTooManySiblings) &&
		p.from.node == "" {
		raw := p.op.AppendTo(nil)
		if c.forward(p.from, p.part, raw, p.deadline) {
			return
		}
	}
	if errors.Is(err, ErrHintsFull) { // nothing is written, and another node may have room
		c.Counts.Unavailable++
		err = &UnavailableError{Need: p.need}
	}
	c.answer(p.from, appendOpError(nil, err, true))
}

func (p *putOp) sendTo(c *Core, t *target) {
	t.sent = c.now.Since
	m := peerMessage{kind: peerWrite, id: p.id, durability: p.op.Durability, key: p.op.Key,
		object: p.object}
	if t.owner != t.node {
		m.target = t.owner.Number()
		c.Counts.StoodIn++
	}
	c.send(t.node, ClassRequest, &m)
	c.sent(t.node)
	c.wakeAt(p.id, c.now.Since+c.patience(t.node))
}

// acked is told what a peer made of the write.
func (p *putOp) acked(c *Core, from NodeID, a ack) {
	state := targetHolds
	if a != ackOK {
		state = targetFailed
	}
	p.mark(c, from, state)
	p.check(c)
}

func (p *putOp) mark(c *Core, node NodeID, s targetState) {
	for i := range p.targets {
		t := &p.targets[i]
		if t.node != node || t.state == targetHolds {
			continue
		}
		if t.state == targetWaiting && node != c.self {
			c.settled(node, c.now.Since-t.sent)
		}
		t.state = s
		if s == targetFailed {
			p.replace(c, t)
		}
		return
	}
}

// replace asks somebody to stand in for the owner of a target that failed or is silent. Once the
// write is answered that is left to hints.
func (p *putOp) replace(c *Core, t *target) {
	if p.object == nil || t.replaced || p.op.Strict || c.cfg.off.sloppy {
		return
	}
	for _, id := range c.place.Fallbacks(p.part) {
		if p.isTarget(id) || !c.reachable(id) || id == c.self {
			continue
		}
		t.replaced = true
		p.targets = append(p.targets, target{node: id, owner: t.owner})
		p.sendTo(c, &p.targets[len(p.targets)-1])
		return
	}
}

func (p *putOp) isTarget(id NodeID) bool {
	for i := range p.targets {
		if p.targets[i].node == id {
			return true
		}
	}
	return false
}

// holders are the nodes that count. With a strict quorum these are owners only, and there are no
// other targets then. A node counts once.
func (p *putOp) holders() (nodes []NodeID) {
	for i := range p.targets {
		if p.targets[i].state == targetHolds {
			nodes = append(nodes, p.targets[i].node)
		}
	}
	return nodes
}

// check answers when it can and ends when nothing more can come.
func (p *putOp) check(c *Core) {
	waiting := false
	for i := range p.targets {
		waiting = waiting || p.targets[i].state == targetWaiting
	}
	nodes := p.holders()
	switch {
	case p.replied:
	case len(nodes) >= p.need:
		p.reply(c, appendWriteAnswer(nil, p.seen, p.newest, c.cfg.Cluster, p.op.Key, nodes))
	case !waiting || c.now.Since >= p.deadline:
		c.Counts.InDoubt++
		p.reply(c, appendOpError(nil, &InDoubtError{Need: p.need, Got: len(nodes)}, true))
	}
	if !waiting || p.replied && c.now.Since >= p.settleAt() {
		p.settle(c)
	} else if p.replied {
		p.linger(c)
	}
}

// settleAt is when a write that was answered waits no longer for those that have not.
func (p *putOp) settleAt() time.Duration {
	return max(min(p.deadline, p.began+lingerTime), p.repliedAt) + settleTime
}

// linger keeps of a write that was answered what its hints take: nothing bounds how many of them
// there are while an owner is silent. The key is copied because it is a part of the request, which
// holds the value too.
func (p *putOp) linger(c *Core) {
	p.object = nil
	if !p.lingering {
		p.lingering = true
		p.op = Op{Key: bytes.Clone(p.op.Key), Durability: p.op.Durability}
		c.wakeAt(p.id, p.settleAt())
	}
}

func (p *putOp) reply(c *Core, answer []byte) {
	p.replied, p.repliedAt = true, c.now.Since
	c.answer(p.from, answer)
}

// settle leaves hints for the owners that neither hold the write nor have somebody who holds it for
// them, and ends the operation.
func (p *putOp) settle(c *Core) {
	c.end(p.id)
	for i := range p.targets {
		if t := &p.targets[i]; p.written && t.node != c.self && t.state == targetWaiting {
			c.settled(t.node, -1) // stand-ins too
		}
	}
	var owed []uint32
	for _, owner := range c.place.Owners(p.part) {
		held := false
		for i := range p.targets {
			t := &p.targets[i]
			held = held || t.owner == owner && t.state == targetHolds
		}
		if !held && owner != c.self && c.hintable(owner) {
			owed = append(owed, owner.Number())
		}
	}
	if len(owed) == 0 || !p.written {
		return
	}
	c.do(&Work{Kind: WorkHint, For: forNothing, Part: p.part, Key: p.op.Key, Targets: owed,
		Durability: p.op.Durability})
}

// wake looks after silent targets and the deadline.
func (p *putOp) wake(c *Core) {
	if p.object != nil { // written here, not answered
		for i := range len(p.targets) {
			t := &p.targets[i]
			if t.state == targetWaiting && t.node != c.self &&
				c.now.Since >= t.sent+c.patience(t.node) {
				p.replace(c, t)
			}
		}
	}
	p.check(c)
}
