package replication

import (
	"cmp"
	"slices"
)

// Actor is who gives out dots: a node in one of its lives. A node that has lost its disk, or just
// what was not synced, is another actor afterwards and can never give out a dot again that it has
// forgotten (what riak_kv#679 was about).
type Actor uint64

// MakeActor joins the number of a node and its incarnation, which is at least 1.
func MakeActor(node, incarnation uint32) Actor { return Actor(node)<<32 | Actor(incarnation) }

// Node is the number of the node: NodeID.Number.
func (a Actor) Node() uint32 { return uint32(a >> 32) }

// Incarnation is that of the node's life.
func (a Actor) Incarnation() uint32 { return uint32(a) }

// Dot is the name of one write: the Seq-th, from 1, that the actor coordinated in one partition.
type Dot struct {
	Actor Actor
	Seq   uint64
}

func compareDots(a, b Dot) int {
	return cmp.Or(cmp.Compare(a.Actor, b.Actor), cmp.Compare(a.Seq, b.Seq))
}

// Clock is a version vector: for each actor the last of its dots that was seen, and with it all
// before that. It is sorted by actor, has an actor once and no Seq of 0. Clocks are never changed
// in place, so they may share memory.
type Clock []Dot

// Order is how two clocks, or what they stand for, relate.
type Order uint8

const (
	Equal      Order = iota
	Before           // the other has seen everything that this one has, and more
	After            // the other way round
	Concurrent       // each has seen what the other has not
)

// Covers reports whether d has been seen.
func (c Clock) Covers(d Dot) bool {
	i, there := slices.BinarySearchFunc(c, d.Actor, func(x Dot, a Actor) int {
		return cmp.Compare(x.Actor, a)
	})
	return there && c[i].Seq >= d.Seq
}

// Compare relates two clocks.
func (c Clock) Compare(o Clock) Order {
	less, more := false, false
	for len(c) > 0 && len(o) > 0 {
		switch {
		case c[0].Actor < o[0].Actor:
			more, c = true, c[1:]
		case c[0].Actor > o[0].Actor:
			less, o = true, o[1:]
		default:
			less = less || c[0].Seq < o[0].Seq
			more = more || c[0].Seq > o[0].Seq
			c, o = c[1:], o[1:]
		}
	}
	less = less || len(o) > 0
	more = more || len(c) > 0
	switch {
	case less && more:
		return Concurrent
	case less:
		return Before
	case more:
		return After
	}
	return Equal
}

// Merge has seen what either has. It may return one of the two.
func (c Clock) Merge(o Clock) Clock {
	switch c.Compare(o) {
	case Equal, After:
		return c
	case Before:
		return o
	}
	all := make(Clock, 0, len(c)+len(o))
	for len(c) > 0 && len(o) > 0 {
		switch {
		case c[0].Actor < o[0].Actor:
			all, c = append(all, c[0]), c[1:]
		case c[0].Actor > o[0].Actor:
			all, o = append(all, o[0]), o[1:]
		default:
			all = append(all, Dot{c[0].Actor, max(c[0].Seq, o[0].Seq)})
			c, o = c[1:], o[1:]
		}
	}
	return append(append(all, c...), o...)
}

// With has seen d too.
func (c Clock) With(d Dot) Clock {
	one := [1]Dot{d}
	m := c.Merge(one[:])
	if len(m) == 1 && len(c) == 0 {
		return Clock{d}
	}
	return m
}
