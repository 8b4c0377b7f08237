package replication

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"kvd/replication/simnet"
)

// A simulation is a cluster of cores on a simulated network with simulated disks, clients that
// write and read, and things that go wrong, all of it drawn from one seed. It ends with everything
// healed, and then has to converge. See sim_check_test.go for what must hold.
type simulation struct {
	seed    uint64
	setup   simSetup
	net     *simnet.Net
	rng     *rand.Rand
	place   *Placement
	nodes   []*simNode
	byID    map[NodeID]*simNode
	checker *checker
	clients []*simClient
	ending  bool // no more requests
	calls   uint64
	figures map[string]int64
	failure string
}

// simSetup is what is drawn first: the shape of the cluster and what it has to live through.
type simSetup struct {
	nodes, replicas, zones int
	clients, keys          int
	writeLevel, readLevel  Level
	strict                 bool
	lww                    bool
	faults                 simnet.Faults
	crashes, pauses        bool
	cuts, oneWay           bool
	wipes, clocks, slow    bool
	fullDisks              bool
	deletes                bool
	length                 time.Duration
	off                    switches
}

const simCluster = 0x51

// simWall is the time of day at which simulations begin.
const simWall = int64(1_700_000_000_000)

func drawSetup(rng *rand.Rand) simSetup {
	flip := func(p float64) bool { return rng.Float64() < p }
	s := simSetup{
		nodes:   3 + rng.IntN(7),
		zones:   rng.IntN(4),
		clients: 1 + rng.IntN(6),
		keys:    1 + rng.IntN(8),
		strict:  flip(0.3),
		lww:     flip(0.2),
		faults: simnet.Faults{Delay: time.Duration(50+rng.IntN(2000)) * time.Microsecond,
			Jitter: time.Duration(1+rng.IntN(20000)) * time.Microsecond},
		crashes: flip(0.7), pauses: flip(0.4), cuts: flip(0.5), oneWay: flip(0.3),
		wipes: flip(0.2), clocks: flip(0.3), slow: flip(0.3), fullDisks: flip(0.15),
		deletes: flip(0.6),
		length:  time.Duration(5+rng.IntN(20)) * time.Second,
	}
	s.replicas = min(s.nodes, 1+rng.IntN(5))
	if flip(0.6) {
		s.replicas = 3
	}
	if flip(0.5) {
		s.faults.Loss = rng.Float64() * 0.1
		s.faults.Double = rng.Float64() * 0.1
	}
	levels := []Level{Quorum, Quorum, Quorum, One, All}
	s.writeLevel, s.readLevel = levels[rng.IntN(5)], levels[rng.IntN(5)]
	if s.wipes && (s.writeLevel == One || s.replicas < 3) {
		s.wipes = false // the only copy would be lost, which nobody promises to survive
	}
	return s
}

// simNode is a node: what it is, and the life that it lives at the moment.
type simNode struct {
	sim  *simulation
	id   NodeID
	name string
	disk *simDisk

	core    *Core
	replica *Replica
	life    int // raised by each start and end: what belongs to an earlier one is dropped
	up      bool
	paused  bool
	resumed time.Duration // when it last went on
	held    []func()      // what arrived while it was paused
	born    time.Duration
	clock   time.Duration // how far its time of day is off
	slow    time.Duration // added to everything its disk does
	wakes   time.Duration // the tick that is scheduled
	tokens  map[uint64]func([]byte)
	wiped   bool // its disk was lost in this simulation
}

func newSimulation(seed uint64, change func(*simSetup)) *simulation {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := &simulation{seed: seed, setup: drawSetup(rng), rng: rng, net: simnet.New(seed),
		byID: map[NodeID]*simNode{}, figures: map[string]int64{}}
	if change != nil {
		change(&s.setup)
	}
	s.net.Faults = s.setup.faults
	s.place = simPlacement(s.setup.nodes, s.setup.replicas, s.setup.zones)
	s.checker = newChecker(s)
	for _, m := range s.place.Members {
		n := &simNode{sim: s, id: m.ID, name: string(m.ID), disk: new(simDisk)}
		s.nodes = append(s.nodes, n)
		s.byID[m.ID] = n
	}
	for _, n := range s.nodes {
		n.start()
	}
	for i := range s.setup.clients {
		s.clients = append(s.clients, newSimClient(s, i))
	}
	return s
}

// placements are made once for all simulations of one shape.
var placements = map[[3]int]*Placement{}

func simPlacement(nodes, replicas, zones int) *Placement {
	shape := [3]int{nodes, replicas, zones}
	if p := placements[shape]; p != nil {
		return p
	}
	var members []Member
	for i := range nodes {
		m := Member{ID: NodeID(fmt.Sprintf("n%d", i+1)), Addr: fmt.Sprintf("127.0.0.1:%d", i+1)}
		if zones > 1 {
			m.Zone = fmt.Sprintf("z%d", i%zones)
		}
		members = append(members, m)
	}
	p, err := NewPlacement(1, members, replicas)
	if err != nil {
		panic(err)
	}
	placements[shape] = p
	return p
}

func (s *simulation) failf(format string, args ...any) {
	if s.failure == "" {
		s.failure = fmt.Sprintf("%v: ", s.net.Now()) + fmt.Sprintf(format, args...)
	}
}

func (s *simulation) policy([]byte) Policy {
	if s.setup.lww {
		return LastWriterWins
	}
	return KeepSiblings
}

// start begins a life of a node on what its disk holds.
func (n *simNode) start() {
	n.life++
	n.up, n.paused, n.held = true, false, nil
	n.born, n.wakes = n.sim.net.Now(), never
	n.tokens = map[uint64]func([]byte){}
	last, err := claimStore(n.disk, n.id)
	if err != nil {
		panic(err)
	}
	life, err := beginLife(n.disk, last, n.instant().WallMillis)
	if err != nil {
		panic(err)
	}
	n.disk.durableTo(n.disk.mark())
	n.replica, err = newReplica(n.id, n.disk, n.sim.place, life.incarnation, n.sim.policy)
	if err != nil {
		panic(err)
	}
	n.core = NewCore(Config{
		Self: n.id, Placement: n.sim.place, Cluster: simCluster, Incarnation: life.incarnation,
		Fresh: life.fresh, Empty: life.empty, Behind: life.behind,
		Rand:   rand.New(rand.NewPCG(n.sim.seed, uint64(n.life)<<32|uint64(n.id.Number()))),
		Policy: n.sim.policy, SettleTime: 500 * time.Millisecond,
		CollectInterval: time.Second, CollectGrace: 20 * time.Second, FreshWait: 3 * time.Second,
		off: n.sim.setup.off,
	}, n.replica)
	for _, m := range n.sim.nodes {
		if m != n && m.up {
			n.linkSoon(m)
			m.linkSoon(n)
		}
	}
	n.step(Event{Kind: EventTick})
}

// linkSoon connects n to m, unless something happens before.
func (n *simNode) linkSoon(m *simNode) {
	life, theirs := n.life, m.life
	n.sim.net.After(10*time.Millisecond, func() {
		if n.life == life && m.life == theirs && n.up && m.up && !n.sim.net.IsCut(n.name, m.name) {
			n.arrives(func() { n.step(Event{Kind: EventLink, From: m.id, Up: true}) })
		}
	})
}

// linkBreaks tells n that it has no connection to m.
func (n *simNode) linkBreaks(m *simNode) {
	if n.up {
		n.arrives(func() { n.step(Event{Kind: EventLink, From: m.id}) })
	}
}

func (n *simNode) crash() {
	n.life++
	n.up = false
	n.disk.crash(n.sim.rng)
	for _, token := range sortedTokens(n.tokens) {
		n.tokens[token](nil) // the client's connection breaks
	}
	n.tokens = nil
	n.core, n.replica, n.held = nil, nil, nil
	for _, m := range n.sim.nodes {
		if m != n {
			m.linkBreaks(n)
		}
	}
}

func sortedTokens(m map[uint64]func([]byte)) (all []uint64) {
	for t := range m {
		all = append(all, t)
	}
	slices.Sort(all)
	return all
}

// arrives runs fn now, or when the node goes on.
func (n *simNode) arrives(fn func()) {
	if n.paused {
		n.held = append(n.held, fn)
		return
	}
	fn()
}

func (n *simNode) resume() {
	n.paused, n.resumed = false, n.sim.net.Now()
	held := n.held
	n.held = nil
	for i, fn := range held {
		if !n.up || n.paused {
			n.held = append(n.held, held[i:]...)
			return
		}
		fn()
	}
	if n.up {
		n.step(Event{Kind: EventTick})
	}
}

func (n *simNode) instant() Instant {
	now := n.sim.net.Now()
	return Instant{Since: now - n.born, WallMillis: simWall + (now + n.clock).Milliseconds()}
}

// step gives the core an event and carries out what it wants.
func (n *simNode) step(e Event) {
	core := n.core
	if *simTrace {
		n.trace(e)
	}
	for _, f := range slices.Clone(core.Step(n.instant(), e)) {
		switch f.Kind {
		case EffectSend:
			n.send(f)
		case EffectWork:
			n.work(f.Work)
		case EffectAnswer:
			if done := n.tokens[f.Token]; done != nil {
				delete(n.tokens, f.Token)
				done(f.Answer)
			}
		}
	}
	if n.core == core {
		n.schedule(core.NextWake())
	}
}

// schedule makes sure of a tick at the latest at the given time of the node.
func (n *simNode) schedule(at time.Duration) {
	if at >= n.wakes || at == never {
		return
	}
	n.wakes = at
	life := n.life
	n.sim.net.After(n.born+at-n.sim.net.Now(), func() {
		if n.life != life || n.wakes != at {
			return
		}
		n.wakes = never
		n.arrives(func() {
			if n.life == life {
				n.step(Event{Kind: EventTick})
			}
		})
	})
}

func (n *simNode) send(f Effect) {
	m := n.sim.byID[f.To]
	from := n.id
	n.sim.net.Send(n.name, m.name, f.Message, func(msg []byte) {
		if !m.up {
			return
		}
		m.arrives(func() {
			if m.up {
				m.step(Event{Kind: EventMessage, From: from, Message: msg})
			}
		})
	})
}

// work does a Work when the disk gets to it, and makes it durable a while later.
func (n *simNode) work(w *Work) {
	life, rng := n.life, n.sim.net.Rand
	delay := time.Duration(rng.IntN(100))*time.Microsecond + n.slow
	n.sim.net.After(delay, func() {
		n.arrivesInLife(life, func() {
			before := n.sim.checker.beforeWork(n, w)
			durable, done := n.replica.TryDo(w)
			if !done {
				durable = n.replica.Do(w)
			}
			n.sim.checker.afterWork(n, w, before)
			if durable && w.For != forNothing {
				mark := n.disk.mark()
				took := time.Duration(200+rng.IntN(3000))*time.Microsecond + n.slow
				n.sim.net.After(took, func() {
					n.arrivesInLife(life, func() {
						n.disk.durableTo(mark)
						w.Result.Durable = true
						n.step(Event{Kind: EventWork, Work: w})
					})
				})
			}
			n.step(Event{Kind: EventWork, Work: w})
		})
	})
}

func (n *simNode) arrivesInLife(life int, fn func()) {
	if n.life != life {
		return
	}
	n.arrives(func() {
		if n.life == life {
			fn()
		}
	})
}

// request sends a request of a client to a node. done gets nil when the connection breaks.
func (s *simulation) request(n *simNode, op *Op, timeout time.Duration, done func([]byte)) uint64 {
	s.calls++
	token := s.calls
	msg := op.AppendTo(nil)
	s.net.After(50*time.Microsecond, func() {
		if !n.up {
			done(nil)
			return
		}
		n.tokens[token] = done
		n.arrives(func() {
			if !n.up {
				return
			}
			n.step(Event{Kind: EventRequest, Token: token, Request: msg,
				Deadline: n.instant().Since + timeout})
		})
	})
	return token
}
