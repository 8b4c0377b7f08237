package replication

import (
	"encoding/json"
	"fmt"
	"time"
)

// requestMax is how long a node works on a request, however late its deadline. Until then memory is
// held for it, also when it is answered: timers, and what tells a repetition of it.
const requestMax = time.Minute

// request begins what a client asks, or refuses it at once.
func (c *Core) request(e Event) {
	from := origin{token: e.Token}
	c.pending++
	if c.pending > c.cfg.MaxPending {
		c.Counts.Overloaded++
		c.refuse(from, ErrOverloaded)
		return
	}
	deadline := min(e.Deadline, c.now.Since+requestMax)
	c.serve(from, append([]byte(nil), e.Request...), deadline)
}

// serve begins a request, whose bytes are the core's to keep.
func (c *Core) serve(from origin, raw []byte, deadline time.Duration) {
	op, err := DecodeOp(raw)
	if err == nil {
		err = op.check()
	}
	if err == nil && op.Epoch != 0 && op.Epoch != c.place.Epoch {
		err = &EpochError{Have: op.Epoch, Want: c.place.Epoch}
	}
	if err != nil {
		c.refuse(from, err)
		return
	}
	switch op.Kind {
	case KindRead:
		c.startGet(from, op, deadline)
	case KindWrite:
		c.startPut(from, op, raw, deadline)
	case KindPage:
		c.startScan(from, op, deadline)
	case KindExplain:
		c.startExplain(from, op, deadline)
	case KindRing:
		c.answer(from, append([]byte{byte(statusOK)}, c.ringJSON()...))
	}
}

func (c *Core) refuse(from origin, err error) {
	c.answer(from, appendOpError(nil, err, false))
}

// forwardOp is a write that an owner coordinates for this node.
type forwardOp struct {
	id       uint64
	from     origin
	to       NodeID
	sent     time.Duration
	deadline time.Duration
}

// forward passes a write on to the owner that answers soonest. It reports false when none of them
// can be reached. A request that was passed on is not passed on again.
func (c *Core) forward(from origin, part Partition, raw []byte, deadline time.Duration) bool {
	if from.node != "" {
		return false
	}
	best := NodeID("")
	for _, id := range c.place.Owners(part) {
		if id != c.self && c.answers(id) && (best == "" ||
			c.links[id].cost(c.now.Since) < c.links[best].cost(c.now.Since)) {
			best = id
		}
	}
	if best == "" {
		return false
	}
	f := &forwardOp{id: c.newID(), from: from, to: best, sent: c.now.Since, deadline: deadline}
	c.sent(best)
	c.begin(f.id, f)
	c.wakeAt(f.id, deadline)
	c.Counts.Forwarded++
	left := max(deadline-c.now.Since, 0)
	c.send(best, ClassRequest, &peerMessage{kind: peerForward, id: f.id,
		millis: uint64(left / time.Millisecond), body: raw})
	return true
}

// wake gives up. The owner may have written it.
func (f *forwardOp) wake(c *Core) {
	if c.now.Since < f.deadline {
		return
	}
	c.end(f.id)
	c.settled(f.to, -1)
	c.Counts.InDoubt++
	c.answer(f.from, appendOpError(nil, &InDoubtError{Need: 1}, true))
}

// forwardedHere serves a request that another node passed on.
func (c *Core) forwardedHere(from NodeID, m *peerMessage) {
	const most = uint64(requestMax / time.Millisecond)
	left := time.Duration(min(m.millis, most)) * time.Millisecond
	o := origin{from, m.id}
	if c.served[o] {
		return // it has come twice, and must not be done twice
	}
	c.served[o] = true
	id := c.newID()
	c.begin(id, &servedOp{id: id, origin: o, until: c.now.Since + left + servedFor})
	c.wakeAt(id, c.now.Since+left+servedFor)
	c.serve(origin{from, m.id}, append([]byte(nil), m.body...), c.now.Since+left)
}

// servedOp remembers a request that another node passed on for longer than messages live.
type servedOp struct {
	id     uint64
	origin origin
	until  time.Duration
}

const servedFor = 10 * time.Second

func (s *servedOp) wake(c *Core) {
	if c.now.Since >= s.until {
		delete(c.served, s.origin)
		c.end(s.id)
	}
}

func (c *Core) forwardAnswered(_ NodeID, m *peerMessage) {
	if f, ok := c.ops[m.id].(*forwardOp); ok {
		c.end(f.id)
		c.settled(f.to, c.now.Since-f.sent)
		c.answer(f.from, append([]byte(nil), m.body...))
	}
}

// Ring is what a node tells clients of the cluster.
type Ring struct {
	Epoch    uint64       `json:"epoch"`
	Cluster  string       `json:"cluster"`
	Replicas int          `json:"replicas"`
	Self     NodeID       `json:"self"`
	Members  []RingMember `json:"members"`
	// Objects is how many keys the node that answers holds, tombstones too, once it has counted.
	Objects int `json:"objects"`
	// Owners are indexes into Members, by partition.
	Owners [][]int `json:"owners"`
}

// RingMember is a node as the one that answers sees it.
type RingMember struct {
	ID          NodeID `json:"id"`
	Addr        string `json:"addr"`
	Zone        string `json:"zone,omitempty"`
	Weight      int    `json:"weight"`
	State       string `json:"state"`
	Connected   bool   `json:"connected"`
	Incarnation uint32 `json:"incarnation"`
	Hints       int    `json:"hints"` // owed to it by the node that answers
	// EqualSeconds is how long ago the node that answers found that it holds the same as this one,
	// of what both hold. Absent: never yet.
	EqualSeconds *float64 `json:"equal_seconds,omitempty"`
	Partitions   int      `json:"partitions"`
	Primaries    int      `json:"primaries"`
}

// Ring describes the cluster as this node sees it.
func (c *Core) Ring() Ring {
	r := Ring{Epoch: c.place.Epoch, Cluster: fmt.Sprintf("%016x", c.cfg.Cluster),
		Replicas: c.place.N, Self: c.self, Objects: c.replica.objects()}
	index := map[NodeID]int{}
	for i, m := range c.place.Members {
		index[m.ID] = i
		rm := RingMember{ID: m.ID, Addr: m.Addr, Zone: m.Zone, Weight: max(m.Weight, 1),
			State: c.verdict(m.ID).String(), Connected: m.ID == c.self,
			Incarnation: c.incarnationOf(m.ID), Hints: c.replica.hints.of(m.ID.Number())}
		if l := c.links[m.ID]; l != nil {
			rm.Connected = l.up
			if l.equal > 0 {
				ago := (c.now.Since - l.equal).Seconds()
				rm.EqualSeconds = &ago
			}
		}
		r.Members = append(r.Members, rm)
	}
	for p := range Partitions {
		var owners []int
		for i, id := range c.place.Owners(Partition(p)) {
			owners = append(owners, index[id])
			r.Members[index[id]].Partitions++
			if i == 0 {
				r.Members[index[id]].Primaries++
			}
		}
		r.Owners = append(r.Owners, owners)
	}
	return r
}

func (c *Core) ringJSON() []byte {
	text, err := json.Marshal(c.Ring())
	if err != nil {
		panic(err) // it has nothing that cannot be encoded
	}
	return text
}
