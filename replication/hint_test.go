package replication

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"kvd/lsm"
)

// doubtfulDisk is one whose writes may be visible and not yet logged: it is full for a moment.
type doubtfulDisk struct {
	*simDisk
	doubt bool
}

func (d *doubtfulDisk) Apply(b *lsm.Batch) error {
	err := d.simDisk.Apply(b)
	if d.doubt && err == nil {
		return fmt.Errorf("%w: %w", lsm.ErrInDoubt, lsm.ErrDiskFull)
	}
	return err
}

func newDoubtfulReplica(t *testing.T, self NodeID, p *Placement) (*Replica, *doubtfulDisk) {
	disk := &doubtfulDisk{simDisk: new(simDisk)}
	r, err := newReplica(self, disk, p, 1, func([]byte) Policy { return KeepSiblings })
	if err != nil {
		t.Fatal(err)
	}
	return r, disk
}

// A hint that was visible but in doubt was never counted: the object that it is for was deleted as
// owed to nobody.
func TestHintInDoubtIsCounted(t *testing.T) {
	p := simPlacement(4, 3, 0)
	key := []byte("k")
	part := PartitionOf(key)
	owner, other := p.Owners(part)[0], p.Owners(part)[1]
	r, disk := newDoubtfulReplica(t, p.Fallbacks(part)[0], p)
	o := Object{}.Update(nil, Sibling{Dot: Dot{MakeActor(owner.Number(), 1), 1}, Stamp: 1,
		Value: []byte("v")}, KeepSiblings)
	standIn := func(node NodeID) error {
		w := &Work{Kind: WorkMerge, Part: part, Key: key, Object: o,
			Targets: []uint32{node.Number()}}
		r.Do(w)
		return w.Result.Err
	}
	if err := standIn(other); err != nil {
		t.Fatal(err)
	}
	disk.doubt = true
	if err := standIn(owner); err == nil {
		t.Fatal("the disk was full")
	}
	disk.doubt = false
	if err := standIn(owner); err != nil { // the sender repeats it
		t.Fatal(err)
	}
	done := &Work{Kind: WorkHintDone, Part: part, Key: key, Target: other.Number(),
		Digest: o.Digest()}
	if r.Do(done); done.Result.Err != nil {
		t.Fatal(done.Result.Err)
	}
	got, _, err := r.read(part, key)
	if err != nil || len(got.Clock) == 0 || r.hints.of(owner.Number()) != 1 {
		t.Errorf("the stand-in has %v, %v, and %d hints, of 1", got, err, r.hints.of(owner.Number()))
	}
	done = &Work{Kind: WorkHintDone, Part: part, Key: key, Target: owner.Number(),
		Digest: o.Digest()}
	disk.doubt = true
	r.Do(done)
	if n := r.hints.of(owner.Number()); n != 0 {
		t.Errorf("%d hints are counted after the last was deleted", n)
	}
}

// A tree kept what the store had forgotten in doubt, and differed from then on.
func TestDropInDoubtIsInTheTree(t *testing.T) {
	p := simPlacement(4, 3, 0)
	key := []byte("k")
	part := PartitionOf(key)
	owner := p.Owners(part)[0]
	r, disk := newDoubtfulReplica(t, owner, p)
	if err := r.buildTree(part); err != nil {
		t.Fatal(err)
	}
	o := Object{}.Update(nil, Sibling{Dot: Dot{MakeActor(owner.Number(), 1), 1}, Stamp: 1,
		Tombstone: true}, KeepSiblings)
	r.Do(&Work{Kind: WorkMerge, Part: part, Key: key, Object: o})
	disk.doubt = true
	w := &Work{Kind: WorkDrop, Part: part, Entries: []entry{{part: part, key: key,
		digest: o.Digest()}}}
	r.Do(w)
	left, _, err := r.read(part, key)
	if err != nil || len(left.Clock) > 0 || r.rootOf(part) != 0 {
		t.Errorf("dropped: %v; the store has %v, %v, the tree %x", w.Result.Err, left, err,
			r.rootOf(part))
	}
}

// A key that changed faster than its hint could be handed over kept trees from being compared, for
// ever.
func TestHotHintDoesNotStopTrees(t *testing.T) {
	s := quietCluster(3, switches{})
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	a.core.cfg.HintAge = 30 * time.Second
	c.crash()
	b.crash() // it would bring c what a does not
	s.net.Run(s.net.Now() + 16*time.Second)
	if _, err := s.put(a, "hot", "v", One, true); err != nil {
		t.Fatal(err)
	}
	s.net.Run(s.net.Now() + a.core.cfg.HintAge)
	const keys = 30
	for i := range keys { // too late for hints
		if _, err := s.put(a, fmt.Sprint("k", i), "v", One, true); err != nil {
			t.Fatal(err)
		}
	}
	var write func()
	write = func() { // past the core, which makes it fast
		a.replica.Do(&Work{Kind: WorkUpdate, Part: PartitionOf([]byte("hot")), Key: []byte("hot"),
			Value: []byte("v"), Blind: true, WallMillis: a.instant().WallMillis})
		a.disk.durableTo(a.disk.mark())
		s.net.After(600*time.Microsecond, write)
	}
	write()
	c.start()
	s.net.Run(s.net.Now() + 45*time.Second)
	has := 0
	for i := range keys {
		if c.has(fmt.Sprint("k", i)) {
			has++
		}
	}
	if has < keys {
		t.Errorf("%d of %d keys are there 45 s after the node has come back", has, keys)
	}
}

// A partition that cannot be read looked the same as one that holds nothing.
func TestUnreadablePartitionIsNotEmpty(t *testing.T) {
	p := simPlacement(4, 3, 0)
	r, _ := newDoubtfulReplica(t, p.Owners(0)[0], p)
	if root := r.rootOf(0); root != unreadable {
		t.Errorf("a partition that was not read has root %x", root)
	}
	if err := r.buildTree(0); err != nil || r.rootOf(0) != 0 {
		t.Errorf("one that is empty has root %x, %v", r.rootOf(0), err)
	}
}

// A node that is owed as much as may be: an owner takes the write and leaves the rest to the
// comparison of trees, a stand-in, which no tree covers, refuses it.
func TestHintsBeyondTheLimit(t *testing.T) {
	p := simPlacement(4, 3, 0)
	key := []byte("k")
	part := PartitionOf(key)
	away := p.Owners(part)[1].Number()
	o := Object{}.Update(nil, Sibling{Dot: Dot{MakeActor(away, 1), 1}, Stamp: 1,
		Value: []byte("v")}, KeepSiblings)
	for _, c := range []struct {
		node    NodeID
		err     error
		dropped uint64
	}{{p.Owners(part)[0], nil, 1}, {p.Fallbacks(part)[0], ErrHintsFull, 0}} {
		r, _ := newDoubtfulReplica(t, c.node, p)
		r.hints.add([]uint32{away}, HintsMax)
		w := &Work{Kind: WorkMerge, Part: part, Key: key, Object: o, Targets: []uint32{away}}
		r.Do(w)
		if !errors.Is(w.Result.Err, c.err) || r.hints.dropped.Load() != c.dropped {
			t.Errorf("%s: %v, %d dropped, want %v, %d", c.node, w.Result.Err,
				r.hints.dropped.Load(), c.err, c.dropped)
		}
		got, _, err := r.read(part, key)
		if err != nil || (len(got.Clock) > 0) != (c.err == nil) || r.hints.of(away) != HintsMax {
			t.Errorf("%s: has %v, %v, and %d hints", c.node, got, err, r.hints.of(away))
		}
	}
}
