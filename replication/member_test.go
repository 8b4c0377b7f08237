package replication

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// oneGoroutine leaves out, with the race detector, a long test that has nothing for it.
func oneGoroutine(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine; it runs without the race detector")
	}
}

func TestLossAcrossSizesAndSeeds(t *testing.T) {
	oneGoroutine(t)
	for _, n := range []int{2, 3, 5, 20} {
		for seed := uint64(1); seed <= 2; seed++ {
			g := newGossipNet(n, seed)
			g.loss = 0.1
			wrong := 0
			g.run(time.Hour, func() { wrong += g.falselyDown() })
			if wrong > 0 {
				t.Errorf("%d members, seed %d: down %d times in an hour at 10 %% loss", n, seed, wrong)
			}
		}
	}
}

// mergeState is what a merge is to agree on.
func mergeState(m *Membership) (s string) {
	for i := range m.table {
		s += fmt.Sprintf("%d/%d ", m.table[i].incarnation, m.table[i].heartbeat)
	}
	return s
}

// The order in which tables come in, and how often, changes nothing in what is known.
func TestMergeIsInAnyOrder(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	ids := []NodeID{"n1", "n2", "n3", "n4"}
	for range 200 {
		var tables [][]gossipRow
		for range 6 {
			var rows []gossipRow
			for _, id := range ids[1:] {
				rows = append(rows, gossipRow{number: id.Number(), incarnation: rng.Uint32N(3),
					heartbeat: rng.Uint64N(4), suspect: rng.IntN(2) == 0})
			}
			tables = append(tables, rows)
		}
		merged := func(order []int) string {
			m := newMembership("n1", ids, 1, time.Second, rng)
			for _, i := range order {
				m.Receive(time.Second, "n2", tables[i])
			}
			return mergeState(m)
		}
		want := merged([]int{0, 1, 2, 3, 4, 5})
		if got := merged(append(rng.Perm(6), rng.Perm(6)...)); got != want {
			t.Fatalf("seed %d: %s in one order, %s in another", seed, want, got)
		}
	}
}

func TestMergeRule(t *testing.T) {
	for _, c := range []struct {
		name                string
		incarnation         uint32
		heartbeat           uint64
		advances            bool
		wantInc             uint32
		wantBeat            uint64
		wantVerdict, before Verdict
	}{
		{"an older heartbeat", 2, 9, false, 2, 10, Suspect, Suspect},
		{"the same", 2, 10, false, 2, 10, Suspect, Suspect},
		{"the next heartbeat", 2, 11, true, 2, 11, Alive, Down},
		{"an older life, whatever it counted", 1, 99, false, 2, 10, Suspect, Suspect},
		{"a new life counts anew", 3, 1, true, 3, 1, Alive, Down},
	} {
		ids := []NodeID{"n1", "n2", "n3"}
		m := newMembership("n1", ids, 1, time.Second, rand.New(rand.NewPCG(1, 1)))
		now := time.Minute
		m.table[2].incarnation, m.table[2].heartbeat, m.table[2].verdict = 2, 10, c.before
		m.Heard(now, "n2")
		m.Receive(now, "n2", []gossipRow{{number: ids[2].Number(), incarnation: c.incarnation,
			heartbeat: c.heartbeat}})
		x := m.table[2]
		if x.incarnation != c.wantInc || x.heartbeat != c.wantBeat || x.verdict != c.wantVerdict ||
			(x.detector.last == now) != c.advances {
			t.Errorf("%s: %d/%d, %v", c.name, x.incarnation, x.heartbeat, x.verdict)
		}
	}
}

// A node learns from others which of its lives they know.
func TestReceiveTellsTheOwnIncarnation(t *testing.T) {
	ids := []NodeID{"n1", "n2"}
	m := newMembership("n1", ids, 1, time.Second, rand.New(rand.NewPCG(1, 1)))
	rows := []gossipRow{{number: ids[0].Number(), incarnation: 7, heartbeat: 3}}
	if own := m.Receive(0, "n2", rows); own != 7 || m.Incarnation("n1") != 1 {
		t.Errorf("others know life %d, this is %d", own, m.Incarnation("n1"))
	}
	if own := m.Receive(0, "n9", rows); own != 0 {
		t.Errorf("a stranger says %d and is believed", own)
	}
}

func TestGossipBytes(t *testing.T) {
	ids := []NodeID{"n1", "n2"}
	m := newMembership("n1", ids, 3, time.Second, rand.New(rand.NewPCG(1, 1)))
	m.table[0].heartbeat = 300
	m.table[1].verdict = Down
	const want = "01" + "a704b0f4" + "03000000" + "ac02" + "00" + "47daf977" + "00000000" + "00" + "01"
	if got := hex.EncodeToString(m.Gossip(nil, true)); got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

func TestGossipOfFiftyFitsADatagram(t *testing.T) {
	m := newGossipNet(50, 1).members[0]
	for i := range m.table {
		m.table[i].incarnation, m.table[i].heartbeat = math.MaxUint32, math.MaxUint64
	}
	if n := len(m.Gossip(nil, true)); n != 1+50*19 {
		t.Errorf("%d bytes", n)
	}
}

func TestGossipRefusesWhatIsNotCanonical(t *testing.T) {
	row := func(rest ...byte) []byte { return append([]byte{0, 1, 2, 3, 4, 1, 0, 0, 0}, rest...) }
	for name, b := range map[string][]byte{
		"nothing": nil, "flags": {2}, "cut short": row(5), "overlong": row(0x80, 0, 0),
		"verdict": row(5, 2), "half a row": append(row(5, 1), 9),
	} {
		if rows, _, err := decodeGossip(b); err == nil {
			t.Errorf("%s: %v", name, rows)
		}
	}
}

func FuzzGossipIsCanonical(f *testing.F) {
	f.Add(newGossipNet(3, 1).members[0].Gossip(nil, true))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, wantReply, err := decodeGossip(b)
		if err != nil {
			return
		}
		again := []byte{0}
		if wantReply {
			again[0] = 1
		}
		for _, r := range rows {
			again = r.appendTo(again)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

// With confirmation a node that cannot hear one member, not even through others, keeps it; without,
// it does not.
func TestConfirmationIsWhatKeepsAnUnheardMember(t *testing.T) {
	with(t, switches{confirm: true}, func(off switches) error {
		g := newGossipNet(5, 9)
		for _, m := range g.members {
			m.alone = off.confirm
		}
		g.deaf[[2]int{1, 0}] = true
		var err error
		g.run(10*time.Minute, func() {
			if n := g.falselyDown(); n > 0 && err == nil {
				err = fmt.Errorf("after %v %d live members are down", g.now, n)
			}
		})
		return err
	})
}

// In a partition each side takes the other for down, and after it nobody does.
func TestPartition(t *testing.T) {
	g := newGossipNet(5, 10)
	g.run(30*time.Second, nil)
	side := []int{0, 0, 0, 1, 1}
	for i := range side {
		for j := range side {
			g.cut[[2]int{i, j}] = side[i] != side[j]
		}
	}
	g.run(30*time.Second, nil)
	for i, m := range g.members {
		for j := range side {
			if want := side[i] != side[j]; i != j && (m.table[j].verdict == Down) != want {
				t.Errorf("parted: n%02d takes n%02d for %v", i, j, m.table[j].verdict)
			}
		}
	}
	clear(g.cut)
	g.run(10*time.Second, nil)
	if n := g.falselyDown(); n > 0 {
		t.Errorf("together again: %d are down", n)
	}
}

// A heartbeat is known to all within a number of rounds that grows with the logarithm of n.
func TestRoundsGrowWithTheLogarithm(t *testing.T) {
	for _, n := range []int{3, 10, 25, 50} {
		var rounds []float64
		for seed := uint64(1); seed <= 10; seed++ {
			g := newGossipNet(n, seed)
			g.run(20*time.Second, nil)
			beat := g.members[0].table[0].heartbeat + 1
			for g.members[0].table[0].heartbeat < beat {
				g.run(100*time.Millisecond, nil)
			}
			began := g.now - 100*time.Millisecond
			knows := func() (k int) {
				for _, m := range g.members {
					if m.table[0].heartbeat >= beat {
						k++
					}
				}
				return k
			}
			for knows() < n && g.now-began < time.Minute {
				g.run(100*time.Millisecond, nil)
			}
			rounds = append(rounds, (g.now - began).Seconds())
		}
		worst, limit := slices.Max(rounds), math.Log2(float64(n))+2
		t.Logf("%d members: %.1f rounds at most in 10 seeds", n, worst)
		if worst > limit {
			t.Errorf("%d members: more than %.1f rounds", n, limit)
		}
	}
}
