package replication

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// someMembers returns n members in zones taken in turn, with the weights taken in turn.
func someMembers(n, zones int, weights ...int) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{ID: NodeID(fmt.Sprintf("n%d", i+1)), Addr: fmt.Sprintf("host%d:7400", i),
			Zone: fmt.Sprintf("z%d", i%zones)}
		if len(weights) > 0 {
			members[i].Weight = weights[i%len(weights)]
		}
	}
	return members
}

func mustPlace(t testing.TB, members []Member, n int) *Placement {
	t.Helper()
	p, err := NewPlacement(1, members, n)
	if err != nil {
		t.Fatalf("%d members, N = %d: %v", len(members), n, err)
	}
	return p
}

// tally is what each member has.
func tally(p *Placement) (replicas, firsts map[NodeID]int) {
	replicas, firsts = map[NodeID]int{}, map[NodeID]int{}
	for part := range Partition(Partitions) {
		for place, id := range p.Owners(part) {
			replicas[id]++
			if place == 0 {
				firsts[id]++
			}
		}
	}
	return replicas, firsts
}

// fairShares returns what each member should have by the definition: in proportion to its weight,
// at most one replica of a partition, and within what its zone may have and must have. The common
// factor is searched by halving. Without zones in the way, firsts are in proportion to the weights.
func fairShares(p *Placement) (replicas, firsts map[NodeID]float64) {
	sizes, byZone := map[string]float64{}, map[string][]Member{}
	total := 0.0
	for _, m := range p.Members {
		sizes[m.Zone]++
		byZone[m.Zone] = append(byZone[m.Zone], m)
		total += float64(m.Weight)
	}
	level := 0.0 // the most replicas of a partition in one zone
	for room := 0.0; room < float64(p.N); {
		level++
		room = 0
		for _, size := range sizes {
			room += min(size, level)
		}
	}
	search := func(want float64, f func(factor float64) float64) float64 {
		lo, hi := 0.0, 1e9
		for range 80 {
			if mid := (lo + hi) / 2; f(mid) < want {
				lo = mid
			} else {
				hi = mid
			}
		}
		return hi
	}
	inZone := func(zone string, factor float64) (sum float64) {
		for _, m := range byZone[zone] {
			sum += min(factor*float64(m.Weight), Partitions)
		}
		return sum
	}
	bounded := func(zone string, factor float64) float64 {
		lower, upper := min(sizes[zone], level-1), min(sizes[zone], level)
		return min(max(inZone(zone, factor), lower*Partitions), upper*Partitions)
	}
	common := search(float64(p.N*Partitions), func(factor float64) (sum float64) {
		for zone := range sizes {
			sum += bounded(zone, factor)
		}
		return sum
	})
	replicas, firsts = map[NodeID]float64{}, map[NodeID]float64{}
	for zone := range sizes {
		factor := search(bounded(zone, common)-1e-6, func(f float64) float64 { return inZone(zone, f) })
		for _, m := range byZone[zone] {
			replicas[m.ID] = min(factor*float64(m.Weight), Partitions)
			firsts[m.ID] = Partitions * float64(m.Weight) / total
		}
	}
	return replicas, firsts
}

// near: within 5 % of the ideal, or not a whole partition away from it.
func near(got int, ideal float64) bool {
	off := math.Abs(float64(got) - ideal)
	return off < 1.001 || off <= 0.05*ideal
}

// checkPlacement: N distinct owners, zones as even as can be, shares as they should be.
func checkPlacement(t *testing.T, p *Placement) {
	t.Helper()
	sizes := map[string]int{}
	for _, m := range p.Members {
		sizes[m.Zone]++
	}
	for part := range Partition(Partitions) {
		owners := p.Owners(part)
		in := map[string]int{}
		for i, id := range owners {
			m, known := p.Member(id)
			if !known || slices.Contains(owners[:i], id) || !p.Owns(id, part) {
				t.Fatalf("partition %d: owners %v", part, owners)
			}
			in[m.Zone]++
		}
		if len(owners) != p.N || len(sizes) >= p.N && len(in) != p.N {
			t.Fatalf("partition %d: owners %v in %v", part, owners, in)
		}
		most := 0
		for _, count := range in {
			most = max(most, count)
		}
		for zone, size := range sizes {
			if most > in[zone]+1 && in[zone] < size {
				t.Fatalf("partition %d: %v of %v in the zones", part, in, sizes)
			}
		}
	}
	replicas, firsts := tally(p)
	wantReplicas, wantFirsts := fairShares(p)
	for _, m := range p.Members {
		if !near(replicas[m.ID], wantReplicas[m.ID]) {
			t.Errorf("%s, weight %d, zone %s: %d replicas, fair are %.1f", m.ID, m.Weight, m.Zone,
				replicas[m.ID], wantReplicas[m.ID])
		}
		// A zone may let a member hold less than it should be the first of.
		want := min(wantFirsts[m.ID], float64(replicas[m.ID]))
		if !near(firsts[m.ID], want) {
			t.Errorf("%s, weight %d, zone %s: the first of %d, fair are %.1f", m.ID, m.Weight,
				m.Zone, firsts[m.ID], want)
		}
	}
}

func TestPlacementIsFair(t *testing.T) {
	oneGoroutine(t)
	for _, size := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 30, 100, 333, 1000} {
		for _, zones := range []int{1, 2, 3, 4, 7, 1000} {
			for _, n := range []int{1, 2, 3, 5} {
				if n > size || zones > size && zones != 1000 {
					continue
				}
				t.Run(fmt.Sprintf("%d members, %d zones, N=%d", size, zones, n), func(t *testing.T) {
					checkPlacement(t, mustPlace(t, someMembers(size, zones), n))
				})
			}
		}
	}
}

func TestPlacementByWeight(t *testing.T) {
	for name, c := range map[string]struct {
		members []Member
		n       int
	}{
		"twice the disk":            {someMembers(9, 1, 1, 2), 3},
		"in three zones":            {someMembers(12, 3, 4, 4, 4, 2, 2, 2), 3},
		"in five zones":             {someMembers(50, 5, 1, 2, 3), 3},
		"many":                      {someMembers(1000, 10, 1, 2, 3, 4), 3},
		"large numbers":             {someMembers(20, 1, MaxWeight, MaxWeight/2), 3},
		"more than it can hold":     {someMembers(5, 1, 100, 1, 1, 1, 1), 3},
		"two more than they can":    {someMembers(6, 1, 1000, 1000, 1, 1, 1, 1), 3},
		"as many as replicas":       {someMembers(3, 1, 7, 2, 1), 3},
		"almost nothing":            {someMembers(4, 1, MaxWeight, MaxWeight, MaxWeight, 1), 3},
		"one alone in its zone":     {append(someMembers(6, 1), Member{ID: "far", Zone: "y"}), 3},
		"one alone in two":          {append(someMembers(6, 2), Member{ID: "far", Zone: "y"}), 3},
		"one alone, five replicas":  {append(someMembers(9, 1), Member{ID: "far", Zone: "y"}), 5},
		"all replicas there can be": {someMembers(16, 3), MaxReplicas},
	} {
		t.Run(name, func(t *testing.T) { checkPlacement(t, mustPlace(t, c.members, c.n)) })
	}
}

// TestPlacementAtRandom tries drawn clusters, most of them lopsided.
func TestPlacementAtRandom(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 2))
		p := mustPlace(t, drawMembers(r, 1+r.IntN(30)), 1)
		p = mustPlace(t, p.Members, 1+r.IntN(min(len(p.Members), 7)))
		if checkPlacement(t, p); t.Failed() {
			t.Fatalf("seed %d: N = %d, %v", seed, p.N, p.Members)
		}
	}
}

func drawMembers(r *rand.Rand, n int) []Member {
	members := make([]Member, n)
	zones, weights := 1+r.IntN(6), 1+r.IntN(5)
	for i := range members {
		members[i] = Member{ID: NodeID(fmt.Sprintf("m%d", i)), Weight: 1 + r.IntN(weights),
			Zone: fmt.Sprintf("z%d", r.IntN(1+r.IntN(zones)))}
	}
	return members
}

// TestPlacementSpreads: a member shares its partitions with all others about equally, so that what
// it held is copied, after it is lost, from all to all.
func TestPlacementSpreads(t *testing.T) {
	p := mustPlace(t, someMembers(12, 1), 3)
	for _, a := range p.Members {
		for _, b := range p.Members {
			if a == b {
				continue
			}
			shared, mean := len(p.Shared(a.ID, b.ID)), 256.0*2/11
			if float64(shared) < mean/2 || float64(shared) > mean*2 {
				t.Errorf("%s and %s share %d partitions, %.1f on average", a.ID, b.ID, shared, mean)
			}
		}
	}
}

// TestPlacementGolden: all nodes must come to the same, whatever machine and release they are. If
// this fails, nodes of this release refuse those of the last; a new algorithm needs a new way in.
func TestPlacementGolden(t *testing.T) {
	for _, c := range []struct {
		members []Member
		n       int
		digest  uint64
		owners  string // of partitions 0, 1 and 1023
	}{
		{someMembers(1, 1), 1, 0xdc2baf246b0259d,
			"[n1] [n1] [n1]"},
		{someMembers(3, 1), 3, 0x98056881864cc997,
			"[n3 n2 n1] [n3 n2 n1] [n2 n1 n3]"},
		{someMembers(5, 1), 3, 0x44e0f605f639c207,
			"[n4 n2 n3] [n3 n5 n2] [n2 n1 n4]"},
		{someMembers(9, 4, 1, 2, 3), 3, 0xd74e3e49051fdb69,
			"[n3 n6 n9] [n6 n3 n9] [n5 n8 n6]"},
		{someMembers(100, 7), 3, 0xbdcc8d5355117761,
			"[n23 n84 n78] [n22 n7 n72] [n96 n37 n43]"},
		{someMembers(1000, 10), 5, 0xa005b73ad901cd67,
			"[n107 n980 n863 n465 n199] [n693 n936 n470 n197 n789] [n143 n485 n310 n109 n748]"},
	} {
		p := mustPlace(t, c.members, c.n)
		owners := fmt.Sprint(p.Owners(0), p.Owners(1), p.Owners(1023))
		if p.Digest() != c.digest || owners != c.owners {
			t.Errorf("%d members, N = %d: %#x, %s; want %#x, %s", len(c.members), c.n, p.Digest(),
				owners, c.digest, c.owners)
		}
	}
}

func TestPlacementOrderOfMembers(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, size := range []int{3, 10, 200} {
		members := someMembers(size, 3, 1, 2)
		want := mustPlace(t, members, 3)
		for range 5 {
			r.Shuffle(size, func(i, j int) { members[i], members[j] = members[j], members[i] })
			got := mustPlace(t, members, 3)
			if got.Digest() != want.Digest() || !slices.Equal(got.owners, want.owners) {
				t.Fatalf("%d members in another order: another placement", size)
			}
		}
	}
}

// TestPlacementDigest: it tells apart all that nodes must agree on, and nothing else.
func TestPlacementDigest(t *testing.T) {
	base := mustPlace(t, someMembers(5, 2), 3)
	change := func(f func(m *Member)) []Member {
		members := someMembers(5, 2)
		f(&members[1])
		return members
	}
	for name, c := range map[string]struct {
		epoch   uint64
		members []Member
		n       int
		same    bool
	}{
		"the same":       {1, someMembers(5, 2), 3, true},
		"an address":     {1, change(func(m *Member) { m.Addr = "moved:1" }), 3, true},
		"weight 0 for 1": {1, change(func(m *Member) { m.Weight = 1 }), 3, true},
		"the epoch":      {2, someMembers(5, 2), 3, false},
		"N":              {1, someMembers(5, 2), 2, false},
		"a name":         {1, change(func(m *Member) { m.ID = "other" }), 3, false},
		"a zone":         {1, change(func(m *Member) { m.Zone = "zz" }), 3, false},
		"a weight":       {1, change(func(m *Member) { m.Weight = 2 }), 3, false},
		"one more":       {1, someMembers(6, 2), 3, false},
	} {
		p, err := NewPlacement(c.epoch, c.members, c.n)
		if err != nil {
			t.Fatal(err)
		}
		if same := p.Digest() == base.Digest(); same != c.same {
			t.Errorf("%s: the same digest: %t", name, same)
		}
	}
	// Other owners of the same members, as a placement with another past has them.
	other, _, err := mustPlace(t, someMembers(6, 2), 3).Reassign(2, someMembers(5, 2), 3)
	if err != nil {
		t.Fatal(err)
	}
	second, err := NewPlacement(2, someMembers(5, 2), 3)
	if err != nil {
		t.Fatal(err)
	}
	if same := slices.Equal(other.owners, second.owners); same || other.Digest() == second.Digest() {
		t.Errorf("placements with different pasts: the same owners %t, the same digest %t", same,
			other.Digest() == second.Digest())
	}
}

func TestPlacementRefuses(t *testing.T) {
	// Two names with one number, found by trying.
	const twin, otherTwin = "t42122", "t132206"
	with := func(m ...Member) []Member { return append(someMembers(2, 1), m...) }
	for name, c := range map[string]struct {
		epoch   uint64
		members []Member
		n       int
		member  NodeID
		says    string
	}{
		"no epoch":         {0, with(), 1, "", "epochs"},
		"nobody":           {1, nil, 1, "", "no members"},
		"too many":         {1, someMembers(MaxMembers+1, 1), 1, "", "1025 members"},
		"no replicas":      {1, with(), 0, "", "0 replicas on 2 members, 1 to 2"},
		"more than there":  {1, with(), 3, "", "3 replicas on 2 members, 1 to 2"},
		"too many copies":  {1, someMembers(20, 1), 17, "", "1 to 16"},
		"no name":          {1, with(Member{}), 1, "", "no name"},
		"a bad name":       {1, with(Member{ID: "a b"}), 1, "a b", "a name is"},
		"not ASCII":        {1, with(Member{ID: "é"}), 1, "é", "a name is"},
		"a long name":      {1, with(Member{ID: NodeID(strings.Repeat("x", 65))}), 1, "*", "a name is"},
		"a bad zone":       {1, with(Member{ID: "a", Zone: "z/1"}), 1, "a", "a zone is"},
		"negative weight":  {1, with(Member{ID: "a", Weight: -1}), 1, "a", "weight -1"},
		"too much weight":  {1, with(Member{ID: "a", Weight: MaxWeight + 1}), 1, "a", "weight 1000001"},
		"one name twice":   {1, with(Member{ID: "n1"}), 1, "n1", "twice"},
		"an address twice": {1, with(Member{ID: "x", Addr: "host0:7400"}), 1, "x", `address of "n1"`},
		"a number twice":   {1, with(Member{ID: twin}, Member{ID: otherTwin}), 1, "*", `number of "`},
	} {
		p, err := NewPlacement(c.epoch, c.members, c.n)
		var typed *PlacementError
		if p != nil || !errors.As(err, &typed) || !strings.Contains(err.Error(), c.says) ||
			typed.Member != c.member && c.member != "*" ||
			!strings.HasPrefix(err.Error(), "replication: placement: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := []Member{{ID: NodeID(strings.Repeat("x", 64))}, {ID: "A-z_0.9"}}
	mustPlace(t, good, 2)
	if p := mustPlace(t, someMembers(MaxMembers, 1), 1); len(p.Owned("n1")) != 1 {
		t.Error("of as many members as partitions one has none")
	}
}

func TestPlacementLookups(t *testing.T) {
	members := someMembers(7, 2)
	p := mustPlace(t, members, 3)
	for _, m := range members {
		m.Weight = 1
		if got, ok := p.Member(m.ID); !ok || got != m {
			t.Errorf("member %s: %v, %t", m.ID, got, ok)
		}
		if got, ok := p.ByNumber(m.ID.Number()); !ok || got != m {
			t.Errorf("number %d: %v, %t", m.ID.Number(), got, ok)
		}
		for _, part := range p.Owned(m.ID) {
			if !p.Owns(m.ID, part) || slices.Contains(p.Fallbacks(part), m.ID) {
				t.Errorf("%s does and does not own partition %d", m.ID, part)
			}
		}
	}
	if _, ok := p.Member("n8"); ok || p.Owned("n8") != nil || p.Owns("n8", 0) {
		t.Error("a stranger is a member")
	}
	if _, ok := p.ByNumber(NodeID("n8").Number()); ok {
		t.Error("a stranger's number is known")
	}
	if n := testing.AllocsPerRun(100, func() { p.Owners(77); p.Fallbacks(77) }); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// TestFallbacks: all others, first one of each zone without an owner, and spread evenly.
func TestFallbacks(t *testing.T) {
	p := mustPlace(t, someMembers(30, 6), 3)
	firstCount := map[NodeID]int{}
	for part := range Partition(Partitions) {
		list := p.Fallbacks(part)
		all := append(slices.Clone(list), p.Owners(part)...)
		slices.Sort(all)
		if all = slices.Compact(all); len(all) != 30 || len(list) != 27 {
			t.Fatalf("partition %d: %d owners and fallbacks", part, len(all))
		}
		zones := map[string]bool{}
		for _, id := range append(slices.Clone(p.Owners(part)), list[:3]...) {
			m, _ := p.Member(id)
			zones[m.Zone] = true
		}
		if len(zones) != 6 {
			t.Fatalf("partition %d: owners %v and the first of %v miss a zone", part, p.Owners(part), list)
		}
		firstCount[list[0]]++
	}
	for _, m := range p.Members {
		if n := firstCount[m.ID]; n < 15 || n > 60 {
			t.Errorf("%s is the first fallback of %d partitions, 34 on average", m.ID, n)
		}
	}
	if list := mustPlace(t, someMembers(3, 1), 3).Fallbacks(0); len(list) != 0 {
		t.Errorf("fallbacks %v where all are owners", list)
	}
	// Whoever asks at the same time gets the same.
	p = mustPlace(t, someMembers(30, 6), 3)
	var lists [8][]NodeID
	var group sync.WaitGroup
	for i := range lists {
		group.Go(func() { lists[i] = p.Fallbacks(5) })
	}
	group.Wait()
	for _, list := range lists {
		if !slices.Equal(list, lists[0]) {
			t.Errorf("%v and %v", list, lists[0])
		}
	}
}

// TestPlacementIsQuick: a node computes it at its start. The limits are far above what it takes, a
// slow machine is no failure.
func TestPlacementIsQuick(t *testing.T) {
	for _, c := range []struct {
		members []Member
		n       int
		limit   time.Duration
	}{
		{someMembers(9, 3), 3, 100 * time.Millisecond},
		{someMembers(1000, 10, 1, 2, 3), 3, 10 * time.Second},
		{someMembers(1000, 1000), 3, 10 * time.Second},
		{someMembers(1000, 2), MaxReplicas, 20 * time.Second},
	} {
		start := time.Now()
		p := mustPlace(t, c.members, c.n)
		placed := time.Since(start)
		start = time.Now()
		if _, _, err := p.Reassign(2, c.members[1:], c.n); err != nil {
			t.Error(err)
		}
		again := time.Since(start)
		t.Logf("%d members, N = %d: %v, %v again", len(c.members), c.n, placed, again)
		if placed > c.limit || again > c.limit {
			t.Errorf("more than %v", c.limit)
		}
	}
}

func BenchmarkNewPlacement(b *testing.B) {
	for _, size := range []int{3, 9, 100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			members := someMembers(size, 3)
			for range b.N {
				mustPlace(b, members, 3)
			}
		})
	}
}
