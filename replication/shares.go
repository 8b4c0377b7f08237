package replication

// shares is how many replicas and first places each member should have. All of it is arithmetic on
// integers: floating point would not give the same on every machine.
type shares struct {
	*claims
	replicas []int // of each member
	firsts   []int

	zoneOf       []int // of each member
	zoneReplicas []int // of each zone: the sum over its members

	// A partition has between lower and upper replicas in each zone; they differ by one at most.
	// Beyond the lower bounds it has extras replicas, each in another zone.
	lower, upper []int
	extras       int
}

// shareOut computes the shares of the members, which are in an order that all agree on.
func shareOut(members []Member, n int) *shares {
	s := &shares{claims: newClaims(members)}
	s.replicas, s.firsts = make([]int, len(members)), make([]int, len(members))
	s.divideZones(members, n)

	// A polymatroid: giving seats away one by one to the best claim that the bounds admit is
	// optimal, once the lower bounds are met.
	s.zoneReplicas = make([]int, len(s.lower))
	give := func(count int, open func(i int) bool) {
		for ; count > 0; count-- {
			i := s.best(s.replicas, open)
			s.replicas[i]++
			s.zoneReplicas[s.zoneOf[i]]++
		}
	}
	for zone, lower := range s.lower {
		give(lower*Partitions, func(i int) bool {
			return s.zoneOf[i] == zone && s.replicas[i] < Partitions
		})
	}
	give(s.extras*Partitions, func(i int) bool {
		zone := s.zoneOf[i]
		return s.replicas[i] < Partitions && s.zoneReplicas[zone] < s.upper[zone]*Partitions
	})

	for range Partitions {
		i := s.best(s.firsts, func(i int) bool { return s.firsts[i] < s.replicas[i] })
		s.firsts[i]++
	}
	return s
}

// divideZones says how many of n replicas a partition has in each zone: as if they were dealt out
// zone by zone, round after round, skipping the zones that have no member left. Whoever gets one
// in the last round is left open.
func (s *shares) divideZones(members []Member, n int) {
	number := map[string]int{}
	var sizes []int
	s.zoneOf = make([]int, len(members))
	for i, m := range members {
		zone, known := number[m.Zone]
		if !known {
			zone = len(sizes)
			number[m.Zone] = zone
			sizes = append(sizes, 0)
		}
		sizes[zone]++
		s.zoneOf[i] = zone
	}
	s.lower, s.upper = make([]int, len(sizes)), make([]int, len(sizes))
	for room := 0; room < n; {
		s.extras = n - room
		room = 0
		for zone, size := range sizes {
			s.lower[zone] = s.upper[zone]
			s.upper[zone] = min(size, s.upper[zone]+1)
			room += s.upper[zone]
		}
	}
}

// claims compares what members have a right to.
type claims struct {
	weights []uint64
	hashes  []uint64 // of the names: who comes first among equals
}

func newClaims(members []Member) *claims {
	c := &claims{}
	for _, m := range members {
		c.weights = append(c.weights, uint64(m.Weight))
		c.hashes = append(c.hashes, nameHash(m.ID))
	}
	return c
}

// weaker reports whether x has less of a right to the last of its seats than y to one more.
func (c *claims) weaker(x, seatsX, y, seatsY int) bool {
	return c.weights[x]*uint64(2*seatsY+1) < c.weights[y]*uint64(2*seatsX-1)
}

// best returns the member with the best claim to one seat more, among those that are open to it:
// the one with the most weight for the seats it would have, the last counted half (Webster, 1832).
// Of the methods without bias this is the one under which a new member takes seats from others but
// never makes them exchange any. There must be an open one.
func (c *claims) best(seats []int, open func(i int) bool) int {
	best := -1
	var weight, halves uint64
	for i, n := range seats {
		w, h := c.weights[i], uint64(2*n+1)
		if best >= 0 {
			left, right := w*halves, weight*h
			if left < right || left == right && c.hashes[i] < c.hashes[best] {
				continue
			}
		}
		if open(i) {
			best, weight, halves = i, w, h
		}
	}
	return best
}
