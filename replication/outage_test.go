package replication

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"kvd/replication/simnet"
)

var missedWrites = flag.Int("missed", 3000, "writes that a node misses in TestOutageIsMadeUpFor")

// A node that was away gets what it missed: by hints alone, or by the comparison of trees alone.
// What it costs is bytes over the network and time.
func TestOutageIsMadeUpFor(t *testing.T) {
	for _, way := range []struct {
		name string
		off  switches
	}{
		{"hints", switches{trees: true, collect: true}},
		{"trees", switches{hints: true, collect: true}},
	} {
		t.Run(way.name, func(t *testing.T) { testOutage(t, way.off) })
	}
}

func testOutage(t *testing.T, off switches) {
	l := newLocalCluster(t, 3, off)
	c := l.client()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	value := make([]byte, 100)
	put := func(name string, n int) {
		pairs := make([]Pair, n)
		for i := range pairs {
			pairs[i] = Pair{fmt.Appendf(nil, "%s%010d", name, i), value}
		}
		if err := c.PutAll(ctx, pairs, WriteOptions{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("before", *missedWrites/10)
	time.Sleep(500 * time.Millisecond)
	l.down[2].Store(true)
	for _, n := range l.nodes[:2] {
		n.PeerDown("n3", nil)
	}
	l.nodes[2].PeerDown("n1", nil)
	l.nodes[2].PeerDown("n2", nil)
	put("missed", *missedWrites)
	bytes := 0
	it := l.nodes[0].replica.store.Iter([]byte{dataPrefix}, []byte{dataPrefix + 1})
	for it.Next() {
		if string(it.Key()[dataHeadBytes:dataHeadBytes+6]) == "missed" {
			bytes += len(it.Key()) + len(it.Value()) - dataHeadBytes
		}
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	sent := func() (n int64) {
		for i := range l.sent {
			n += l.sent[i].Load()
		}
		return n
	}
	before, began := sent(), time.Now()
	l.down[2].Store(false)
	for i, n := range l.nodes {
		for j, m := range l.place.Members {
			if i != j && (i == 2 || j == 2) {
				n.PeerUp(string(m.ID))
			}
		}
	}
	key := func(i int) []byte { return fmt.Appendf(nil, "missed%010d", i) }
	for i := 0; i < *missedWrites; {
		o, _, err := l.nodes[2].replica.read(PartitionOf(key(i)), key(i))
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Clock) > 0 {
			i++
			continue
		}
		if ctx.Err() != nil {
			t.Fatalf("%s has not come in %v", key(i), time.Since(began))
		}
		time.Sleep(5 * time.Millisecond)
	}
	took, total := time.Since(began), sent()-before
	t.Logf("%d keys of %d bytes in all came in %v; %d bytes were sent in all directions, %.2f times that",
		*missedWrites, bytes, took.Round(time.Millisecond), total, float64(total)/float64(bytes))
	if limit := 3.0; *missedWrites >= 3000 && float64(total) > limit*float64(bytes) {
		t.Errorf("more than %.1f times what was missed was sent", limit)
	}
}

// Requests that were passed on and lost with their connection left the nodes they had been passed
// on to silent until the deadline of the clients.
func TestLostForwardSilencesNobody(t *testing.T) {
	s := quietCluster(4, switches{})
	owners, others := s.owners("k")
	d := others[0]
	link := func(n *simNode, up bool) {
		d.step(Event{Kind: EventLink, From: n.id, Up: up})
		n.step(Event{Kind: EventLink, From: d.id, Up: up})
	}
	for _, o := range owners {
		s.net.Cut(d.name, o.name)
		s.net.Cut(o.name, d.name)
	}
	for range owners {
		s.request(d, &Op{Kind: KindWrite, Key: []byte("k"), Value: []byte("v"), Level: Quorum,
			Strict: true}, time.Hour, func([]byte) {})
		s.net.Run(s.net.Now() + 400*time.Millisecond)
	}
	for _, o := range owners {
		link(o, false)
	}
	s.healNetwork()
	s.net.Run(s.net.Now() + 100*time.Millisecond)
	for _, o := range owners {
		link(o, true)
	}
	s.net.Run(s.net.Now() + 20*time.Second)
	if _, err := s.put(d, "k", "v", Quorum, true); err != nil {
		t.Errorf("all are there since twenty seconds: %v", err)
	}
}

// acked tells how many of some keys, which were all written at QUORUM, a strict read at QUORUM does
// not find, and how many it cannot read.
func (s *simulation) acked(n *simNode, keys int) (missed, failed int) {
	for i := range keys {
		a, err := s.ask(n, &Op{Kind: KindRead, Key: fmt.Append(nil, "k", i), Strict: true})
		switch {
		case err != nil:
			failed++
		case len(a.values) == 0:
			missed++
		}
	}
	return missed, failed
}

// A disk was lost that had held what another owner had missed. While it was empty it counted in
// strict quorums: what was acknowledged at QUORUM was not found at QUORUM, with all nodes up.
func TestEmptyDiskIsNoWitness(t *testing.T) {
	const keys = 50
	s := quietCluster(3, switches{})
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	c.crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	for i := range keys {
		if _, err := s.put(a, fmt.Sprint("k", i), "v", Quorum, true); err != nil {
			t.Fatal(err)
		}
	}
	a.crash()
	a.disk = new(simDisk)
	c.start()
	a.start()
	s.net.Run(s.net.Now() + 30*time.Millisecond)
	for _, n := range s.nodes {
		if missed, failed := s.acked(n, keys); missed > 0 || failed > 0 {
			t.Errorf("at %s: %d of %d are not found, %d not read", n.id, missed, keys, failed)
		}
	}
	page, err := s.body(a, &Op{Kind: KindPage, Part: PartitionOf([]byte("k0")), Strict: true})
	if err != nil || !strings.Contains(string(page), "k0") {
		t.Errorf("a page: %q, %v", page, err)
	}
	s.net.Cut(a.name, c.name) // until a has what both others have
	a.crash()
	a.start()
	s.net.Run(s.net.Now() + time.Second)
	if a.core.counts(PartitionOf([]byte("k0"))) {
		t.Error("after a restart it counts")
	}
	s.healNetwork()
	s.net.Run(s.net.Now() + time.Minute)
	if len(a.core.behind) > 0 || a.replica.behind.Load() {
		t.Errorf("it is behind in %d partitions for ever", len(a.core.behind))
	}
	b.crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	if missed, failed := s.acked(a, keys); missed > 0 || failed > 0 {
		t.Errorf("of what came back %d of %d are not found, %d not read", missed, keys, failed)
	}
	a.crash()
	a.start()
	if a.core.cfg.Behind {
		t.Error("it has forgotten that it is not behind any more")
	}
}

// A cluster that is new serves at once, also when one of its nodes never comes.
func TestNewClusterServes(t *testing.T) {
	for _, missing := range []int{0, 1} {
		s := newSimulation(1, func(c *simSetup) {
			*c = simSetup{nodes: 3, replicas: 3, length: time.Second,
				faults: simnet.Faults{Delay: 200 * time.Microsecond}}
		})
		for _, n := range s.nodes[:missing] {
			n.crash()
			n.disk = new(simDisk)
		}
		s.net.Run(time.Second + time.Duration(missing)*15*time.Second)
		for i, n := range s.nodes[missing:] {
			if _, failed := s.acked(n, 20); failed > 0 {
				t.Errorf("without %d nodes: %d of 20 reads fail", missing, failed)
			}
			if _, err := s.put(n, fmt.Sprint("k", i), "v", Quorum, true); err != nil {
				t.Error(err)
			}
		}
		for _, n := range s.nodes[:missing] {
			n.start()
		}
		s.net.Run(s.net.Now() + time.Minute)
		for _, n := range s.nodes {
			if len(n.core.behind) > 0 {
				t.Errorf("%s is behind in %d partitions", n.id, len(n.core.behind))
			}
		}
	}
}
