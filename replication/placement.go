package replication

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// NodeID is the name of a node: 1 to 64 bytes of letters, digits, '.', '_' and '-'.
type NodeID string

// Number is the node in 32 bits, as clocks carry it. Members of one cluster have distinct numbers.
func (id NodeID) Number() uint32 { return uint32(xxhash.Sum64String(string(id))) }

// Limits of a placement.
const (
	MaxMembers  = Partitions // at equal weights each has a partition to be the first of
	MaxReplicas = 16
	MaxWeight   = 1_000_000

	nameBytesMax = 64
)

// Member is one node of the cluster.
type Member struct {
	ID NodeID
	// Addr is where the node listens. No decision depends on it: a node may move. Empty where
	// nobody connects.
	Addr string
	// Zone is what fails together: a rack, a building. Members that name none share one zone.
	Zone string
	// Weight is the share of the data the node is given, relative to the others. 0 means 1.
	Weight int
}

// Placement says which nodes hold which partition. Every node computes it for itself, from the
// same list of members, and comes to the same: [Placement.Digest] is compared when nodes meet.
//
// Each partition is on N distinct members, and those are in N distinct zones; with fewer zones
// than that, spread over them as evenly as their sizes allow. Within this, replicas are shared out
// by weight, exactly but for rounding to whole partitions, and so are the first places. A member
// can hold a partition only once: what a weight asks for beyond that is shared by the others.
//
// A Placement does not change once made, so any number of goroutines may use it. It is used by
// pointer. The slices are not to be changed.
type Placement struct {
	Epoch   uint64   // counts the changes of the members, from 1
	N       int      // replicas of each partition
	Members []Member // by ID; weights as they count, from 1

	index     map[NodeID]int // into Members
	byNumber  map[uint32]int
	owners    []NodeID // N for each partition, the first first
	digest    uint64
	fallbacks [Partitions]atomic.Pointer[[]NodeID] // each made when first asked for
}

// PlacementError says why there can be no such placement.
type PlacementError struct {
	Member NodeID // whom it is about, if it is about one
	Reason string
}

func (e *PlacementError) Error() string {
	if e.Member == "" {
		return "replication: placement: " + e.Reason
	}
	return fmt.Sprintf("replication: placement: member %q: %s", e.Member, e.Reason)
}

// NewPlacement places n replicas of each partition from scratch. The order of the members does not
// matter. It fails with a [*PlacementError].
func NewPlacement(epoch uint64, members []Member, n int) (*Placement, error) {
	p, err := describe(epoch, members, n)
	if err != nil {
		return nil, err
	}
	return p, p.assign(newAssignment(p.Members, n))
}

// Reassign returns the placement that follows p when the members, their weights or n are others,
// and how many replicas have to be copied to a member that did not hold them under p. It is as
// balanced as one from scratch, and moves little more than the balance demands. It depends on p,
// not on the members alone.
func (p *Placement) Reassign(epoch uint64, members []Member, n int) (*Placement, int, error) {
	if epoch <= p.Epoch {
		return nil, 0, &PlacementError{
			Reason: fmt.Sprintf("epoch %d does not follow %d", epoch, p.Epoch)}
	}
	next, err := describe(epoch, members, n)
	if err != nil {
		return nil, 0, err
	}
	a := newAssignment(next.Members, n)
	for part := range Partitions {
		for place, id := range p.Owners(Partition(part)) {
			if i, stays := next.index[id]; stays {
				a.add(part, i)
				if place == 0 {
					a.first[part] = i
				}
			}
		}
	}
	if err := next.assign(a); err != nil {
		return nil, 0, err
	}
	moved := 0
	for part := range Partition(Partitions) {
		for _, id := range next.Owners(part) {
			if !p.Owns(id, part) {
				moved++
			}
		}
	}
	return next, moved, nil
}

// describe checks the members and returns a placement that lacks the owners.
func describe(epoch uint64, members []Member, n int) (*Placement, error) {
	p := &Placement{Epoch: epoch, N: n, Members: slices.Clone(members)}
	switch {
	case epoch == 0:
		return nil, &PlacementError{Reason: "epochs count from 1"}
	case len(members) == 0:
		return nil, &PlacementError{Reason: "no members"}
	case len(members) > MaxMembers:
		return nil, &PlacementError{Reason: fmt.Sprintf("%d members, %d are possible",
			len(members), MaxMembers)}
	case n < 1 || n > MaxReplicas || n > len(members):
		return nil, &PlacementError{Reason: fmt.Sprintf("%d replicas on %d members, "+
			"1 to %d are possible", n, len(members), min(MaxReplicas, len(members)))}
	}
	slices.SortFunc(p.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	p.index = make(map[NodeID]int, len(members))
	p.byNumber = make(map[uint32]int, len(members))
	addrs := make(map[string]NodeID, len(members))
	for i := range p.Members {
		m := &p.Members[i]
		if m.Weight == 0 {
			m.Weight = 1
		}
		if reason := m.fault(); reason != "" {
			return nil, &PlacementError{Member: m.ID, Reason: reason}
		}
		if _, twice := p.index[m.ID]; twice {
			return nil, &PlacementError{Member: m.ID, Reason: "named twice"}
		}
		if other, twice := p.byNumber[m.ID.Number()]; twice {
			return nil, &PlacementError{Member: m.ID, Reason: fmt.Sprintf(
				"has the number of %q: give it another name", p.Members[other].ID)}
		}
		if other, twice := addrs[m.Addr]; twice && m.Addr != "" {
			return nil, &PlacementError{Member: m.ID,
				Reason: fmt.Sprintf("has the address of %q", other)}
		}
		p.index[m.ID], p.byNumber[m.ID.Number()], addrs[m.Addr] = i, i, m.ID
	}
	return p, nil
}

// fault returns what is wrong with a member seen alone, "" if nothing is.
func (m *Member) fault() string {
	switch {
	case m.ID == "":
		return "has no name"
	case !plainName(string(m.ID)):
		return "a name is at most 64 letters, digits, '.', '_' and '-'"
	case !plainName(m.Zone):
		return "a zone is at most 64 letters, digits, '.', '_' and '-'"
	case m.Weight < 1 || m.Weight > MaxWeight:
		return fmt.Sprintf("weight %d is not in 1 to %d", m.Weight, MaxWeight)
	}
	return ""
}

func plainName(s string) bool {
	return len(s) <= nameBytesMax && strings.IndexFunc(s, func(r rune) bool {
		switch {
		case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return false
		}
		return r != '.' && r != '_' && r != '-'
	}) < 0
}

// assign completes a with what it does not say yet and takes the owners from it.
func (p *Placement) assign(a *assignment) error {
	a.settle()
	if reason := a.fault(); reason != "" {
		return &PlacementError{Reason: reason}
	}
	p.owners = make([]NodeID, 0, Partitions*p.N)
	for part := range Partitions {
		for _, i := range a.order(part) {
			p.owners = append(p.owners, p.Members[i].ID)
		}
	}
	p.digest = p.sum()
	return nil
}

// sum hashes all that must be equal on all nodes.
func (p *Placement) sum() uint64 {
	b := binary.AppendUvarint(nil, Partitions)
	b = binary.AppendUvarint(b, p.Epoch)
	b = binary.AppendUvarint(b, uint64(p.N))
	b = binary.AppendUvarint(b, uint64(len(p.Members)))
	for _, m := range p.Members {
		b = appendField(b, []byte(m.ID))
		b = appendField(b, []byte(m.Zone))
		b = binary.AppendUvarint(b, uint64(m.Weight))
	}
	for _, id := range p.owners {
		b = binary.AppendUvarint(b, uint64(p.index[id]))
	}
	return xxhash.Sum64(b)
}

// Digest is equal on two nodes when they agree on the epoch, on N, on the members with their zones
// and weights, and on who holds what. Addresses are not in it.
func (p *Placement) Digest() uint64 { return p.digest }

// String names what the owners of the keys depend on: "n1 n2@zone*2 n3, 3 replicas".
func (p *Placement) String() string {
	var b strings.Builder
	for _, m := range p.Members {
		b.WriteString(string(m.ID))
		if m.Zone != "" {
			b.WriteString("@" + m.Zone)
		}
		if m.Weight != 1 {
			fmt.Fprintf(&b, "*%d", m.Weight)
		}
		b.WriteByte(' ')
	}
	return fmt.Sprintf("%s, %d replicas", strings.TrimSuffix(b.String(), " "), p.N)
}

// Owners returns the members that hold a partition, in the order in which they are asked. Nothing
// is allocated.
func (p *Placement) Owners(part Partition) []NodeID {
	from := int(part) * p.N
	return p.owners[from : from+p.N : from+p.N]
}

// Owns reports whether a member holds a partition.
func (p *Placement) Owns(id NodeID, part Partition) bool {
	return slices.Contains(p.Owners(part), id)
}

// Owned returns the partitions that a member holds, ascending.
func (p *Placement) Owned(id NodeID) []Partition { return p.Shared(id, id) }

// Shared returns the partitions that two members both hold, ascending: those they compare.
func (p *Placement) Shared(a, b NodeID) []Partition {
	var parts []Partition
	for part := range Partition(Partitions) {
		if p.Owns(a, part) && p.Owns(b, part) {
			parts = append(parts, part)
		}
	}
	return parts
}

// Fallbacks returns all the members that do not hold a partition, in the order in which they stand
// in for owners that fail: first one of each zone that has no owner, so that the stand-ins fail
// together neither with owners nor with each other, then the rest, both by rendezvous hash, so
// that the load of a failed node is spread over all. The list is made once and then shared.
func (p *Placement) Fallbacks(part Partition) []NodeID {
	if made := p.fallbacks[part].Load(); made != nil {
		return *made
	}
	type candidate struct {
		score  uint64
		member int
	}
	owners, zones := p.Owners(part), map[string]bool{}
	all := make([]candidate, 0, len(p.Members)-p.N)
	for i, m := range p.Members {
		if slices.Contains(owners, m.ID) {
			zones[m.Zone] = true
		} else {
			all = append(all, candidate{rendezvous(int(part), nameHash(m.ID)), i})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.member, b.member))
	})
	list, rest := make([]NodeID, 0, len(all)), make([]NodeID, 0, len(all))
	for _, c := range all {
		if m := &p.Members[c.member]; zones[m.Zone] {
			rest = append(rest, m.ID)
		} else {
			zones[m.Zone] = true
			list = append(list, m.ID)
		}
	}
	list = append(list, rest...)
	p.fallbacks[part].Store(&list) // whoever is second stores the same
	return list
}

// Member returns the member of that name.
func (p *Placement) Member(id NodeID) (Member, bool) {
	i, ok := p.index[id]
	if !ok {
		return Member{}, false
	}
	return p.Members[i], true
}

// ByNumber returns the member whose ID has that number.
func (p *Placement) ByNumber(number uint32) (Member, bool) {
	i, ok := p.byNumber[number]
	if !ok {
		return Member{}, false
	}
	return p.Members[i], true
}

func nameHash(id NodeID) uint64 { return xxhash.Sum64String(string(id)) }

// rendezvous is how much a partition likes a member (Thaler and Ravishankar, "Using name-based
// mappings to increase hit rates", 1998): a number that looks drawn, and that nothing else about
// the cluster enters. The mixing is that of splitmix64.
func rendezvous(part int, member uint64) uint64 {
	h := member + uint64(part+1)*0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
