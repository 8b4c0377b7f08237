package replication

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// gossipNet is members that exchange gossip and nothing else.
type gossipNet struct {
	now     time.Duration
	rng     *rand.Rand
	members []*Membership
	up      []bool
	cut     map[[2]int]bool
	deaf    map[[2]int]bool // the second hears nothing of the first, not even through others
	loss    float64
}

func newGossipNet(n int, seed uint64) *gossipNet {
	g := &gossipNet{rng: rand.New(rand.NewPCG(seed, 2)), cut: map[[2]int]bool{},
		deaf: map[[2]int]bool{}}
	var ids []NodeID
	for i := range n {
		ids = append(ids, NodeID(fmt.Sprintf("n%02d", i)))
	}
	for _, id := range ids {
		g.members = append(g.members, newMembership(id, ids, 1, time.Second, g.rng))
		g.up = append(g.up, true)
	}
	return g
}

func (g *gossipNet) send(from, to int, wantReply bool) {
	if !g.up[to] || g.cut[[2]int{from, to}] || g.deaf[[2]int{from, to}] || g.rng.Float64() < g.loss {
		return
	}
	rows, reply, err := decodeGossip(g.members[from].Gossip(nil, wantReply))
	if err != nil {
		panic(err)
	}
	rows = slices.DeleteFunc(rows, func(r gossipRow) bool {
		about := slices.IndexFunc(g.members[to].table, func(x member) bool { return x.id.Number() == r.number })
		return g.deaf[[2]int{about, to}]
	})
	g.members[to].Heard(g.now, g.members[from].table[from].id)
	g.members[to].Receive(g.now, g.members[from].table[from].id, rows)
	if reply {
		g.send(to, from, false)
	}
}

// run lets time pass and calls each after every step.
func (g *gossipNet) run(d time.Duration, each func()) {
	const step = 100 * time.Millisecond
	for end := g.now + d; g.now < end; g.now += step {
		for i, m := range g.members {
			if !g.up[i] || g.now < m.Next() {
				continue
			}
			for _, id := range m.Tick(g.now) {
				g.send(i, m.index(id), true)
			}
		}
		if each != nil {
			each()
		}
	}
}

// falselyDown counts live members that a live one takes for down.
func (g *gossipNet) falselyDown() (n int) {
	for i, m := range g.members {
		for j := range g.members {
			if i != j && g.up[i] && g.up[j] && m.table[j].verdict == Down {
				n++
			}
		}
	}
	return n
}

func TestCrashIsSeenByAll(t *testing.T) {
	for _, n := range []int{2, 3, 5, 20, 50} {
		g := newGossipNet(n, uint64(n))
		g.run(30*time.Second, nil)
		g.up[0] = false
		began, seen := g.now, time.Duration(0)
		g.run(60*time.Second, func() {
			all := true
			for i := 1; i < n; i++ {
				all = all && g.members[i].table[0].verdict == Down
			}
			if all && seen == 0 {
				seen = g.now - began
			}
		})
		t.Logf("%d members: a crash is known to all after %v", n, seen)
		if seen == 0 || seen > 30*time.Second {
			t.Errorf("%d members: it took %v", n, seen)
		}
		g.members[0] = newMembership("n00", ids(g), 2, time.Second, g.rng)
		g.members[0].next = g.now
		g.up[0] = true
		g.run(5*time.Second, nil)
		for i := 1; i < n; i++ {
			if g.members[i].table[0].verdict != Alive {
				t.Errorf("%d members: n%02d has not noticed that it is back", n, i)
			}
		}
	}
}

func ids(g *gossipNet) (all []NodeID) {
	for i := range g.members {
		all = append(all, g.members[0].table[i].id)
	}
	return all
}

func TestLossTakesNobodyOutOfService(t *testing.T) {
	g := newGossipNet(9, 3)
	g.loss = 0.1
	wrong := 0
	g.run(time.Hour, func() { wrong += g.falselyDown() })
	if wrong > 0 {
		t.Errorf("live members were down %d times in an hour at 10 %% loss", wrong)
	}
}

func TestOneWayLinkTakesNobodyOutOfService(t *testing.T) {
	g := newGossipNet(5, 4)
	g.cut[[2]int{1, 0}] = true
	g.run(10*time.Minute, func() {
		if n := g.falselyDown(); n > 0 {
			t.Fatalf("after %v %d live members are down", g.now, n)
		}
	})
}

// A process that was stopped for a minute begins to listen anew instead of taking everybody for
// dead.
func TestStoppedProcessTakesNobodyForDown(t *testing.T) {
	g := newGossipNet(5, 5)
	g.run(30*time.Second, nil)
	g.up[0] = false
	g.run(time.Minute, nil)
	g.up[0] = true
	g.run(5*time.Second, func() {
		for j := 1; j < 5; j++ {
			if g.members[0].table[j].verdict == Down {
				t.Fatalf("it takes n%02d for down", j)
			}
		}
	})
	if n := g.falselyDown(); n > 0 {
		t.Errorf("%d live members are down", n)
	}
}

func TestHeartbeatsSpreadQuickly(t *testing.T) {
	g := newGossipNet(50, 6)
	g.run(20*time.Second, nil)
	beat := g.members[0].table[0].heartbeat
	g.run(8*time.Second, nil)
	for i, m := range g.members {
		if m.table[0].heartbeat < beat {
			t.Errorf("n%02d has not heard heartbeat %d within 8 rounds", i, beat)
		}
	}
}

// After an outage of an hour the next one is noticed as soon as the first.
func TestOutageMakesNobodyPatient(t *testing.T) {
	g := newGossipNet(3, 7)
	g.run(30*time.Second, nil)
	for range 2 {
		g.up[2] = false
		g.run(20*time.Second, nil)
		if g.members[0].table[2].verdict != Down {
			t.Fatalf("at %v it is not noticed", g.now)
		}
		g.run(time.Hour, nil)
		g.up[2] = true
		g.run(20*time.Second, nil)
	}
}

func FuzzDecodeGossip(f *testing.F) {
	f.Add(newGossipNet(3, 1).members[0].Gossip(nil, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, _, err := decodeGossip(b)
		if err == nil && len(rows)*10 > len(b) {
			t.Errorf("%d rows of %d bytes", len(rows), len(b))
		}
	})
}

// clockAt sets the clock of a node that is down: it shows that many seconds since 1970.
func (n *simNode) clockAt(second uint32) {
	n.clock = time.Duration(int64(second)*1000-simWall)*time.Millisecond - n.sim.net.Now()
}

// rewritten writes a key at all nodes and tells whether both others have it, whatever the node that
// coordinated the write has forgotten.
func (s *simulation) rewritten(owners []*simNode) error {
	if _, err := s.put(owners[0], "k", "new", All, true); err != nil {
		return err
	}
	s.net.Run(s.net.Now() + 60*time.Second)
	for _, n := range owners {
		o := n.disk.live.object(PartitionOf([]byte("k")), []byte("k"))
		if v := o.Values(); len(v) != 1 || string(v[0].Value) != "new" {
			return fmt.Errorf("a write acknowledged at ALL is not at %s, which has %s", n.id,
				describeObject(o))
		}
	}
	return nil
}

// A node on an empty disk that was started again before it had heard from anybody took itself for
// one that knows its lives: with its clock behind, it gave out dots of a life before once more.
func TestEmptyDiskIsRememberedAcrossARestart(t *testing.T) {
	s := quietCluster(3, switches{})
	owners, _ := s.owners("k")
	a := owners[0]
	if _, err := s.put(a, "k", "old", All, true); err != nil {
		t.Fatal(err)
	}
	first := a.replica.incarnation.Load()
	a.crash()
	a.disk = new(simDisk)
	a.clockAt(first - 1)
	a.start()
	a.crash()
	a.clockAt(first - 1)
	a.start()
	if a.core.ready {
		t.Error("it is ready before it has asked")
	}
	s.net.Run(s.net.Now() + 30*time.Second)
	if err := s.rewritten(owners); err != nil {
		t.Error(err)
	}
}

// What others know of lives counts whichever of them answers first, and also when the disk refuses
// to note it at first.
func TestLastLifeIsTheLatestThatAnybodyKnows(t *testing.T) {
	s := quietCluster(3, switches{})
	a := s.nodes[0]
	a.crash()
	a.disk = new(simDisk)
	first := s.nodes[1].core.incarnationOf(a.id)
	m := s.nodes[2].core.members
	m.table[m.index(a.id)].incarnation = first + 5
	s.net.Cut(s.nodes[1].name, s.nodes[2].name)
	s.net.Cut(s.nodes[2].name, s.nodes[1].name)
	a.clockAt(first)
	a.start()
	a.disk.full = true
	s.net.Run(s.net.Now() + 5*time.Second)
	if a.core.ready {
		t.Error("ready although the disk is full")
	}
	a.disk.full = false
	s.net.Run(s.net.Now() + 5*time.Second)
	if n := a.replica.incarnation.Load(); !a.core.ready || n <= first+5 {
		t.Errorf("life %d after one that is known as %d, ready: %v", n, first+5, a.core.ready)
	}
}

// Where all nodes were started anew, nobody has heard of the life whose disk is gone. What it has
// written tells of it.
func TestLivesAreKnownAfterARestartOfAll(t *testing.T) {
	s := quietCluster(3, switches{})
	owners, _ := s.owners("k")
	a := owners[0]
	if _, err := s.put(a, "k", "old", All, true); err != nil {
		t.Fatal(err)
	}
	first := a.replica.incarnation.Load()
	for _, n := range owners {
		n.crash()
	}
	a.disk = new(simDisk)
	a.clockAt(first)
	for _, n := range owners {
		n.start()
	}
	s.net.Run(s.net.Now() + 30*time.Second)
	if n := a.replica.incarnation.Load(); n <= first {
		t.Errorf("life %d after %d", n, first)
	}
	if err := s.rewritten(owners); err != nil {
		t.Error(err)
	}
}
