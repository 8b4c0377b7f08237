package replication

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// Explanation says where a key lives, who has what of it, and why a read answers as it does.
type Explanation struct {
	Key        string          `json:"key"`
	Partition  Partition       `json:"partition"`
	Epoch      uint64          `json:"epoch"`
	Bucket     string          `json:"policy"`
	Owners     []NodeID        `json:"owners"`
	Fallbacks  []NodeID        `json:"fallbacks"`
	Replicas   []ReplicaHas    `json:"replicas"`
	HintsOwed  map[NodeID]int  `json:"hints_owed"` // by the node that answers, over all keys
	Winner     []ExplainedItem `json:"winner"`
	WinnerWhy  string          `json:"why"`
	Context    string          `json:"context"`
	AnsweredBy NodeID          `json:"answered_by"`
}

// ReplicaHas is what one node holds of a key.
type ReplicaHas struct {
	Node     NodeID          `json:"node"`
	Owner    bool            `json:"owner"`
	State    string          `json:"state"` // of the node
	Answer   string          `json:"answer"`
	Digest   string          `json:"digest,omitempty"`
	Clock    []string        `json:"clock,omitempty"`
	Siblings []ExplainedItem `json:"siblings,omitempty"`
}

// ExplainedItem is a sibling for people.
type ExplainedItem struct {
	Dot       string `json:"dot"`
	Written   string `json:"written"` // by the time of day of the node that coordinated it
	Tombstone bool   `json:"tombstone,omitempty"`
	Bytes     int    `json:"bytes"`
}

// explainOp asks every node that may hold a key.
type explainOp struct {
	id       uint64
	from     origin
	op       Op
	part     Partition
	deadline time.Duration
	nodes    []ReplicaHas
	objects  []Object
	waiting  int
}

// explainPatience is how long an explanation waits for nodes that do not answer.
const explainPatience = 500 * time.Millisecond

func (c *Core) startExplain(from origin, op Op, deadline time.Duration) {
	e := &explainOp{id: c.newID(), from: from, op: op, part: PartitionOf(op.Key),
		deadline: min(deadline, c.now.Since+explainPatience)}
	c.begin(e.id, e)
	c.wakeAt(e.id, e.deadline)
	owners := c.place.Owners(e.part)
	nodes := append(append([]NodeID(nil), owners...), c.place.Fallbacks(e.part)...)
	for i, id := range nodes {
		e.nodes = append(e.nodes, ReplicaHas{Node: id, Owner: i < len(owners),
			State: c.verdict(id).String(), Answer: "none"})
		e.waiting++
		if id == c.self {
			c.do(&Work{Kind: WorkRead, For: forGet, ID: e.id, Part: e.part, Key: op.Key})
			continue
		}
		c.send(id, ClassRequest, &peerMessage{kind: peerRead, id: e.id, key: op.Key})
	}
}

// has notes what a node holds.
func (e *explainOp) has(c *Core, node NodeID, o Object, a ack) {
	for i := range e.nodes {
		r := &e.nodes[i]
		if r.Node != node || r.Answer != "none" {
			continue
		}
		e.waiting--
		switch {
		case a != ackOK:
			r.Answer = "failed"
		case len(o.Clock) == 0:
			r.Answer = "nothing"
		default:
			r.Answer = "object"
			r.Digest = fmt.Sprintf("%016x", o.Digest())
			r.Siblings = c.explained(o.Siblings)
			for _, d := range o.Clock {
				r.Clock = append(r.Clock, c.dotName(d))
			}
			e.objects = append(e.objects, o)
		}
	}
	if e.waiting == 0 {
		e.finish(c)
	}
}

func (c *Core) dotName(d Dot) string {
	name := fmt.Sprintf("%08x", d.Actor.Node())
	if m, ok := c.place.ByNumber(d.Actor.Node()); ok {
		name = string(m.ID)
	}
	return fmt.Sprintf("%s.%d:%d", name, d.Actor.Incarnation(), d.Seq)
}

func (c *Core) explained(siblings []Sibling) (all []ExplainedItem) {
	for _, s := range siblings {
		all = append(all, ExplainedItem{Dot: c.dotName(s.Dot), Tombstone: s.Tombstone,
			Written: time.UnixMilli(int64(s.Stamp >> 16)).UTC().Format(time.RFC3339Nano),
			Bytes:   len(s.Value)})
	}
	return all
}

func (e *explainOp) wake(c *Core) {
	if c.now.Since >= e.deadline {
		e.finish(c)
	}
}

func (e *explainOp) finish(c *Core) {
	c.end(e.id)
	var merged Object
	policy := c.cfg.Policy(e.op.Key)
	for _, o := range e.objects {
		merged = Merge(merged, o, policy)
	}
	x := Explanation{Key: string(e.op.Key), Partition: e.part, Epoch: c.place.Epoch,
		Bucket: policy.String(), Owners: c.place.Owners(e.part),
		Fallbacks: c.place.Fallbacks(e.part), Replicas: e.nodes, HintsOwed: map[NodeID]int{},
		Winner: c.explained(merged.Siblings), WinnerWhy: why(e.objects, &merged, policy),
		AnsweredBy: c.self}
	if len(merged.Clock) > 0 {
		x.Context = base64.RawURLEncoding.EncodeToString(
			EncodeContext(merged.Clock, merged.MaxStamp(), c.cfg.Cluster, e.op.Key))
	}
	for _, m := range c.place.Members {
		if n := c.replica.hints.of(m.ID.Number()); n > 0 {
			x.HintsOwed[m.ID] = n
		}
	}
	text, err := json.Marshal(x)
	if err != nil {
		panic(err) // it has nothing that cannot be encoded
	}
	c.answer(e.from, append([]byte{byte(statusOK)}, text...))
}

// why says in a sentence how the merged object came about.
func why(objects []Object, merged *Object, p Policy) string {
	same := true
	for i := range objects {
		same = same && objects[i].Digest() == merged.Digest()
	}
	live := len(merged.Values())
	switch {
	case len(objects) == 0:
		return "no node that answered has the key"
	case merged.Deleted():
		return "it was deleted: the tombstone has seen every value"
	case live > 1:
		return fmt.Sprintf("%d writes did not see each other: all are kept until one is made "+
			"with the context of a read", live)
	case same:
		return "all nodes that have it agree"
	case p == LastWriterWins:
		return "it has seen what the others hold, or was written later"
	}
	return "it has seen what the others hold"
}
