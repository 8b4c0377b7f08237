package replication

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// checker knows everything that happened and says what must not have. The names S1 to S13 of the
// invariants are those of docs/guarantees.md.
type checker struct {
	sim    *simulation
	writes map[string][]*simWritten // by key, in the order of their dots being given out
	byDot  map[string]*simWritten   // key and dot
	values map[string]*simWritten
	tokens map[uint64]*simWritten // by request
}

// simWritten is a write that was given a dot.
type simWritten struct {
	key       string
	dot       Dot
	stamp     Stamp
	tombstone bool
	value     string
	acked     bool
	after     []*simWritten // writes that had seen it
}

func newChecker(s *simulation) *checker {
	return &checker{sim: s, writes: map[string][]*simWritten{}, byDot: map[string]*simWritten{},
		values: map[string]*simWritten{}, tokens: map[uint64]*simWritten{}}
}

// disturbed reports whether a node was held back since a moment.
func (k *checker) disturbed(n *simNode, since time.Duration) bool {
	return n.paused || n.resumed >= since
}

func (k *checker) beforeWork(n *simNode, w *Work) Object {
	if w.Kind != WorkUpdate {
		return Object{}
	}
	return n.disk.live.object(w.Part, w.Key)
}

// afterWork notes a write that was given a dot, and what it had seen. S4: no dot twice.
func (k *checker) afterWork(n *simNode, w *Work, old Object) {
	if w.Kind != WorkUpdate || w.Result.Err != nil {
		return
	}
	key := string(w.Key)
	dot := Dot{MakeActor(n.id.Number(), n.replica.incarnation.Load()), n.replica.parts[w.Part].seq}
	name := fmt.Sprint(key, dot)
	if k.byDot[name] != nil {
		k.sim.failf("S4: dot %v of %s was given out twice", dot, key)
		return
	}
	x := &simWritten{key: key, dot: dot, tombstone: w.Tombstone, value: string(w.Value),
		stamp: w.Result.Object.MaxStamp()}
	seen := w.Seen
	if w.Blind {
		seen = old.Clock
	}
	for _, before := range k.writes[key] {
		if seen.Covers(before.dot) {
			before.after = append(before.after, x)
		}
	}
	k.writes[key] = append(k.writes[key], x)
	k.byDot[name] = x
	if !w.Tombstone {
		k.values[x.value] = x
	}
	if token, ok := k.requestOf(n, w.ID); ok {
		k.tokens[token] = x
	}
}

// requestOf finds the client's request behind a coordinated write, through a node that passed it on.
func (k *checker) requestOf(n *simNode, id uint64) (uint64, bool) {
	p, ok := n.core.ops[id].(*putOp)
	if !ok {
		return 0, false
	}
	if p.from.node == "" {
		return p.from.token, true
	}
	other := k.sim.byID[p.from.node]
	if !other.up {
		return 0, false
	}
	f, ok := other.core.ops[p.from.token].(*forwardOp)
	if !ok {
		return 0, false
	}
	return f.from.token, true
}

// acknowledged checks S5: as many nodes as were asked for hold the write durably.
func (k *checker) acknowledged(key string, op *Op, token uint64, a answered) {
	s := k.sim
	x := k.tokens[token]
	if x == nil {
		s.failf("a write of %s was acknowledged that was never made", key)
		return
	}
	x.acked = true
	part := PartitionOf([]byte(key))
	need, _ := op.Level.need(s.setup.replicas)
	slices.Sort(a.nodes)
	if len(slices.Compact(a.nodes)) < need {
		s.failf("S5: %v of %s at %v names %d nodes", x.dot, key, op.Level, len(a.nodes))
	}
	for _, number := range a.nodes {
		m, ok := s.place.ByNumber(number)
		if !ok {
			s.failf("S5: there is no node %08x", number)
			return
		}
		n := s.byID[m.ID]
		owner := s.place.Owns(m.ID, part)
		if !owner && op.Strict {
			s.failf("S5: %s is no owner of %s, and the write was strict", m.ID, key)
		}
		if owner && !n.wiped && !n.disk.durable.object(part, []byte(key)).Clock.Covers(x.dot) {
			s.failf("S5: %s does not hold %v of %s durably", m.ID, x.dot, key)
		}
	}
}

// read checks S2: what is read was written.
func (k *checker) read(key string, a answered) {
	for _, v := range a.values {
		if x := k.values[string(v)]; x == nil || x.key != key {
			k.sim.failf("S2: %s has the value %q, which nobody wrote to it", key, v)
		}
	}
}

// reaches reports whether b had seen a, or had seen something that had, and so on. For lww what was
// written later counts as if it had seen what was written before.
func (k *checker) reaches(a, b *simWritten) bool {
	visited := map[*simWritten]bool{a: true}
	queue := []*simWritten{a}
	for len(queue) > 0 {
		x := queue[0]
		queue = queue[1:]
		if x == b {
			return true
		}
		next := x.after
		if k.sim.setup.lww {
			next = slices.Clone(next)
			for _, y := range k.writes[a.key] {
				if cmp.Or(cmp.Compare(y.stamp, x.stamp), cmp.Compare(y.dot.Actor, x.dot.Actor),
					cmp.Compare(y.dot.Seq, x.dot.Seq)) > 0 {
					next = append(next, y)
				}
			}
		}
		for _, y := range next {
			if !visited[y] {
				visited[y] = true
				queue = append(queue, y)
			}
		}
	}
	return false
}

// converged returns what is still different between the replicas, "" when nothing is.
func (k *checker) converged() string {
	s := k.sim
	for key := range k.writes {
		part := PartitionOf([]byte(key))
		owners := s.place.Owners(part)
		first := s.byID[owners[0]].disk.live.object(part, []byte(key))
		for _, id := range owners[1:] {
			o := s.byID[id].disk.live.object(part, []byte(key))
			if o.Digest() != first.Digest() {
				return fmt.Sprintf("S6: %s and %s differ in %s: %s and %s", owners[0], id, key,
					describeObject(first), describeObject(o))
			}
		}
	}
	for _, n := range s.nodes {
		for _, w := range n.disk.live {
			switch {
			case w.key[0] == hintPrefix && !s.setup.off.hints:
				return fmt.Sprintf("S8: %s still has the hint %x", n.id, w.key)
			case w.key[0] == dataPrefix && !s.place.Owns(n.id, partitionOf(w.key[1:])):
				return fmt.Sprintf("S8: %s still keeps %x for somebody", n.id, w.key)
			}
		}
	}
	return ""
}

func describeObject(o Object) string {
	text := ""
	for _, x := range o.Siblings {
		value := fmt.Sprintf("%q", x.Value)
		if x.Tombstone {
			value = "deleted"
		}
		text += fmt.Sprintf("[%x.%d:%d %s]", x.Dot.Actor.Node(), x.Dot.Actor.Incarnation(), x.Dot.Seq, value)
	}
	return text + fmt.Sprintf(" after %d actors", len(o.Clock))
}

// final checks S1 and S3 on what is left when everything has converged.
func (k *checker) final() {
	s := k.sim
	keys := make([]string, 0, len(k.writes))
	for key := range k.writes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		part := PartitionOf([]byte(key))
		o := s.byID[s.place.Owners(part)[0]].disk.live.object(part, []byte(key))
		var left []*simWritten
		for _, sib := range o.Siblings {
			x := k.byDot[fmt.Sprint(key, sib.Dot)]
			if x == nil || x.value != string(sib.Value) || x.tombstone != sib.Tombstone {
				s.failf("S2: %s holds %v, which nobody wrote", key, sib.Dot)
				return
			}
			left = append(left, x)
		}
		for _, x := range k.writes[key] {
			if !x.acked {
				continue
			}
			if !k.accounted(x, left) {
				s.failf("S1: the acknowledged %v of %s (%q, deleted %v) is lost: left is %s",
					x.dot, key, x.value, x.tombstone, describeObject(o))
			}
			for _, y := range left {
				if y != x && !s.setup.lww && slices.Contains(y.after, x) {
					s.failf("S3: %v of %s is back, which the acknowledged %v had replaced",
						y.dot, key, x.dot)
				}
			}
		}
	}
}

// accounted reports whether a write is there, was replaced by one that is, or was replaced by a
// tombstone that has been forgotten.
func (k *checker) accounted(x *simWritten, left []*simWritten) bool {
	for _, y := range left {
		if k.reaches(x, y) {
			return true
		}
	}
	for _, y := range k.writes[x.key] {
		if y.tombstone && k.reaches(x, y) && !slices.Contains(left, y) {
			return true
		}
	}
	return false
}

// idle checks that nothing is left under way: S12 and S13.
func (k *checker) idle() {
	for _, n := range k.sim.nodes {
		if n.core.pending != 0 || len(n.tokens) != 0 {
			k.sim.failf("S13: %s has %d requests under way, %d unanswered", n.id, n.core.pending,
				len(n.tokens))
		}
		for id, op := range n.core.ops {
			k.sim.failf("S12: %s still has the operation %x, a %T", n.id, id, op)
		}
	}
}

// deletedLeft returns a key that still has a tombstone, "" when none has.
func (k *checker) deletedLeft() string {
	for key := range k.writes {
		part := PartitionOf([]byte(key))
		for _, id := range k.sim.place.Owners(part) {
			if o := k.sim.byID[id].disk.live.object(part, []byte(key)); o.Deleted() {
				return fmt.Sprintf("%s at %s: %s", key, id, describeObject(o))
			}
		}
	}
	return ""
}
