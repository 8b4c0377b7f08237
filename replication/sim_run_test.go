package replication

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

var (
	simSeed   = flag.Uint64("sim.seed", 0, "simulate this seed only, and say what happens")
	simTrace  = flag.Bool("sim.trace", false, "print what each node takes in, but gossip")
	simBudget = flag.Duration("budget", 0, "go on with fresh seeds for so long")
)

const simSeeds = 500 // of the everyday form

// run lives through the faults, heals, and waits for the replicas to agree.
func (s *simulation) run() {
	s.disturb(s.setup.length)
	s.net.Run(s.setup.length)
	s.ending = true
	s.heal()
	s.net.Run(s.setup.length + simTimeout + 2*time.Second)
	const patience = 120 * time.Second
	healed := s.net.Now()
	for s.failure == "" {
		left := s.checker.converged()
		if left == "" {
			break
		}
		if s.net.Now() > healed+patience {
			s.failf("not converged after %v: %s", patience, left)
			return
		}
		s.net.Run(s.net.Now() + time.Second)
	}
	s.figures["seconds to converge"] += int64((s.net.Now() - healed).Seconds())
	s.checker.final()
	if s.seed%4 == 0 && s.setup.deletes && !s.setup.off.collect {
		s.collect()
	}
	s.net.Run(s.net.Now() + servedFor + simTimeout)
	s.checker.idle()
}

// collect waits for the tombstones to be forgotten, after which nothing may be back.
func (s *simulation) collect() {
	began := s.net.Now()
	for s.failure == "" {
		left := s.checker.deletedLeft()
		if left == "" {
			break
		}
		if s.net.Now() > began+4*time.Minute {
			s.failf("a tombstone is left: %s", left)
		}
		s.net.Run(s.net.Now() + 5*time.Second)
	}
	if left := s.checker.converged(); left != "" {
		s.failf("after tombstones were forgotten: %s", left)
	}
	s.checker.final()
}

// trace prints what a node takes in.
func (n *simNode) trace(e Event) {
	at := fmt.Sprintf("%12v %s", n.sim.net.Now(), n.id)
	switch e.Kind {
	case EventMessage:
		m, err := decodePeerMessage(e.Message)
		if err == nil && m.kind != peerGossip {
			fmt.Printf("%s <- %s %v id=%x part=%d key=%q ack=%d flags=%x\n", at, e.From, m.kind, m.id,
				m.part, m.key, m.ack, m.flags)
		}
	case EventWork:
		if w := e.Work; w.Kind != WorkBuild && w.Kind != WorkDeleted {
			fmt.Printf("%s work %d for %d part=%d key=%q durable=%v err=%v %s\n", at, w.Kind, w.For,
				w.Part, w.Key, w.Result.Durable, w.Result.Err, describeObject(w.Result.Object))
		}
	case EventLink:
		fmt.Printf("%s link to %s up=%v\n", at, e.From, e.Up)
	}
}

func simulate(seed uint64, change func(*simSetup)) *simulation {
	s := newSimulation(seed, change)
	s.run()
	return s
}

func (s *simulation) String() string {
	return fmt.Sprintf("%+v", s.setup)
}

// TestSimulation lives through seeds, each twice: the second time everything must happen again.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		s := simulate(*simSeed, nil)
		t.Logf("%v\n%v\ntrace %x", s, s.figures, s.net.Hash())
		if s.failure != "" {
			t.Fatal(s.failure)
		}
		return
	}
	began := time.Now()
	first, seeds := uint64(1), uint64(simSeeds)
	if testing.Short() || raceEnabled {
		seeds = 40
	}
	if *simBudget > 0 {
		first, seeds = uint64(began.UnixNano()), 1<<62
	}
	total := map[string]int64{}
	for seed := first; seed < first+seeds; seed++ {
		if *simBudget > 0 && time.Since(began) > *simBudget {
			break
		}
		s := simulate(seed, nil)
		if s.failure != "" {
			t.Fatalf("seed %d: %s\nrepeat: go test ./replication -run TestSimulation -sim.seed=%d\n%v",
				seed, s.failure, seed, s)
		}
		if *simBudget == 0 || seed%16 == 0 {
			if again := simulate(seed, nil); again.net.Hash() != s.net.Hash() {
				t.Fatalf("seed %d went another way the second time", seed)
			}
			total["seeds run twice"]++
		}
		total["seeds"]++
		total["virtual seconds"] += int64(s.net.Now().Seconds())
		total["messages"] += int64(s.net.Delivered)
		for name, n := range s.figures {
			total[name] += n
		}
	}
	for _, name := range slices.Sorted(maps.Keys(total)) {
		t.Logf("proof: simulated %s %d", name, total[name])
	}
}
