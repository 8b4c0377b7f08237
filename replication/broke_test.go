package replication

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kvd/lsm"
)

// A page of digests covered the beginning of a partition, and nobody asked for the next: what
// differed behind it stayed different.
func TestTreesGoOnBehindThePageThatIsEqual(t *testing.T) {
	s := quietCluster(3, switches{hints: true})
	away := s.nodes[2]
	away.crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	pad := strings.Repeat("x", 1000)
	const keys = 2000
	for i := range keys {
		k := fmt.Sprintf("{t}%s%05d", pad, i)
		if _, err := s.put(s.nodes[i%2], k, "v", Quorum, false); err != nil {
			t.Fatal(err)
		}
	}
	away.start()
	s.net.Run(s.net.Now() + 2*time.Minute)
	n := 0
	for i := range keys {
		if away.has(fmt.Sprintf("{t}%s%05d", pad, i)) {
			n++
		}
	}
	if n < keys {
		t.Errorf("%d of %d came", n, keys)
	}
}

// A partition that was written every now and then was taken for one that settles soon, for ever.
func TestBusyPartitionIsComparedToo(t *testing.T) {
	s := quietCluster(3, switches{hints: true})
	away := s.nodes[2]
	away.crash()
	s.net.Run(s.net.Now() + 20*time.Second)
	for i := range 50 {
		if _, err := s.put(s.nodes[i%2], fmt.Sprint("{t}", i), "v", Quorum, false); err != nil {
			t.Fatal(err)
		}
	}
	away.start()
	for end := s.net.Now() + 5*time.Minute; s.net.Now() < end; {
		s.put(s.nodes[0], "{t}hot", "v", Quorum, false)
		s.net.Run(s.net.Now() + 300*time.Millisecond)
	}
	n := 0
	for i := range 50 {
		if away.has(fmt.Sprint("{t}", i)) {
			n++
		}
	}
	if n < 50 {
		t.Errorf("%d of 50 came while a key of the partition was written each 300 ms", n)
	}
}

// A stand-in that had not answered a write owed an answer for ever, and was asked last for ever.
func TestSilentStandInIsGivenUp(t *testing.T) {
	s := quietCluster(5, switches{})
	owners, others := s.owners("k")
	owners[0].crash()
	s.net.Run(s.net.Now() + 30*time.Second)
	for i := range 3 {
		// the stand-in is silent for a moment
		others[0].paused = true
		op := Op{Kind: KindWrite, Key: []byte("k"), Value: []byte{byte(i)}, Level: Quorum}
		s.request(owners[1], &op, time.Second, func([]byte) {})
		s.net.Run(s.net.Now() + 200*time.Microsecond)
		s.net.Run(s.net.Now() + 3*time.Second)
		others[0].crash()
		s.net.Run(s.net.Now() + time.Second)
		others[0].start()
		s.net.Run(s.net.Now() + 10*time.Second)
	}
	owners[0].start()
	s.net.Run(s.net.Now() + 5*time.Minute)
	l := owners[1].core.links[others[0].id]
	if l.outstanding != 0 || !owners[1].core.answers(others[0].id) {
		t.Errorf("%d answers are outstanding, it answers: %v", l.outstanding,
			owners[1].core.answers(others[0].id))
	}
}

// A write whose store failed after its deadline was answered a second time, and counted as ended
// twice.
func TestWriteIsAnsweredOnce(t *testing.T) {
	s := quietCluster(3, switches{})
	n := s.nodes[0]
	n.slow = 1500 * time.Millisecond
	answers := 0
	op := Op{Kind: KindWrite, Key: []byte("k"), Value: []byte("v"), Durability: lsm.Sync}
	s.request(n, &op, time.Second, func([]byte) { answers++ })
	s.net.Run(s.net.Now() + 500*time.Millisecond)
	n.disk.full = true
	s.net.Run(s.net.Now() + 10*time.Second)
	if n.core.pending != 0 || answers != 1 {
		t.Errorf("%d answers, %d requests under way", answers, n.core.pending)
	}
}

// A context with the stamp of a day far ahead took the clock of the node there: its writes of all
// other keys won over whatever was written later.
func TestStampOfOneKeyIsNotThatOfAll(t *testing.T) {
	s := quietCluster(3, switches{})
	n := s.nodes[0]
	forged := EncodeContext(nil, Stamp(1)<<63, simCluster, []byte("k"))
	write := func(op Op) Object {
		t.Helper()
		op.Kind, op.Value = KindWrite, []byte("v")
		if _, err := s.ask(n, &op); err != nil {
			t.Fatal(err)
		}
		return n.disk.live.object(PartitionOf(op.Key), op.Key)
	}
	ahead := write(Op{Key: []byte("k"), HasContext: true, Context: forged})
	if ahead.MaxStamp() <= Stamp(1)<<63 {
		t.Errorf("stamp %d is not above the one that the write had seen", ahead.MaxStamp())
	}
	if got := write(Op{Key: []byte("k")}).MaxStamp(); got <= ahead.MaxStamp() {
		t.Errorf("stamp %d of a write that has seen %d", got, ahead.MaxStamp())
	}
	latest := Stamp(n.instant().WallMillis+2*time.Hour.Milliseconds()) << 16
	if got := write(Op{Key: []byte("other")}).MaxStamp(); got > latest {
		t.Errorf("another key has stamp %d, two hours ahead is %d", got, latest)
	}
}

// A stand-in for a node that is owed too much already writes nothing, and said that it might have.
func TestStandInWithoutRoomForHintsRefuses(t *testing.T) {
	s := quietCluster(4, switches{})
	owners, others := s.owners("k")
	for _, n := range owners {
		n.crash()
		others[0].replica.hints.count[n.id.Number()] = HintsMax
	}
	s.net.Run(s.net.Now() + 20*time.Second)
	_, err := s.put(others[0], "k", "v", One, false)
	if _, ok := errors.AsType[*UnavailableError](err); !ok || others[0].has("k") {
		t.Errorf("written: %v, and the client is told %v", others[0].has("k"), err)
	}
}

// A partition that cannot be read was never answered for: eight of them held up each comparison of
// trees for as long as a round is waited for, and what lay behind them was never compared.
func TestDamagedPartitionsHoldUpNoOthers(t *testing.T) {
	s := newSimulation(1, func(c *simSetup) {
		*c = simSetup{nodes: 2, replicas: 2, off: switches{hints: true}, length: time.Second}
	})
	a, b := s.nodes[0], s.nodes[1]
	good := Object{}.Update(nil, Sibling{Dot: Dot{MakeActor(1, 1), 1}}, KeepSiblings).AppendTo(nil)
	const damaged = 2 * syncParallel
	for i := range Partition(damaged) {
		for j, value := range [][]byte{good, []byte("damage")} {
			s.nodes[(int(i)+j)%2].disk.durable.apply(simWrite{
				key: appendDataKey(nil, i, []byte("x")), value: value})
		}
	}
	key := "k"
	for i := 0; PartitionOf([]byte(key)) < damaged; i++ {
		key = fmt.Sprint("k", i)
	}
	b.crash()
	a.crash()
	a.start()
	s.net.Run(s.net.Now() + 20*time.Second)
	if _, err := s.put(a, key, "v", One, true); err != nil {
		t.Fatal(err)
	}
	b.start()
	s.net.Run(s.net.Now() + 30*time.Second)
	if !b.has(key) {
		t.Error("what differs behind the damaged partitions still differs")
	}
}

// A write that was answered kept its object, and its owners without hints, until the deadline, as
// long as one owner was silent; its timers stayed until then in any case.
func TestAnsweredWritesKeepLittle(t *testing.T) {
	s := quietCluster(3, switches{trees: true})
	a, silent := s.nodes[0], s.nodes[2]
	silent.paused = true
	timers := len(a.core.timers)
	const puts = 100
	for i := range puts {
		op := Op{Kind: KindWrite, Key: fmt.Append(nil, "k", i), Value: make([]byte, 1000)}
		answered := false
		s.request(a, &op, 24*time.Hour, func([]byte) { answered = true })
		for end := s.net.Now() + time.Second; !answered && s.net.Now() < end; {
			s.net.Run(s.net.Now() + time.Millisecond)
		}
	}
	for _, op := range a.core.ops {
		if p, ok := op.(*putOp); ok && p.replied && p.object != nil {
			t.Fatalf("it keeps %d bytes", len(p.object))
		}
	}
	s.net.Run(s.net.Now() + 12*time.Second)
	if n := a.replica.hints.of(silent.id.Number()); n != puts || len(a.core.ops) > 0 {
		t.Errorf("%d hints after %d writes, %d still under way", n, puts, len(a.core.ops))
	}
	s.net.Run(s.net.Now() + time.Minute)
	if n := len(a.core.timers); n > timers+puts/10 {
		t.Errorf("%d timers are left, there were %d", n, timers)
	}
}

// Owners that could not hear each other took values of up to 8 MiB each. Together they fitted no
// object, so the replicas never became equal, and the key could not be read at QUORUM any more.
func TestValuesTakenApartFitTogether(t *testing.T) {
	key := []byte("k")
	part := PartitionOf(key)
	for _, owners := range []int{3, MaxReplicas} {
		largest := min(MaxObjectValueBytes, lsm.MaxValueBytes/(owners+1))
		for _, size := range []int{largest, 1000} {
			place, err := NewPlacement(1, someMembers(owners, 1), owners)
			if err != nil {
				t.Fatal(err)
			}
			var replicas []*Replica
			for _, m := range place.Members {
				r, err := newReplica(m.ID, new(simDisk), place, 1, func([]byte) Policy { return KeepSiblings })
				if err != nil {
					t.Fatal(err)
				}
				replicas = append(replicas, r)
			}
			taken := 0
			var met Object
			for i, r := range replicas {
				w := &Work{Kind: WorkUpdate, Part: part, Key: key, Value: make([]byte, size)}
				for r.Do(w); w.Result.Err == nil; r.Do(w) {
					taken++
				}
				if !errors.Is(w.Result.Err, ErrTooManySiblings) || taken <= i {
					t.Fatalf("%d values of %d taken by %d owners, then %v", taken, size, i+1, w.Result.Err)
				}
				o, _, err := r.read(part, key)
				if err != nil {
					t.Fatal(err)
				}
				m := &Work{Kind: WorkMerge, Part: part, Key: key, Object: o}
				replicas[0].Do(m)
				if met = m.Result.Object; m.Result.Err != nil {
					t.Fatalf("%d values of %d bytes by %d owners: %v", taken, size, i+1, m.Result.Err)
				}
			}
			if len(met.Siblings) != taken {
				t.Errorf("%d values of %d bytes taken, %d left", taken, size, len(met.Siblings))
			}
		}
	}
}

// Where more owners than the largest values leave room for took one each, nothing is lost: a read
// says why it fails, and at ONE it gives what there is, and the context to replace that with.
func TestValuesThatFitNoAnswerAreReadApart(t *testing.T) {
	s := newSimulation(1, func(c *simSetup) {
		*c = simSetup{nodes: 5, replicas: 5, off: switches{hints: true, trees: true}, length: time.Second}
	})
	s.net.Run(5 * time.Second)
	for _, n := range s.nodes {
		for _, m := range s.nodes {
			s.net.Cut(n.name, m.name)
		}
	}
	none := EncodeContext(nil, 0, simCluster, []byte("k"))
	for i, n := range s.nodes {
		value := bytes.Repeat([]byte{byte(i)}, MaxObjectValueBytes)
		if _, err := s.ask(n, &Op{Kind: KindWrite, Key: []byte("k"), Value: value, Level: One,
			HasContext: true, Context: none}); err != nil {
			t.Fatal(err)
		}
	}
	s.healNetwork()
	s.net.Run(s.net.Now() + 20*time.Second)
	seen := map[byte]bool{}
	for _, n := range s.nodes {
		_, err := s.get(n, "k", All)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrTooManySiblings) {
			t.Fatal(err)
		}
		one, err := s.get(n, "k", One)
		if err != nil || len(one.values) == 0 {
			t.Fatalf("R=ONE: %d values, %v", len(one.values), err)
		}
		for _, v := range one.values {
			seen[v[0]] = true
		}
		if _, err := s.ask(n, &Op{Kind: KindWrite, Key: []byte("k"), Value: []byte{0},
			HasContext: true, Context: one.context}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.get(s.nodes[0], "k", All)
	for _, v := range all.values {
		seen[v[0]] = true
	}
	if err != nil || len(seen) != 5 {
		t.Errorf("%d of 5 values were read, %v", len(seen), err)
	}
}
