package replication

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/replication/simnet"
)

// scan reads the partition of a key at a node, page by page.
func (s *simulation) scan(n *simNode, key string, r Level, limit int, strict bool) (
	map[string][]string, error) {
	op := Op{Kind: KindPage, Part: PartitionOf([]byte(key)), Level: r, Limit: uint64(limit),
		Strict: strict}
	all := map[string][]string{}
	for {
		body, err := s.body(n, &op)
		if err != nil {
			return nil, err
		}
		_, following, err := measureClusterPage(body, op.Lower)
		if err != nil {
			return nil, err
		}
		p := clusterPage{d: decoder{rest: body}}
		for p.next() {
			k := string(p.key)
			if all[k] != nil {
				return nil, fmt.Errorf("%q comes twice", k)
			}
			for _, v := range p.values {
				all[k] = append(all[k], string(v))
			}
		}
		if len(following) == 0 {
			return all, nil
		}
		op.Lower = following
	}
}

// received counts the messages of a kind that a node got.
func (n *simNode) received(k peerKind) uint64 { return n.core.Counts.Received[k] }

// TestScanFetchesPagesThatDiffer: of replicas that agree one sends its page and the others digests.
// One that has been away has missed a write and a delete: whoever asks it, nothing is missing, and
// nothing comes back.
func TestScanFetchesPagesThatDiffer(t *testing.T) {
	s := quietCluster(3, switches{hints: true, trees: true, readRepair: true})
	here, away := s.nodes[0], s.nodes[2]
	put := func(i int, value string, w Level) {
		t.Helper()
		if _, err := s.put(here, fmt.Sprint("{t}", i), value, w, false); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string][]string{}
	for i := range 20 {
		put(i, "v", All)
		want[fmt.Sprint("{t}", i)] = []string{"v"}
	}
	check := func(n *simNode, r Level, limit int, pages, digests uint64) {
		t.Helper()
		p, d := n.received(peerPage), n.received(peerPageDigest)
		got, err := s.scan(n, "{t}", r, limit, false)
		if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%v at %v: %v, %v", r, n.id, got, err)
		}
		p, d = n.received(peerPage)-p, n.received(peerPageDigest)-d
		if p != pages || d != digests {
			t.Errorf("%v at %v: %d pages and %d digests came, want %d and %d", r, n.id, p, d,
				pages, digests)
		}
	}
	check(here, One, 0, 0, 0)
	check(here, Quorum, 0, 0, 1)
	check(here, All, 0, 0, 2)
	check(here, All, 7, 0, 6) // three pages of each

	away.crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	put(3, "new", Quorum)
	_, err := s.ask(here, &Op{Kind: KindWrite, Key: []byte("{t}5"), Tombstone: true, Level: Quorum,
		Durability: lsm.Sync})
	if err != nil {
		t.Fatal(err)
	}
	want["{t}3"] = []string{"new"}
	delete(want, "{t}5")
	away.start()
	s.net.Run(s.net.Now() + 5*time.Second)
	check(away, Quorum, 0, 1, 1)
	check(away, All, 0, 1, 2)
	check(here, All, 0, 1, 2)
}

// TestScanWhenNodesAreSlowOrAway: five nodes, and one asks that is no owner. The third owner missed
// all writes, and is asked first; in the stories that are not strict the first of the others has
// them in its place.
func TestScanWhenNodesAreSlowOrAway(t *testing.T) {
	crash := func(s *simulation, owners ...*simNode) {
		for _, o := range owners {
			o.crash()
		}
		s.net.Run(s.net.Now() + 20*time.Second)
	}
	for _, c := range []struct {
		name           string
		harm           func(s *simulation, o []*simNode)
		strict         bool
		limit          time.Duration // for the scan
		pages, digests uint64        // that came
		fails          bool
	}{
		{"nobody", func(*simulation, []*simNode) {}, true, 100 * time.Millisecond, 2, 1, false},
		{"the one with the page is slow", func(_ *simulation, o []*simNode) { o[2].paused = true },
			true, time.Second, 1, 1, false},
		{"the one with the digest is slow", func(_ *simulation, o []*simNode) { o[0].paused = true },
			true, time.Second, 2, 1, false},
		{"two away", func(s *simulation, o []*simNode) { crash(s, o[:2]...) },
			false, 100 * time.Millisecond, 2, 0, false},
		{"two away, the third silent", func(s *simulation, o []*simNode) {
			crash(s, o[:2]...)
			o[2].paused = true
		}, false, 2 * simTimeout, 1, 0, true},
	} {
		s := quietCluster(5, switches{hints: true, trees: true, readRepair: true})
		owners, others := s.owners("{t}")
		crash(s, owners[2])
		asking := others[1]
		for i := range 20 {
			level := Quorum
			if !c.strict {
				level = All
			}
			if _, err := s.put(asking, fmt.Sprint("{t}", i), "v", level, c.strict); err != nil {
				t.Fatal(err)
			}
		}
		owners[2].start()
		s.net.Run(s.net.Now() + 5*time.Second)
		c.harm(s, owners)
		began, p, d := s.net.Now(), asking.received(peerPage), asking.received(peerPageDigest)
		got, err := s.scan(asking, "{t}", Quorum, 0, c.strict)
		_, unavailable := errors.AsType[*UnavailableError](err)
		if unavailable != c.fails || !c.fails && len(got) != 20 {
			t.Errorf("%s: %d pairs, %v", c.name, len(got), err)
		}
		if took := s.net.Now() - began; took > c.limit {
			t.Errorf("%s: it takes %v", c.name, took)
		}
		p, d = asking.received(peerPage)-p, asking.received(peerPageDigest)-d
		if p != c.pages || d != c.digests {
			t.Errorf("%s: %d pages and %d digests came, want %d and %d", c.name, p, d, c.pages,
				c.digests)
		}
	}
}

// TestScansDuringFaults writes one key after another while nodes come and go and messages are lost
// and doubled, and scans between writes. A scan of R replicas has to find the last value whose
// write W of them had acknowledged, or that of a write whose outcome is unknown.
func TestScansDuringFaults(t *testing.T) {
	seed, seeds := rand.Uint64(), uint64(20)
	if raceEnabled {
		seeds = 3 // a simulation is one goroutine
	}
	for i := range seeds {
		if err := scansDuringFaults(seed + i); err != nil {
			t.Errorf("seed %d: %v", seed+i, err)
		}
	}
}

func scansDuringFaults(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 7))
	s := newSimulation(seed, func(c *simSetup) {
		*c = simSetup{nodes: 3 + rng.IntN(3), replicas: 3, length: time.Second,
			faults: simnet.Faults{Delay: 200 * time.Microsecond, Jitter: 3 * time.Millisecond,
				Loss: 0.02, Double: 0.05}}
		c.off.hints, c.off.trees = rng.IntN(2) == 0, rng.IntN(2) == 0
	})
	s.net.Run(5 * time.Second)
	const keys = 30
	var acked [keys]string     // the last value
	var unknown [keys][]string // values of writes that failed
	scans := 0
	for step := range 300 {
		n := s.nodes[rng.IntN(len(s.nodes))]
		what := rng.IntN(10)
		if what > 0 && (!n.up || n.paused) {
			continue
		}
		switch i := rng.IntN(keys); what {
		case 0:
			s.harmOrHeal(n, rng)
		case 1, 2, 3:
			got, err := s.scan(n, "{t}", Quorum, rng.IntN(20), true)
			_, unavailable := errors.AsType[*UnavailableError](err)
			if unavailable || err == errNoAnswer {
				continue
			}
			if err != nil {
				return fmt.Errorf("step %d: %w", step, err)
			}
			scans++
			for i, last := range acked {
				found := got[fmt.Sprint("{t}", i)]
				ok := last == "" || slices.ContainsFunc(found, func(v string) bool {
					return v == last || slices.Contains(unknown[i], v)
				})
				if !ok {
					return fmt.Errorf("step %d: key %d is %v, want %v or one of %v", step, i, found,
						last, unknown[i])
				}
			}
		default:
			key, value := fmt.Sprint("{t}", i), fmt.Sprint("v", step)
			if _, err := s.put(n, key, value, Quorum, true); err != nil {
				unknown[i] = append(unknown[i], value)
			} else {
				acked[i] = value
			}
		}
	}
	if scans < 10 {
		return fmt.Errorf("only %d scans were answered", scans)
	}
	s.heal()
	s.net.Run(s.net.Now() + servedFor + simTimeout)
	if s.checker.idle(); s.failure != "" {
		return errors.New(s.failure)
	}
	return nil
}

// harmOrHeal takes a node away, or brings back the one that is.
func (s *simulation) harmOrHeal(n *simNode, rng *rand.Rand) {
	away := slices.IndexFunc(s.nodes, func(n *simNode) bool { return !n.up || n.paused })
	switch {
	case away >= 0 && s.nodes[away].paused:
		s.nodes[away].resume()
	case away >= 0:
		s.nodes[away].start()
	case rng.IntN(2) == 0:
		n.paused = true
	default:
		n.crash()
	}
	s.net.Run(s.net.Now() + time.Duration(rng.IntN(2000))*time.Millisecond)
}

func TestPageDigestsTellPagesApart(t *testing.T) {
	sums := map[uint64]string{}
	add := func(name string, more bool, parts ...string) {
		sum := newPageSum()
		for i := 0; i < len(parts); i += 2 {
			sum.add([]byte(parts[i]), []byte(parts[i+1]))
		}
		d := sum.end(more)
		if other, ok := sums[d]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		sums[d] = name
	}
	add("empty", false)
	add("empty, more", true)
	add("a pair", false, "ab", "c")
	add("a pair, more", true, "ab", "c")
	add("the same bytes, another key", false, "a", "bc")
	add("two pairs", false, "ab", "c", "d", "e")
	add("the same bytes in one pair", false, "ab", "cde")
	add("the same bytes and a length in one pair", false, "ab", "c\x01de")
	add("other order", false, "d", "e", "ab", "c")
	long := strings.Repeat("v", 10000)
	add("long", false, "k", long)
	add("long, another end", false, "k", long+"w")
	const golden = 0x61467ff9dc461ac6 // of 02 01 "ab" "c" 01
	if sums[golden] != "a pair, more" {
		t.Errorf("nodes before this one make another digest of the same page")
	}
}
