package replication

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

// localCluster is nodes in one process, whose messages are function calls: the shell around the
// core with real engines, without a network.
type localCluster struct {
	nodes                  []*Cluster
	stop                   context.CancelFunc
	down                   []atomic.Bool
	sent                   []atomic.Int64 // bytes of messages, by receiver
	place                  *Placement
	pages                  atomic.Int64 // of scans that clients have asked for
	inFlight, mostInFlight atomic.Int64 // of them
	stuck                  atomic.Bool  // those of partitions from 2 on never come
}

func newLocalCluster(t testing.TB, n int, off ...switches) *localCluster {
	t.Helper()
	l := &localCluster{down: make([]atomic.Bool, n), place: simPlacement(n, 3, 0),
		sent: make([]atomic.Int64, n)}
	off = append(off, switches{})
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	index := map[NodeID]int{}
	for i, m := range l.place.Members {
		index[m.ID] = i
	}
	ran := make(chan error, n)
	queues := make([]chan delivery, n)
	for i, m := range l.place.Members {
		db, err := lsm.Open("data", lsm.Options{FS: vfs.NewMem(), MemtableBytes: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		queues[i] = make(chan delivery, 1<<16)
		c, err := NewCluster(db, ClusterOptions{Self: m.ID, Placement: l.place, Authority: 1,
			off: off[0],
			Send: func(to NodeID, _ Class, msg []byte) bool {
				j := index[to]
				if l.down[i].Load() || l.down[j].Load() {
					return false
				}
				msg = append([]byte(nil), msg...)
				l.sent[j].Add(int64(len(msg)))
				select {
				case queues[j] <- delivery{string(m.ID), msg}:
					return true
				default:
					return false
				}
			}})
		if err != nil {
			t.Fatal(err)
		}
		l.nodes = append(l.nodes, c)
		t.Cleanup(func() { _ = db.Close() })
	}
	for i, c := range l.nodes {
		go func() { ran <- c.Run(ctx) }()
		go func() {
			for {
				select {
				case d := <-queues[i]:
					deliver(c, d, queues[i])
				case <-ctx.Done():
					return
				}
			}
		}()
		for j, m := range l.place.Members {
			if j != i {
				c.PeerUp(string(m.ID))
			}
		}
	}
	t.Cleanup(func() {
		stop()
		for range l.nodes {
			<-ran
		}
	})
	return l
}

// delivery is a message on its way to a node.
type delivery struct {
	from string
	msg  []byte
}

// deliver hands a message to a node, and those of the same sender that have come behind it.
func deliver(c *Cluster, d delivery, queue chan delivery) {
	from, msgs := d.from, [][]byte{d.msg}
	for len(queue) > 0 {
		if d = <-queue; d.from != from {
			c.HandlePeer(from, msgs)
			from, msgs = d.from, nil
		}
		msgs = append(msgs, d.msg)
	}
	c.HandlePeer(from, msgs)
}

// client asks the nodes by their addresses.
func (l *localCluster) client() *ClusterClient {
	byAddr := map[string]Caller{}
	for i, m := range l.place.Members {
		byAddr[m.Addr] = localCaller{LocalCaller{l.nodes[i]}, &l.down[i], l}
	}
	return NewClusterClient([]string{l.place.Members[0].Addr}, func(addr string) (Caller, error) {
		return byAddr[addr], nil
	}, errors.New("never"))
}

// localCaller reaches a node unless it is down.
type localCaller struct {
	LocalCaller
	down *atomic.Bool
	l    *localCluster
}

func (l localCaller) Call(ctx context.Context, req, dst []byte) ([]byte, error) {
	if Kind(req[0]) == KindPage {
		l.l.pages.Add(1)
		n := l.l.inFlight.Add(1)
		for most := l.l.mostInFlight.Load(); n > most; most = l.l.mostInFlight.Load() {
			l.l.mostInFlight.CompareAndSwap(most, n)
		}
		defer l.l.inFlight.Add(-1)
		if op, err := DecodeOp(req); err == nil && op.Part >= 2 && l.l.stuck.Load() {
			<-ctx.Done()
			return dst, ctx.Err()
		}
	}
	if l.down.Load() {
		return dst, errors.New("no connection")
	}
	return l.LocalCaller.Call(ctx, req, dst)
}

func TestClusterPutGetDelete(t *testing.T) {
	l := newLocalCluster(t, 3)
	c := l.client()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	w, err := c.Put(ctx, []byte("k"), []byte("v"), WriteOptions{Level: All})
	if err != nil || len(w.Nodes) != 3 {
		t.Fatalf("Put: %v, %v", w, err)
	}
	for _, r := range []Level{One, Quorum, All} {
		v, err := c.Get(ctx, []byte("k"), ReadOptions{Level: r})
		if err != nil || len(v.All) != 1 || string(v.All[0]) != "v" {
			t.Fatalf("Get at %v: %v, %v", r, v, err)
		}
	}
	if _, err := c.Delete(ctx, []byte("k"), WriteOptions{Context: w.Context}); err != nil {
		t.Fatal(err)
	}
	if v, err := c.Get(ctx, []byte("k"), ReadOptions{}); err != nil || len(v.All) != 0 {
		t.Fatalf("after Delete: %v, %v", v, err)
	}
	x, err := c.Explain(ctx, []byte("k"))
	if err != nil || len(x.Replicas) != 3 || x.WinnerWhy == "" {
		t.Errorf("Explain: %+v, %v", x, err)
	}
}

func TestClusterScanAndBatches(t *testing.T) {
	l := newLocalCluster(t, 5)
	c := l.client()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var pairs []Pair
	var keys [][]byte
	for i := range 3000 {
		pairs = append(pairs, Pair{fmt.Appendf(nil, "key%04d", i), fmt.Append(nil, i)})
		keys = append(keys, pairs[i].Key)
	}
	written := atomic.Int64{}
	if err := c.PutAll(ctx, pairs, WriteOptions{}, func(int) { written.Add(1) }); err != nil {
		t.Fatal(err)
	}
	all, err := c.GetAll(ctx, keys, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range all {
		if len(v.All) != 1 || string(v.All[0]) != fmt.Sprint(i) {
			t.Fatalf("%s: %q", keys[i], v.All)
		}
	}
	for _, r := range []struct {
		lower, upper string
		limit, want  int
	}{{"", "", 0, 3000}, {"key1", "key2", 0, 1000}, {"", "", 17, 17}, {"x", "", 0, 0}} {
		seen := map[string]bool{}
		err := c.Scan(ctx, []byte(r.lower), []byte(r.upper), r.limit, ReadOptions{},
			func(key []byte, values [][]byte) error {
				if seen[string(key)] || len(values) != 1 {
					return fmt.Errorf("%s comes twice or with %d values", key, len(values))
				}
				seen[string(key)] = true
				return nil
			})
		if err != nil || len(seen) != r.want {
			t.Errorf("scan of [%s, %s): %d of %d keys, %v", r.lower, r.upper, len(seen), r.want, err)
		}
	}
	if written.Load() != 3000 {
		t.Errorf("%d of 3000 were reported as written", written.Load())
	}
}

func TestClusterServesWithOneOwnerAway(t *testing.T) {
	l := newLocalCluster(t, 3)
	c := l.client()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	l.down[2].Store(true)
	for _, i := range []int{0, 1} {
		l.nodes[i].PeerDown("n3", errors.New("gone"))
	}
	for i := range 200 {
		key := fmt.Append(nil, "k", i)
		if _, err := c.Put(ctx, key, key, WriteOptions{Strict: true}); err != nil {
			if _, unavailable := errors.AsType[*UnavailableError](err); !unavailable {
				t.Fatal(err)
			}
		}
	}
	l.down[2].Store(false)
	for _, i := range []int{0, 1} {
		l.nodes[i].PeerUp("n3")
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		owed := 0
		for _, n := range l.nodes[:2] {
			owed += n.replica.hints.of(NodeID("n3").Number())
		}
		if owed == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d hints are left", owed)
		}
	}
	for i := range 200 {
		key := fmt.Append(nil, "k", i)
		o, _, err := l.nodes[2].replica.read(PartitionOf(key), key)
		if err != nil || len(o.Values()) != 1 {
			t.Fatalf("%s has %v, %v", key, o, err)
		}
	}
}

// A client with an old placement is told so, learns the one in force and goes on.
func TestClientFollowsEpochs(t *testing.T) {
	l := newLocalCluster(t, 3)
	c := l.client()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := c.Put(ctx, []byte("k"), []byte("v"), WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	old := *c.ring
	old.Epoch = 9
	c.ring = &old
	c.mu.Unlock()
	v, err := c.Get(ctx, []byte("k"), ReadOptions{})
	if err != nil || len(v.All) != 1 {
		t.Errorf("with another placement: %v, %v", v, err)
	}
	if r, err := c.known(ctx, deadlineOf(ctx, c.Timeout)); err != nil || r.Epoch != 1 {
		t.Errorf("it goes on with placement %d, %v", r.Epoch, err)
	}
}

// A node that has stopped answers at once, and does not keep its callers.
func TestStoppedClusterAnswers(t *testing.T) {
	l := newLocalCluster(t, 3)
	l.stop()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		l.nodes[0].mu.Lock()
		stopped := l.nodes[0].stopped
		l.nodes[0].mu.Unlock()
		if stopped {
			break
		}
		if time.Now().After(end) {
			t.Fatal("Run has not ended")
		}
	}
	op := Op{Kind: KindRead, Key: []byte("k")}
	answer, _ := l.nodes[0].Call(context.Background(), op.AppendTo(nil), nil)
	if _, err := decodeAnswer(answer); !errors.Is(err, ErrDraining) {
		t.Errorf("a stopped node: %v", err)
	}
}

// What a node that stops leaves undone is told as what it is: a write may have been done.
func TestStoppedClusterTellsOfWritesUnderWay(t *testing.T) {
	l := newLocalCluster(t, 3)
	c := l.nodes[0]
	for end := time.Now().Add(10 * time.Second); c.replica.behind.Load(); {
		if time.Now().After(end) {
			t.Fatal("a node of a new cluster does not begin to serve")
		}
		time.Sleep(time.Millisecond)
	}
	l.down[1].Store(true) // messages to it are lost
	l.down[2].Store(true)
	want := []error{ErrInDoubt, ErrDraining}
	answers := make([]chan []byte, len(want))
	for i, op := range []Op{{Kind: KindWrite, Key: []byte("k"), Value: []byte("v"), Level: All},
		{Kind: KindRead, Key: []byte("k"), Level: All}} {
		answers[i] = make(chan []byte, 1)
		c.Start([][]byte{op.AppendTo(nil)}, []time.Time{time.Now().Add(time.Hour)},
			[]func([]byte){func(resp []byte) { answers[i] <- resp }})
	}
	l.stop()
	for i, answer := range answers {
		if _, err := decodeAnswer(<-answer); !errors.Is(err, want[i]) {
			t.Errorf("request %d: %v, not %v", i, err, want[i])
		}
	}
}

// What a node was sent too late for, or what waits behind much work, is not begun.
func TestWhatIsNotStarted(t *testing.T) {
	l := newLocalCluster(t, 3)
	c := l.nodes[0]
	write := Op{Kind: KindWrite, Key: []byte("k"), Value: []byte("v"), Level: All}
	req := write.AppendTo(nil)
	if !c.Starts(req) || c.Starts(nil) || c.Starts([]byte{byte(KindPage)}) {
		t.Error("Starts is for reads and writes")
	}
	answers := make(chan []byte, 2)
	answer := func(resp []byte) { answers <- resp }
	c.Start([][]byte{req, req}, []time.Time{time.Now().Add(-time.Second), time.Now()},
		[]func([]byte){answer, answer})
	for range 2 {
		if _, err := decodeAnswer(<-answers); !errors.Is(err, context.DeadlineExceeded) ||
			errors.Is(err, ErrInDoubt) {
			t.Errorf("a request that came too late: %v", err)
		}
	}
	if v, err := l.client().Get(t.Context(), write.Key, ReadOptions{}); err != nil ||
		len(v.All) != 0 {
		t.Errorf("it was done: %q, %v", v.All, err)
	}

	db, err := lsm.Open("data", lsm.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	busy, err := NewCluster(db, ClusterOptions{Self: "n1", Placement: simPlacement(3, 3, 0)})
	if err != nil {
		t.Fatal(err)
	}
	for range workQueue/2 + 1 { // it does not run: nobody takes the work
		busy.enqueue(&Work{})
	}
	if busy.Starts(req) {
		t.Error("it takes more although much work waits")
	}
}

// An answer without a byte, to a request that was passed on, ended the process.
func TestEmptyForwardedAnswer(t *testing.T) {
	l := newLocalCluster(t, 3)
	before := l.nodes[0].Counts().Malformed
	m := peerMessage{kind: peerForwarded, cluster: l.nodes[0].id, epoch: l.place.Epoch, id: 7}
	if _, err := decodePeerMessage(m.appendTo(nil)); err == nil {
		t.Error("it is taken for one")
	}
	l.nodes[0].HandlePeer(string(l.place.Members[1].ID), [][]byte{m.appendTo(nil)})
	if got := l.nodes[0].Counts().Malformed; got != before+1 {
		t.Errorf("%d malformed messages, want %d", got, before+1)
	}
}

// The core, and all requests with it, waited for whoever held a partition while its write waited.
func TestRootsWaitForNoWrite(t *testing.T) {
	l := newLocalCluster(t, 3)
	r := l.nodes[0].replica
	p := &r.parts[PartitionOf([]byte("k"))]
	p.mu.Lock()
	defer p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		r.rootOf(PartitionOf([]byte("k")))
		r.treeOf(PartitionOf([]byte("k")))
		r.objects()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("they wait for the partition")
	}
}

// A database of a node by itself is not taken for that of a node of a cluster, nor one node's for
// another's.
func TestClusterRefusesForeignData(t *testing.T) {
	disk := vfs.NewMem()
	db, err := lsm.Open("data", lsm.Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Put([]byte("k"), []byte("v"), lsm.Sync); err != nil {
		t.Fatal(err)
	}
	// Keys that a cluster would use are a user's here.
	if err := db.Put(identityKey, []byte("n1"), lsm.Sync); err != nil {
		t.Fatal(err)
	}
	if err := CheckUnowned(db); err != nil {
		t.Error(err)
	}
	if err := db.Delete(identityKey, lsm.Sync); err != nil {
		t.Fatal(err)
	}
	var wrong *IdentityError
	o := ClusterOptions{Self: "n1", Placement: simPlacement(3, 3, 0)}
	if _, err := NewCluster(db, o); !errors.As(err, &wrong) {
		t.Errorf("a node's own database: %v", err)
	}
	if err := db.Delete([]byte("k"), lsm.Sync); err != nil {
		t.Fatal(err)
	}
	if _, err := NewCluster(db, o); err != nil {
		t.Fatal(err)
	}
	o.Self = "n2"
	if _, err := NewCluster(db, o); !errors.As(err, &wrong) {
		t.Errorf("the database of n1 for n2: %v", err)
	}
	if e, ok := errors.AsType[*OwnedError](CheckUnowned(db)); !ok || e.Node != "n1" {
		t.Errorf("the database of n1 for a node by itself: %v", CheckUnowned(db))
	}
	// With one node more other nodes own a part of the keys, and would say that there are none.
	o = ClusterOptions{Self: "n1", Placement: simPlacement(4, 3, 0)}
	if _, err := NewCluster(db, o); !errors.As(err, &wrong) {
		t.Errorf("the database of n1 of three for n1 of four: %v", err)
	}
	want := "replication: the data belongs to the cluster of n1 n2 n3, 3 replicas, not to that of " +
		"n1 n2 n3 n4, 3 replicas"
	if wrong.Error() != want {
		t.Errorf("it says %q, want %q", wrong, want)
	}
}

// A node that keeps the last of concurrent writes has all others drop the rest, though they keep
// siblings: those two do not talk.
func TestClusterIsOfOnePolicy(t *testing.T) {
	p := simPlacement(3, 3, 0)
	if clusterID(1, p, 0) == clusterID(1, p, 7) || clusterID(1, p, 7) == clusterID(1, p, 8) {
		t.Error("two policies make one cluster")
	}
}

// What a peer may send that is not for this node is refused, counted and leaves nothing behind.
func TestStrangeMessagesAreRefused(t *testing.T) {
	s := quietCluster(3, switches{})
	n := s.nodes[0]
	before := n.core.Counts
	key := []byte("k")
	object := Object{}.Update(nil, Sibling{Dot: Dot{MakeActor(9, 1), 1}, Value: []byte("v")},
		KeepSiblings).AppendTo(nil)
	send := func(from NodeID, change func(*peerMessage)) {
		m := peerMessage{kind: peerWrite, cluster: simCluster, epoch: 1, id: 1, key: key,
			object: object}
		change(&m)
		n.step(Event{Kind: EventMessage, From: from, Message: m.appendTo(nil)})
	}
	send("n2", func(m *peerMessage) { m.cluster++ })
	send("n2", func(m *peerMessage) { m.epoch = 0 })
	send("n9", func(*peerMessage) {})
	send("n2", func(m *peerMessage) { m.object = object[:5] })
	n.step(Event{Kind: EventMessage, From: "n2", Message: []byte("nonsense")})
	for _, m := range peerMessages() { // well formed, and answers to questions that nobody asked
		m.cluster = simCluster
		if m.kind != peerWrite {
			n.step(Event{Kind: EventMessage, From: "n2", Message: m.appendTo(nil)})
		}
	}
	s.net.Run(s.net.Now() + 20*time.Second)
	c := n.core.Counts
	if c.WrongCluster != before.WrongCluster+1 || c.WrongEpoch != before.WrongEpoch+1 ||
		c.Strangers != before.Strangers+1 || c.Malformed < before.Malformed+2 {
		t.Errorf("refused: %+v", c)
	}
	if n.has("k") || len(n.core.ops) != 0 {
		t.Errorf("it left something behind: %v, %d operations", n.has("k"), len(n.core.ops))
	}
}
