package replication

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// assignment is who holds what, in the making. Members are numbers, in the order of their names.
//
// It starts empty, or with what an earlier placement said, and settle turns that into one in which
// each partition has its replicas and each member exactly its share.
type assignment struct {
	*shares
	n int

	owners    [Partitions][]int
	first     [Partitions]int // the owner asked first, or nobody
	holds     []partitionSet  // of each member
	held      []partitionSet  // holds, as settle found it
	have      []int           // of each member: its replicas
	zoneHave  []int           // of each zone: the sum over its members
	inZone    [Partitions][]int
	extra     [Partitions]int // replicas beyond the lower bounds of zones
	haveFirst []int           // of each member: its first places
}

const nobody = -1

type partitionSet [Partitions / 64]uint64

func (s *partitionSet) has(part int) bool { return s[part/64]>>(part%64)&1 != 0 }
func (s *partitionSet) flip(part int)     { s[part/64] ^= 1 << (part % 64) }

func (s *partitionSet) subtract(o *partitionSet) {
	for i := range s {
		s[i] &^= o[i]
	}
}

// each calls f with every partition of the set until it returns false.
func (s *partitionSet) each(f func(part int) bool) {
	for i, word := range s {
		for ; word != 0; word &= word - 1 {
			if !f(i*64 + bits.TrailingZeros64(word)) {
				return
			}
		}
	}
}

func newAssignment(members []Member, n int) *assignment {
	a := &assignment{shares: shareOut(members, n), n: n}
	a.holds = make([]partitionSet, len(members))
	a.have, a.haveFirst = make([]int, len(members)), make([]int, len(members))
	zones := len(a.lower)
	a.zoneHave = make([]int, zones)
	counts := make([]int, Partitions*zones)
	for part := range Partitions {
		a.inZone[part], counts = counts[:zones:zones], counts[zones:]
		a.first[part] = nobody
	}
	return a
}

func (a *assignment) add(part, i int) {
	zone := a.zoneOf[i]
	a.owners[part] = append(a.owners[part], i)
	a.holds[i].flip(part)
	a.have[i]++
	a.zoneHave[zone]++
	if a.inZone[part][zone]++; a.inZone[part][zone] > a.lower[zone] {
		a.extra[part]++
	}
}

func (a *assignment) remove(part, i int) {
	zone := a.zoneOf[i]
	at := slices.Index(a.owners[part], i)
	a.owners[part] = slices.Delete(a.owners[part], at, at+1)
	a.holds[i].flip(part)
	a.have[i]--
	a.zoneHave[zone]--
	if a.inZone[part][zone]--; a.inZone[part][zone] >= a.lower[zone] {
		a.extra[part]--
	}
}

// replace puts y in the place of x, which may be nobody: a place that is empty.
func (a *assignment) replace(part, x, y int) {
	if x != nobody {
		a.remove(part, x)
	}
	a.add(part, y)
}

// fits reports whether y may take the place of x, or an empty place if x is nobody.
func (a *assignment) fits(part, x, y int) bool {
	return !a.holds[y].has(part) && a.admits(part, x, a.zoneOf[y])
}

// admits reports whether the place of x, or an empty one, may go to a zone.
func (a *assignment) admits(part, x, zone int) bool {
	extra := a.extra[part]
	if x != nobody {
		left := a.zoneOf[x]
		if left == zone {
			return true
		}
		if a.inZone[part][left] > a.lower[left] {
			extra--
		}
	}
	in := a.inZone[part][zone]
	return in < a.lower[zone] || in < a.upper[zone] && extra < a.extras
}

// surplus is how many replicas a member has beyond its share.
func (a *assignment) surplus(i int) int { return a.have[i] - a.replicas[i] }

// settle makes the assignment whole and balanced. Empty places are filled with members that are
// short of replicas, then members that have too many hand some to members that are short. Both is
// done directly as long as that is possible, then through others. From an empty assignment the
// direct way alone is exact (zones and members by what they still lack: Gale, 1957).
func (a *assignment) settle() {
	a.held = slices.Clone(a.holds)
	for part := range Partitions {
		a.evict(part)
	}
	for part := range Partitions {
		a.fill(part, func() bool { return a.chain(part, stepsFree) })
	}
	for part := range Partitions {
		a.fill(part, func() bool { return a.chain(part, stepsAny) })
	}
	for a.chain(nobody, stepsBack) {
	}
	for a.handOver() {
	}
	for a.chain(nobody, stepsFree) {
	}
	for a.chain(nobody, stepsAny) {
	}
	a.settleFirsts()
}

// fill fills the empty places of a partition, as far as it and the given other way go.
func (a *assignment) fill(part int, otherwise func() bool) {
	for len(a.owners[part]) < a.n {
		if y := a.neediest(part, nobody); y != nobody {
			a.add(part, y)
		} else if !otherwise() {
			return
		}
	}
}

// evict empties places that break a bound of the partition, those of the members with the largest
// surplus. What an earlier placement said may do so when zones or N have changed.
func (a *assignment) evict(part int) {
	evictFrom := func(crowded func(zone int) bool) bool {
		out := nobody
		for _, i := range a.owners[part] {
			if crowded(a.zoneOf[i]) && (out == nobody || a.surplus(i) > a.surplus(out)) {
				out = i
			}
		}
		if out != nobody {
			a.remove(part, out)
		}
		return out != nobody
	}
	in := a.inZone[part]
	for evictFrom(func(zone int) bool { return in[zone] > a.upper[zone] }) {
	}
	for a.extra[part] > a.extras {
		evictFrom(func(zone int) bool { return in[zone] > a.lower[zone] })
	}
}

// neediest returns who should take the place of x, nobody if no one who fits is short of replicas.
func (a *assignment) neediest(part, x int) int {
	best := nobody
	for y := range a.have {
		if a.surplus(y) >= 0 || best != nobody && !a.needier(part, y, best) {
			continue
		}
		if a.fits(part, x, y) {
			best = y
		}
	}
	return best
}

// needier orders candidates: whose zone must have a replica, whose zone lacks most, who lacks most
// itself, and among equals whom the partition likes.
func (a *assignment) needier(part, y, than int) bool {
	zy, zt := a.zoneOf[y], a.zoneOf[than]
	if zy != zt {
		must := a.inZone[part][zy] < a.lower[zy]
		if must != (a.inZone[part][zt] < a.lower[zt]) {
			return must
		}
		lackY, lackT := a.zoneReplicas[zy]-a.zoneHave[zy], a.zoneReplicas[zt]-a.zoneHave[zt]
		if lackY != lackT {
			return lackY > lackT
		}
	}
	if sy, st := a.surplus(y), a.surplus(than); sy != st {
		return sy < st
	}
	return rendezvous(part, a.hashes[y]) > rendezvous(part, a.hashes[than])
}

// handOver lets members with a surplus give partitions to members that are short of replicas, and
// reports whether any could.
func (a *assignment) handOver() bool {
	any := false
	var givers []int
	for part := range Partitions {
		givers = givers[:0]
		for _, x := range a.owners[part] {
			if a.surplus(x) > 0 {
				givers = append(givers, x)
			}
		}
		slices.SortFunc(givers, func(x, y int) int {
			return cmp.Or(cmp.Compare(a.surplus(y), a.surplus(x)),
				cmp.Compare(rendezvous(part, a.hashes[x]), rendezvous(part, a.hashes[y])))
		})
		for _, x := range givers {
			if y := a.neediest(part, x); y != nobody {
				a.replace(part, x, y)
				any = true
			}
		}
	}
	return any
}

// steps says which steps a chain may have, by what they cost: a replica is copied when a member
// ends up with a partition that it did not hold when settle began.
type steps int

const (
	stepsBack steps = iota // to members that held the partition and lost it: nothing is copied
	stepsFree              // the first copies; then only what members were given by settle goes on
	stepsAny               // each copies
)

// chain moves one replica to a member that is short of replicas by way of others: each takes a
// partition from the one before and gives another to the one after. It starts at an empty place of
// a partition or, for nobody, at the members with a surplus, and takes the shortest way; it
// reports whether there is one. As long as shares are not reached there is one of stepsAny, since
// they can be: it is an augmenting path.
//
// All steps can be done together. When two of them are in one partition, a direct step from the
// first's giver to the second's taker would have been shorter; since it does not fit, the two are
// in different zones and neither uses the room of the other.
func (a *assignment) chain(part int, steps steps) bool {
	type step struct{ part, from int }
	came := make([]step, len(a.have))
	unseen := make([][]int, len(a.zoneHave)) // members by zone
	var queue []int
	for x, zone := range a.zoneOf {
		if part == nobody && a.surplus(x) > 0 {
			came[x] = step{nobody, nobody}
			queue = append(queue, x)
		} else {
			unseen[zone] = append(unseen[zone], x)
		}
	}
	end := nobody
	visit := func(part, x int) bool {
		for zone, members := range unseen {
			if len(members) == 0 || !a.admits(part, x, zone) {
				continue
			}
			unseen[zone] = slices.DeleteFunc(members, func(y int) bool {
				if a.holds[y].has(part) || steps == stepsBack && !a.held[y].has(part) {
					return false
				}
				came[y] = step{part, x}
				queue = append(queue, y)
				if a.surplus(y) < 0 && end == nobody {
					end = y
				}
				return true
			})
		}
		return end == nobody
	}
	if part != nobody {
		visit(part, nobody)
	}
	for at := 0; at < len(queue) && end == nobody; at++ {
		x := queue[at]
		parts := a.holds[x]
		if steps == stepsFree && came[x].part != nobody {
			parts.subtract(&a.held[x])
		}
		parts.each(func(part int) bool { return visit(part, x) })
	}
	if end == nobody {
		return false
	}
	for y := end; y != nobody && came[y].part != nobody; y = came[y].from {
		a.replace(came[y].part, came[y].from, y)
	}
	return true
}

// settleFirsts chooses the first place of each partition among its owners. Those that have it keep
// it unless the balance demands otherwise.
func (a *assignment) settleFirsts() {
	for part, i := range a.first {
		if i == nobody || !a.holds[i].has(part) {
			a.first[part] = nobody
		} else {
			a.haveFirst[i]++
		}
	}
	for part := range a.first {
		if a.first[part] == nobody {
			i := slices.MinFunc(a.owners[part], func(x, y int) int {
				return cmp.Or(cmp.Compare(a.firstSurplus(x), a.firstSurplus(y)),
					cmp.Compare(rendezvous(part, a.hashes[y]), rendezvous(part, a.hashes[x])))
			})
			a.first[part] = i
			a.haveFirst[i]++
		}
	}
	for again := true; again; {
		again = false
		for y := range a.have {
			for a.firstSurplus(y) < 0 && a.takeFirst(y) {
				again = true
			}
		}
	}
}

func (a *assignment) firstSurplus(i int) int { return a.haveFirst[i] - a.firsts[i] }

// takeFirst gives y one first place more, and reports whether it could. It comes from a member that
// has too many, by way of others if need be: each takes the first place of a partition from the
// next. Where no such member is in reach, because the weights are out of proportion to what zones
// let members hold or because few partitions connect them, it comes from the one in reach with the
// weakest claim, if that is weaker than y's.
func (a *assignment) takeFirst(y int) bool {
	type step struct{ part, to int }
	came := make([]step, len(a.have))
	seen := make([]bool, len(a.have))
	seen[y] = true
	queue := []int{y}
	giver := nobody
	for at := 0; at < len(queue) && (giver == nobody || a.firstSurplus(giver) <= 0); at++ {
		to := queue[at]
		a.holds[to].each(func(part int) bool {
			x := a.first[part]
			if seen[x] {
				return true
			}
			seen[x], came[x] = true, step{part, to}
			queue = append(queue, x)
			if a.firstSurplus(x) > 0 || a.weaker(x, a.haveFirst[x], y, a.haveFirst[y]) &&
				(giver == nobody || a.weaker(x, a.haveFirst[x], giver, a.haveFirst[giver]-1)) {
				giver = x
			}
			return a.firstSurplus(x) <= 0
		})
	}
	if giver == nobody {
		return false
	}
	a.haveFirst[y]++
	a.haveFirst[giver]--
	for x := giver; x != y; x = came[x].to {
		a.first[came[x].part] = came[x].to
	}
	return true
}

// order returns the owners of a partition as they are asked: the first, then by rendezvous hash,
// so that the order says nothing of the past.
func (a *assignment) order(part int) []int {
	return slices.SortedFunc(slices.Values(a.owners[part]), func(x, y int) int {
		if x == a.first[part] || y == a.first[part] {
			if x == a.first[part] {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(rendezvous(part, a.hashes[y]), rendezvous(part, a.hashes[x])),
			cmp.Compare(x, y))
	})
}

// fault returns what a settled assignment lacks, "" if nothing. It would be a mistake of this file.
func (a *assignment) fault() string {
	for part, owners := range a.owners {
		if len(owners) != a.n {
			return fmt.Sprintf("partition %d is on %d members, not %d", part, len(owners), a.n)
		}
		for zone, in := range a.inZone[part] {
			if in < a.lower[zone] || in > a.upper[zone] {
				return fmt.Sprintf("partition %d has %d replicas in one zone", part, in)
			}
		}
	}
	for i := range a.have {
		if a.surplus(i) != 0 {
			return fmt.Sprintf("a member has %d replicas, not %d", a.have[i], a.replicas[i])
		}
	}
	return ""
}
