package replication

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/replication/simnet"
)

// Each mechanism is shown to be needed: with it what is told here goes well, and without it the
// same does not.

// quietCluster is a cluster in which nothing goes wrong by itself and nobody writes by himself.
func quietCluster(nodes int, off switches) *simulation {
	s := newSimulation(1, func(c *simSetup) {
		*c = simSetup{nodes: nodes, replicas: 3, off: off, length: time.Second,
			faults: simnet.Faults{Delay: 200 * time.Microsecond, Jitter: 300 * time.Microsecond}}
	})
	s.net.Run(5 * time.Second)
	return s
}

var errNoAnswer = errors.New("no answer")

// body makes a request at a node and lets time pass until it is answered.
func (s *simulation) body(n *simNode, op *Op) ([]byte, error) {
	var answer []byte
	done := false
	s.request(n, op, simTimeout, func(a []byte) { answer, done = a, true })
	for end := s.net.Now() + 10*time.Second; !done && s.net.Now() < end; {
		s.net.Run(s.net.Now() + time.Millisecond)
	}
	if answer == nil {
		return nil, errNoAnswer
	}
	return decodeAnswer(answer)
}

// ask makes a read or write at a node.
func (s *simulation) ask(n *simNode, op *Op) (answered, error) {
	body, err := s.body(n, op)
	if err != nil {
		return answered{}, err
	}
	return decodeOpAnswer(body, op.Kind == KindRead)
}

func (s *simulation) put(n *simNode, key, value string, w Level, strict bool) (answered, error) {
	return s.ask(n, &Op{Kind: KindWrite, Key: []byte(key), Value: []byte(value), Level: w,
		Strict: strict, Durability: lsm.Sync})
}

func (s *simulation) get(n *simNode, key string, r Level) (answered, error) {
	return s.ask(n, &Op{Kind: KindRead, Key: []byte(key), Level: r})
}

// owners returns the nodes that hold a key, in their order, and the others.
func (s *simulation) owners(key string) (owners, others []*simNode) {
	part := PartitionOf([]byte(key))
	for _, id := range s.place.Owners(part) {
		owners = append(owners, s.byID[id])
	}
	for _, id := range s.place.Fallbacks(part) {
		others = append(others, s.byID[id])
	}
	return owners, others
}

func (n *simNode) has(key string) bool {
	return len(n.disk.live.object(PartitionOf([]byte(key)), []byte(key)).Clock) > 0
}

// with runs a story with a mechanism, which must end well, and without it, when it must not.
func with(t *testing.T, off switches, story func(off switches) error) {
	t.Helper()
	if err := story(switches{}); err != nil {
		t.Errorf("with everything on: %v", err)
	}
	if err := story(off); err == nil {
		t.Error("it goes well without: the story shows nothing")
	} else {
		t.Logf("without: %v", err)
	}
}

// missed writes while an owner is away, brings it back and says how many keys it lacks a while
// later.
func missed(off switches) error {
	s := quietCluster(3, off)
	away := s.nodes[2]
	away.crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	const keys = 50
	for i := range keys {
		if _, err := s.put(s.nodes[i%2], fmt.Sprint("k", i), "v", Quorum, false); err != nil {
			return fmt.Errorf("a write with two of three: %w", err)
		}
	}
	away.start()
	s.net.Run(s.net.Now() + 60*time.Second)
	lacking := 0
	for i := range keys {
		if !away.has(fmt.Sprint("k", i)) {
			lacking++
		}
	}
	if lacking > 0 {
		return fmt.Errorf("%d of %d keys are missing after the outage", lacking, keys)
	}
	return nil
}

func TestHintsBringWhatWasMissed(t *testing.T) {
	with(t, switches{hints: true, trees: true}, func(off switches) error {
		off.trees = true // nothing else could
		return missed(off)
	})
}

func TestTreesBringWhatWasMissed(t *testing.T) {
	with(t, switches{hints: true, trees: true}, func(off switches) error {
		off.hints = true // nothing else could
		return missed(off)
	})
}

func TestReadRepairBringsWhatIsRead(t *testing.T) {
	with(t, switches{readRepair: true}, func(off switches) error {
		off.hints, off.trees = true, true
		s := quietCluster(3, off)
		away := s.nodes[2]
		away.crash()
		s.net.Run(s.net.Now() + 20*time.Second)
		if _, err := s.put(s.nodes[0], "k", "v", Quorum, false); err != nil {
			return err
		}
		away.start()
		s.net.Run(s.net.Now() + 5*time.Second)
		if _, err := s.get(s.nodes[0], "k", All); err != nil {
			return err
		}
		s.net.Run(s.net.Now() + time.Second)
		if !away.has("k") {
			return errors.New("a read of all replicas left one behind")
		}
		return nil
	})
}

func TestSloppyQuorumTakesWritesOfAMinority(t *testing.T) {
	with(t, switches{sloppy: true}, func(off switches) error {
		s := quietCluster(5, off)
		owners, others := s.owners("k")
		owners[0].crash()
		owners[1].crash()
		s.net.Run(s.net.Now() + 30*time.Second)
		a, err := s.put(others[0], "k", "v", Quorum, false)
		if err != nil {
			return fmt.Errorf("a write with one of three owners: %w", err)
		}
		if len(a.nodes) < 2 {
			return fmt.Errorf("%d nodes hold it", len(a.nodes))
		}
		if v, err := s.get(others[1], "k", Quorum); err != nil || len(v.values) != 1 {
			return fmt.Errorf("a read with one of three owners: %v, %w", v.values, err)
		}
		owners[0].start()
		owners[1].start()
		s.net.Run(s.net.Now() + 30*time.Second)
		for _, n := range owners {
			if !n.has("k") {
				return fmt.Errorf("%s has not got it since", n.id)
			}
		}
		for _, n := range others {
			if n.has("k") {
				return fmt.Errorf("%s still keeps it", n.id)
			}
		}
		return nil
	})
}

// A strict quorum does not count who stands in.
func TestStrictQuorumIsRefusedWithoutOwners(t *testing.T) {
	s := quietCluster(5, switches{})
	owners, others := s.owners("k")
	owners[0].crash()
	owners[1].crash()
	s.net.Run(s.net.Now() + 30*time.Second)
	_, err := s.put(owners[2], "k", "v", Quorum, true)
	var u *UnavailableError
	if !errors.As(err, &u) || u.Need != 2 || u.Got != 1 {
		t.Errorf("a strict write with one of three owners: %v", err)
	}
	if s.byID[owners[2].id].has("k") || others[0].has("k") {
		t.Error("it was refused and written")
	}
}

func TestConfirmationKeepsANodeThatOneCannotHear(t *testing.T) {
	with(t, switches{confirm: true}, func(off switches) error {
		s := quietCluster(3, off)
		// n2 passes nothing on about n3 as long as it is silent itself: what n1 hears of n3 is
		// nothing, but n2 does not share its doubt.
		s.net.Cut("n3", "n1")
		for range 60 {
			s.net.Run(s.net.Now() + time.Second)
			m := s.nodes[0].core.members
			i := m.index("n3")
			m.table[i].detector = detector{mean: m.interval} // nothing since the beginning
			m.judge(s.nodes[0].instant().Since)
			if m.Verdict("n3") == Down {
				return errors.New("n1 takes n3 for down, which n2 hears")
			}
		}
		return nil
	})
}

func TestTombstonesAreCollected(t *testing.T) {
	with(t, switches{collect: true}, func(off switches) error {
		s := quietCluster(3, off)
		if _, err := s.put(s.nodes[0], "k", "v", All, false); err != nil {
			return err
		}
		if _, err := s.ask(s.nodes[0], &Op{Kind: KindWrite, Key: []byte("k"), Tombstone: true,
			Level: All}); err != nil {
			return err
		}
		s.net.Run(s.net.Now() + 4*time.Minute)
		for _, n := range s.nodes {
			if n.has("k") {
				return fmt.Errorf("%s still has the tombstone", n.id)
			}
		}
		return nil
	})
}

// A tombstone stays while a node is away that may hold what it covers.
func TestTombstonesStayWhileANodeIsAway(t *testing.T) {
	s := quietCluster(3, switches{})
	if _, err := s.put(s.nodes[0], "k", "v", All, false); err != nil {
		t.Fatal(err)
	}
	s.nodes[2].crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	if _, err := s.ask(s.nodes[0], &Op{Kind: KindWrite, Key: []byte("k"), Tombstone: true}); err != nil {
		t.Fatal(err)
	}
	s.net.Run(s.net.Now() + 5*time.Minute)
	if !s.nodes[0].has("k") || !s.nodes[1].has("k") {
		t.Fatal("the tombstone is gone although a node that has the value is away")
	}
	s.nodes[2].start()
	s.net.Run(s.net.Now() + 10*time.Second)
	if v, err := s.get(s.nodes[2], "k", One); err != nil || len(v.values) != 0 {
		t.Errorf("the deleted value is back: %q, %v", v.values, err)
	}
}

// Concurrent writes are both kept, a write with the context of both replaces both.
func TestSiblingsStayUntilTheyAreSeen(t *testing.T) {
	s := quietCluster(3, switches{})
	first, err := s.ask(s.nodes[0], &Op{Kind: KindRead, Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range []string{"a", "b"} {
		op := Op{Kind: KindWrite, Key: []byte("k"), Value: []byte(v), HasContext: true,
			Context: first.context}
		if _, err := s.ask(s.nodes[i], &op); err != nil {
			t.Fatal(err)
		}
	}
	both, err := s.get(s.nodes[2], "k", All)
	if err != nil || len(both.values) != 2 {
		t.Fatalf("two writes that had seen nothing: %q, %v", both.values, err)
	}
	op := Op{Kind: KindWrite, Key: []byte("k"), Value: []byte("ab"), HasContext: true,
		Context: both.context}
	if _, err := s.ask(s.nodes[0], &op); err != nil {
		t.Fatal(err)
	}
	one, err := s.get(s.nodes[1], "k", All)
	if err != nil || len(one.values) != 1 || string(one.values[0]) != "ab" {
		t.Errorf("after a write that had seen both: %q, %v", one.values, err)
	}
}

// Requests beyond the limit are refused at once, and the others are served.
func TestFullQueueRefusesAtOnce(t *testing.T) {
	s := quietCluster(3, switches{})
	n := s.nodes[0]
	n.core.cfg.MaxPending = 4
	refused, served := 0, 0
	for i := range 10 {
		op := Op{Kind: KindWrite, Key: fmt.Append(nil, "k", i), Value: []byte("v")}
		s.request(n, &op, simTimeout, func(a []byte) {
			switch _, err := decodeAnswer(a); {
			case errors.Is(err, ErrOverloaded):
				refused++
			case err == nil:
				served++
			}
		})
	}
	s.net.Run(s.net.Now() + time.Second)
	if refused != 6 || served != 4 {
		t.Errorf("%d refused, %d served of ten at a limit of four", refused, served)
	}
}

// Equal reads share answers, but none uses answers that were asked for before it came.
func TestEqualReadsShareAnswers(t *testing.T) {
	s := quietCluster(3, switches{})
	if _, err := s.put(s.nodes[0], "k", "v", All, false); err != nil {
		t.Fatal(err)
	}
	answers := 0
	for range 50 {
		s.request(s.nodes[0], &Op{Kind: KindRead, Key: []byte("k")}, simTimeout, func(a []byte) {
			if _, err := decodeAnswer(a); err == nil {
				answers++
			}
		})
	}
	before := s.nodes[1].core.Counts.Received[peerRead] + s.nodes[2].core.Counts.Received[peerRead]
	s.net.Run(s.net.Now() + time.Second)
	asked := s.nodes[1].core.Counts.Received[peerRead] + s.nodes[2].core.Counts.Received[peerRead] - before
	if answers != 50 || asked != 2 {
		t.Errorf("%d of 50 answered, after %d questions to other nodes", answers, asked)
	}
}

// A hint stays until its node has acknowledged what was owed, however often messages are lost.
func TestHintsSurviveLoss(t *testing.T) {
	s := quietCluster(3, switches{trees: true})
	away := s.nodes[2]
	away.crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	const keys = 50
	for i := range keys {
		if _, err := s.put(s.nodes[0], fmt.Sprint("k", i), "v", Quorum, false); err != nil {
			t.Fatal(err)
		}
	}
	s.net.Faults.Loss = 0.4
	away.start()
	s.net.Run(s.net.Now() + 5*time.Minute)
	for i := range keys {
		if !away.has(fmt.Sprint("k", i)) {
			t.Errorf("k%d is missing", i)
		}
	}
	if n := s.nodes[0].replica.hints.of(away.id.Number()); n != 0 {
		t.Errorf("%d hints are left", n)
	}
}

// A tombstone that one replica has missed comes to it by the comparison of trees too.
func TestTreesCompareTombstones(t *testing.T) {
	s := quietCluster(3, switches{hints: true})
	away := s.nodes[2]
	if _, err := s.put(s.nodes[0], "k", "v", All, false); err != nil {
		t.Fatal(err)
	}
	away.crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	if _, err := s.ask(s.nodes[0], &Op{Kind: KindWrite, Key: []byte("k"), Tombstone: true}); err != nil {
		t.Fatal(err)
	}
	away.start()
	s.net.Run(s.net.Now() + 20*time.Second)
	if o := away.disk.live.object(PartitionOf([]byte("k")), []byte("k")); !o.Deleted() {
		t.Errorf("it still has %s", describeObject(o))
	}
}

// What was written to a stand-in again while the first was handed over is handed over too.
func TestHandoffKeepsWhatIsNewer(t *testing.T) {
	s := quietCluster(5, switches{trees: true})
	owners, others := s.owners("k")
	owners[0].crash()
	owners[1].crash()
	s.net.Run(s.net.Now() + 30*time.Second)
	if _, err := s.put(owners[2], "k", "old", Quorum, false); err != nil {
		t.Fatal(err)
	}
	stand := others[0]
	if !stand.has("k") {
		stand = others[1]
	}
	part := PartitionOf([]byte("k"))
	old := stand.disk.live.object(part, []byte("k"))
	if _, err := s.put(owners[2], "k", "new", Quorum, false); err != nil {
		t.Fatal(err)
	}
	// The acknowledgement of the older one is late.
	w := &Work{Kind: WorkHintDone, Target: owners[0].id.Number(), Part: part, Key: []byte("k"),
		Digest: old.Digest()}
	stand.replica.Do(w)
	w.Target = owners[1].id.Number()
	stand.replica.Do(w)
	if w.Result.Err != nil || !stand.has("k") {
		t.Fatalf("the stand-in has forgotten the newer write: %v", w.Result.Err)
	}
}

// A stand-in that had handed over what it kept, and so forgotten it, counted on for the same key:
// its clock covered its own earlier write, which nobody had replaced, and the owner dropped that.
func TestStandInDoesNotCoverWhatItForgot(t *testing.T) {
	s := newSimulation(1, func(c *simSetup) {
		*c = simSetup{nodes: 3, replicas: 1, length: time.Second,
			faults: simnet.Faults{Delay: 200 * time.Microsecond}}
	})
	s.net.Run(5 * time.Second)
	owners, others := s.owners("k")
	context := EncodeContext(nil, 0, simCluster, []byte("k"))
	write := func(value string) {
		t.Helper()
		op := Op{Kind: KindWrite, Key: []byte("k"), Value: []byte(value), HasContext: true,
			Context: context}
		if _, err := s.ask(others[0], &op); err != nil {
			t.Fatal(err)
		}
	}
	for _, value := range []string{"first", "second"} {
		owners[0].crash()
		s.net.Run(s.net.Now() + 20*time.Second)
		write(value)
		owners[0].start()
		s.net.Run(s.net.Now() + 20*time.Second)
		if others[0].has("k") {
			t.Fatal("it was not handed over")
		}
	}
	v, err := s.get(owners[0], "k", One)
	if err != nil || len(v.values) != 2 {
		t.Errorf("of two writes that had seen nothing %q is left, %v", v.values, err)
	}
}

// A read does not wait for a replica that is slow: another one is asked, long before the connection
// counts as broken.
func TestReadsAreHedged(t *testing.T) {
	s := quietCluster(5, switches{})
	owners, _ := s.owners("k")
	if _, err := s.put(owners[0], "k", "v", All, false); err != nil {
		t.Fatal(err)
	}
	for range 20 { // so that it is known what is usual
		if _, err := s.get(owners[0], "k", Two); err != nil {
			t.Fatal(err)
		}
	}
	owners[1].paused, owners[2].paused = true, true
	began := s.net.Now()
	v, err := s.get(owners[0], "k", Two)
	if took := s.net.Now() - began; err != nil || len(v.values) != 1 || took > 500*time.Millisecond {
		t.Errorf("with two of three owners silent: %q after %v, %v", v.values, took, err)
	}
	if owners[0].core.Counts.Hedged == 0 {
		t.Error("nobody else was asked")
	}
}

// A tombstone stays while a stand-in keeps what it covers for an owner: when that is handed over
// late, it must find the tombstone.
func TestTombstonesStayBesideHints(t *testing.T) {
	s := quietCluster(4, switches{trees: true})
	owners, others := s.owners("k")
	owners[2].crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	if _, err := s.put(owners[0], "k", "v", Quorum, false); err != nil {
		t.Fatal(err)
	}
	if !others[0].has("k") {
		t.Fatal("nobody stands in")
	}
	s.net.Cut(others[0].name, owners[2].name)
	owners[2].start()
	s.net.Run(s.net.Now() + 5*time.Second)
	if _, err := s.ask(owners[0], &Op{Kind: KindWrite, Key: []byte("k"), Tombstone: true,
		Level: All}); err != nil {
		t.Fatal(err)
	}
	s.net.Run(s.net.Now() + 4*time.Minute)
	for _, n := range owners {
		if !n.has("k") {
			t.Errorf("%s has forgotten the tombstone while %s keeps the value", n.id, others[0].id)
		}
	}
	s.healNetwork()
	s.net.Run(s.net.Now() + 20*time.Second)
	if v, err := s.get(owners[2], "k", One); err != nil || len(v.values) != 0 {
		t.Errorf("the deleted value is back: %q, %v", v.values, err)
	}
	s.net.Run(s.net.Now() + 4*time.Minute)
	for _, n := range s.nodes {
		if n.has("k") {
			t.Errorf("%s still has something of a key that was deleted long ago", n.id)
		}
	}
}

// Owners make no new hints for a node that has been away for hours.
func TestHintsEndWithTheirAge(t *testing.T) {
	s := quietCluster(3, switches{trees: true})
	away := s.nodes[2]
	away.crash()
	for i, want := range []int{1, 1} {
		if _, err := s.put(s.nodes[0], fmt.Sprint("k", i), "v", Quorum, false); err != nil {
			t.Fatal(err)
		}
		s.net.Run(s.net.Now() + 5*time.Second)
		if n := s.nodes[0].replica.hints.of(away.id.Number()); n != want {
			t.Errorf("write %d: %d hints, not %d", i, n, want)
		}
		s.nodes[0].core.cfg.HintAge = time.Second // as if three hours had passed
	}
}

// Owners that were slow, and not away, were stood in for by nodes that had nothing and said so at
// once: a key that all its owners held was reported as not there.
func TestSlowOwnersAreNotStoodInFor(t *testing.T) {
	for _, slow := range []time.Duration{100 * time.Millisecond, 400 * time.Millisecond} {
		s := quietCluster(5, switches{})
		owners, others := s.owners("k")
		if _, err := s.put(owners[0], "k", "v", All, false); err != nil {
			t.Fatal(err)
		}
		for range 20 { // so that it is known what is usual
			if _, err := s.get(others[0], "k", Two); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range owners {
			n.slow = slow
		}
		for _, level := range []Level{One, Two} {
			v, err := s.get(others[0], "k", level)
			if err != nil || len(v.values) != 1 {
				t.Errorf("R=%v with owners that take %v: %q by %d, %v", level, slow, v.values, v.nodes, err)
			}
		}
	}
}

// Without any owner nobody knows that a key does not exist. What was written meanwhile is read.
func TestNothingIsNotSaidWithoutAnOwner(t *testing.T) {
	s := quietCluster(5, switches{})
	owners, others := s.owners("k")
	if _, err := s.put(owners[0], "k", "v", All, false); err != nil {
		t.Fatal(err)
	}
	for _, n := range owners {
		n.crash()
	}
	s.net.Run(s.net.Now() + 20*time.Second)
	for _, op := range []Op{{Kind: KindRead, Key: []byte("k"), Level: Two},
		{Kind: KindPage, Part: PartitionOf([]byte("k")), Level: Two}} {
		v, err := s.ask(others[0], &op)
		if _, ok := errors.AsType[*UnavailableError](err); !ok {
			t.Errorf("%v without any owner: %q, %v", op.Kind, v.values, err)
		}
	}
	if _, err := s.put(others[0], "k", "later", Two, false); err != nil {
		t.Fatal(err)
	}
	if v, err := s.get(others[1], "k", Two); err != nil || len(v.values) != 1 {
		t.Errorf("what stand-ins were given: %q, %v", v.values, err)
	}
}
