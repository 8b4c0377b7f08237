package replication

import (
	"errors"
	"slices"
)

// A node whose disk was lost takes writes long before it has back what it once acknowledged. Until
// it has that of a partition, what it finds there is no evidence: its reads do not count, as if it
// was away. It has it when its trees have been equal, once, with those of each other owner. An
// owner with an empty disk of its own, on which nothing has come, has nothing to give: a cluster
// that is new serves at once.
//
// An owner that is down is not waited for where this node and those that it was equal with are
// more than half: a cluster that begins with one node missing serves. What only the lost disk and
// a node that is down have held is then missed until that is back.

// errBehind is why a page is not sent.
var errBehind = errors.New("replication: what this node has of the partition is not all")

// initBehind notes whom this node has to be equal with.
func (c *Core) initBehind() {
	c.behind = make(map[Partition][]NodeID)
	if c.cfg.Behind && !c.cfg.off.trees {
		for _, m := range c.place.Members {
			for _, part := range c.sync.shared[m.ID] {
				c.behind[part] = append(c.behind[part], m.ID)
			}
		}
	}
	c.replica.behind.Store(len(c.behind) > 0)
}

// counts tells whether reads of a partition by this node count.
func (c *Core) counts(part Partition) bool {
	left := c.behind[part]
	if len(left) == 0 {
		return true
	}
	owners := len(c.place.Owners(part))
	return owners-len(left) > owners/2 &&
		!slices.ContainsFunc(left, func(id NodeID) bool { return c.verdict(id) != Down })
}

// foundEqual notes that the trees of partitions are the same here and there. Two that cannot be
// read are not.
func (c *Core) foundEqual(id NodeID, parts ...Partition) {
	if len(c.behind) == 0 {
		return
	}
	for _, part := range parts {
		if c.replica.rootOf(part) != unreadable {
			c.hasAllOf(id, part)
		}
	}
}

// hasAllOf notes that this node has everything that another one has of some partitions.
func (c *Core) hasAllOf(id NodeID, parts ...Partition) {
	if len(c.behind) == 0 {
		return
	}
	for _, part := range parts {
		left := slices.DeleteFunc(c.behind[part], func(x NodeID) bool { return x == id })
		if c.behind[part] = left; len(left) == 0 {
			delete(c.behind, part)
		}
	}
	if len(c.behind) == 0 {
		c.replica.behind.Store(false)
		c.do(&Work{Kind: WorkCaughtUp, For: forNothing})
	}
}
