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
	n      int
	hashes []uint64 // of the names of the members

	owners    [Partitions][]int
	first     [Partitions]int // the owner asked first, or nobody
	holds     []partitionSet  // of each member
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
	for _, m := range members {
		a.hashes = append(a.hashes, nameHash(m.ID))
	}
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
	if a.holds[y].has(part) {
		return false
	}
	zone, extra := a.zoneOf[y], a.extra[part]
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
// short of replicas, then members that have too many hand some to members that are short, directly
// as long as that is possible and through others where it is not. From an empty assignment the
// first step alone is exact (zones and members by what they still lack: Gale, 1957).
func (a *assignment) settle() {
	for part := range Partitions {
		a.evict(part)
	}
	for part := range Partitions {
		for len(a.owners[part]) < a.n {
			if y := a.neediest(part, nobody); y != nobody {
				a.add(part, y)
			} else if !a.chain(part) {
				return // fault will say so
			}
		}
	}
	for a.handOver() {
	}
	for a.chain(nobody) {
	}
	a.settleFirsts()
}

// evict empties places that break a bound of the partition, those of the members with the largest
// surplus. What an earlier placement said may do so when zones or N have changed.
func (a *assignment) evict(part int) {
	for {
		out := nobody
		for _, i := range a.owners[part] {
			zone := a.zoneOf[i]
			in := a.inZone[part][zone]
			breaks := in > a.upper[zone] || in > a.lower[zone] && a.extra[part] > a.extras
			if breaks && (out == nobody || a.surplus(i) > a.surplus(out)) {
				out = i
			}
		}
		if out == nobody {
			return
		}
		a.remove(part, out)
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

// chain moves one replica to a member that is short of replicas by way of others: each takes a
// partition from the one before and gives another to the one after. It starts at an empty place of
// a partition or, for nobody, at the members with a surplus, and takes the shortest way; it
// reports whether there is one. While shares can be had at all there is: it is an augmenting path.
//
// All steps can be done together. When two of them are in one partition, a direct step from the
// first's giver to the second's taker would have been shorter; since it does not fit, the two are
// in different zones and neither uses the room of the other.
func (a *assignment) chain(part int) bool {
	type step struct{ part, from int }
	came := make([]step, len(a.have))
	seen := make([]bool, len(a.have))
	var queue []int
	end := nobody
	visit := func(part, x int) bool {
		for y := range a.have {
			if seen[y] || !a.fits(part, x, y) {
				continue
			}
			seen[y], came[y] = true, step{part, x}
			queue = append(queue, y)
			if a.surplus(y) < 0 {
				end = y
				return false
			}
		}
		return true
	}
	if part != nobody {
		visit(part, nobody)
	} else {
		for x := range a.have {
			if a.surplus(x) > 0 {
				seen[x], came[x] = true, step{nobody, nobody}
				queue = append(queue, x)
			}
		}
	}
	for at := 0; at < len(queue) && end == nobody; at++ {
		x := queue[at]
		a.holds[x].each(func(part int) bool { return visit(part, x) })
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
	for a.chainFirsts() {
	}
}

func (a *assignment) firstSurplus(i int) int { return a.haveFirst[i] - a.firsts[i] }

// chainFirsts moves one first place from a member that has too many to one that has too few, by
// way of others if need be, and reports whether it could. There may be no way, when a member's
// weight is out of proportion to what its zone lets it hold.
func (a *assignment) chainFirsts() bool {
	type step struct{ part, from int }
	came := make([]step, len(a.have))
	seen := make([]bool, len(a.have))
	var queue []int
	for x := range a.have {
		if a.firstSurplus(x) > 0 {
			seen[x], came[x] = true, step{nobody, nobody}
			queue = append(queue, x)
		}
	}
	for at := 0; at < len(queue); at++ {
		x := queue[at]
		if a.firstSurplus(x) < 0 {
			a.haveFirst[x]++
			for came[x].part != nobody {
				a.first[came[x].part] = x
				x = came[x].from
			}
			a.haveFirst[x]--
			return true
		}
		a.holds[x].each(func(part int) bool {
			if a.first[part] != x {
				return true
			}
			for _, y := range a.owners[part] {
				if !seen[y] {
					seen[y], came[y] = true, step{part, x}
					queue = append(queue, y)
				}
			}
			return true
		})
	}
	return false
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
	}
	for i := range a.have {
		if a.surplus(i) != 0 {
			return fmt.Sprintf("a member has %d replicas, not %d", a.have[i], a.replicas[i])
		}
	}
	return ""
}
