package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"kvd/lsm"
)

// ClusterOptions are what a node of a cluster is made of.
type ClusterOptions struct {
	Self      NodeID
	Placement *Placement
	// Authority is what the nodes of one cluster share and others do not: the identity of whoever
	// signs their certificates. With the placement it makes the identity of the cluster.
	Authority uint64
	// Policy says for each key what becomes of concurrent writes. Nil keeps siblings.
	Policy func(key []byte) Policy
	// Policies is a digest of what Policy says, 0 for nil. Nodes with different ones do not talk to
	// each other: the one that drops a value has all of them drop it.
	Policies uint64
	// Send gives a message to the network and never waits. Message is the network's to read during
	// the call only. It may be called by any number of goroutines.
	Send func(to NodeID, class Class, message []byte) bool
	// Logger is told what an operator should know. Nil discards it.
	Logger *slog.Logger
	// Node tells about the program around it.
	Node NodeOptions

	off switches // for tests
}

// Cluster is a node of a cluster: a core, the engine it works on, and the goroutines around them.
// It is the handler of a transport for clients (TryCall, Start, Call) and for nodes (HandlePeer,
// PeerUp, PeerDown), which it meets by shape. All methods may be called by any number of
// goroutines.
type Cluster struct {
	// Fixed after NewCluster.
	node    *Node // what concerns this node alone
	replica *Replica
	place   *Placement
	options ClusterOptions
	id      uint64
	born    time.Time
	work    chan *Work
	synced  [3]*syncer // by durability

	mu        sync.Mutex
	core      *Core
	waiting   map[uint64]pendingCall
	stopped   bool // Run has ended: nobody would answer
	lastToken uint64
	sleeping  time.Duration // when the ticker wakes
	wake      chan struct{}
}

// pendingCall is a client's request under way.
type pendingCall struct {
	kind   Kind
	began  time.Time
	answer func(resp []byte) // never waits
}

// NewCluster makes a node on a database that is its own: an empty one becomes so. It starts
// nothing; Run does.
func NewCluster(db *lsm.DB, o ClusterOptions) (*Cluster, error) {
	if _, ok := o.Placement.Member(o.Self); !ok {
		return nil, fmt.Errorf("replication: %s is no member of the cluster", o.Self)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Policy == nil {
		o.Policy = func([]byte) Policy { return KeepSiblings }
	}
	store := EngineStore{db}
	last, err := claimStore(store, o.Self)
	if err != nil {
		return nil, err
	}
	if err := claimPlacement(store, o.Placement); err != nil {
		return nil, err
	}
	life, err := beginLife(store, last, time.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	r, err := newReplica(o.Self, store, o.Placement, life.incarnation, o.Policy)
	if err != nil {
		return nil, err
	}
	seed := new(maphash.Hash).Sum64()
	c := &Cluster{
		node: NewNode(db, o.Node), replica: r, place: o.Placement, options: o,
		id: clusterID(o.Authority, o.Placement, o.Policies), born: time.Now(),
		work: make(chan *Work, workQueue), waiting: make(map[uint64]pendingCall),
		wake: make(chan struct{}, 1),
	}
	c.core = NewCore(Config{Self: o.Self, Placement: o.Placement, Cluster: c.id,
		Incarnation: life.incarnation, Fresh: life.fresh, Empty: life.empty,
		Behind: life.behind,
		Rand:   rand.New(rand.NewPCG(seed, seed>>32)), Policy: o.Policy, off: o.off}, r)
	c.node.cluster = c.Ring
	for d := range c.synced {
		c.synced[d] = newSyncer(c, lsm.Durability(d))
	}
	return c, nil
}

// clusterID is the identity of a cluster: who signs for its nodes, what they are, and what they
// make of concurrent writes.
func clusterID(authority uint64, p *Placement, policies uint64) uint64 {
	b := binary.LittleEndian.AppendUint64(nil, authority)
	b = binary.LittleEndian.AppendUint64(b, p.Digest())
	if policies != 0 {
		b = binary.LittleEndian.AppendUint64(b, policies)
	}
	return KeyHash(b)
}

const (
	workQueue = 8192
	workers   = 16 // goroutines for what waits: their reads of the disk overlap
)

// Run works until ctx ends.
func (c *Cluster) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { c.workLoop(ctx) })
	}
	for _, s := range c.synced {
		wg.Go(func() { s.loop(ctx) })
	}
	wg.Go(func() { c.tickLoop(ctx) })
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	for token, p := range c.waiting {
		delete(c.waiting, token)
		err := ErrDraining
		if p.kind == KindWrite { // it may be with some nodes already
			err = fmt.Errorf("%w: the node stopped amid the write", ErrInDoubt)
		}
		p.answer(appendError(nil, err, true))
	}
	return ctx.Err()
}

func (c *Cluster) instant() Instant {
	now := time.Now()
	return Instant{Since: now.Sub(c.born), WallMillis: now.UnixMilli()}
}

// tickLoop wakes the core when it wants to be woken, and logs what it then thinks of the members.
func (c *Cluster) tickLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	verdicts, told := make([]Verdict, len(c.place.Members)), false
	for {
		select {
		case <-timer.C:
		case <-c.wake:
			c.mu.Lock()
			next := c.sleeping
			c.mu.Unlock()
			if left := next - time.Since(c.born); left > 0 {
				timer.Reset(left)
				continue
			}
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		c.sleeping = never
		c.mu.Unlock()
		c.step(Event{Kind: EventTick})
		c.mu.Lock()
		// Not sooner than in a millisecond: patience is not measured more finely than that.
		c.sleeping = max(c.core.NextWake(), time.Since(c.born)+time.Millisecond)
		next, changes := c.sleeping, c.core.members.changes(verdicts)
		tell := c.core.Counts.WrongCluster > 0 && !told
		c.mu.Unlock()
		timer.Reset(next - time.Since(c.born))
		for _, o := range changes {
			c.logVerdict(o)
		}
		if tell {
			told = true
			c.options.Logger.Warn("messages of a node are refused: its --cluster list or its " +
				"--buckets differ from those of this one")
		}
	}
}

func (c *Cluster) logVerdict(o opinion) {
	level := slog.LevelWarn
	if o.is == Alive {
		level = slog.LevelInfo
	}
	c.options.Logger.Log(context.Background(), level, "a node is "+o.is.String(),
		"node", string(o.id), "before", o.was.String())
}

// HandlePeer takes messages of another node. They are not kept.
func (c *Cluster) HandlePeer(from string, msgs [][]byte) {
	s := steppingPool.Get().(*stepping)
	for _, msg := range msgs {
		s.events = append(s.events, Event{Kind: EventMessage, From: NodeID(from), Message: msg})
	}
	c.drive(s)
}

// PeerUp is told that messages to a node are sent from now on.
func (c *Cluster) PeerUp(name string) {
	c.options.Logger.Info("connected", "node", name)
	c.step(Event{Kind: EventLink, From: NodeID(name), Up: true})
}

// PeerDown is told that they are not any more.
func (c *Cluster) PeerDown(name string, err error) {
	c.options.Logger.Info("connection lost", "node", name, "reason", err)
	c.step(Event{Kind: EventLink, From: NodeID(name)})
}

// PeerRefused is told that this node has refused the certificate of another one or, byPeer, that a
// node has refused this one's.
func (c *Cluster) PeerRefused(name string, byPeer bool, err error) {
	why := "a certificate is refused"
	switch _, member := c.place.Member(NodeID(name)); {
	case byPeer:
		why = "a node refuses this one: it is not in that node's --cluster list, or its " +
			"certificate is not valid there; that node's log says which"
	case name != "" && !member:
		why = "a node is refused: it is not in this node's --cluster list"
	}
	c.options.Logger.Warn(why, "node", name, "reason", err)
}

// Drain makes the node refuse new requests of clients. Those under way go on, and so does what
// other nodes ask.
func (c *Cluster) Drain() { c.node.Drain() }

// Node is the part that concerns this node alone.
func (c *Cluster) Node() *Node { return c.node }

// TryCall answers at once what needs nobody else: reads with R = 1 of keys that are here.
func (c *Cluster) TryCall(req, dst []byte) ([]byte, bool) {
	if len(req) < 2 || Kind(req[0]) != KindRead || c.node.draining.Load() {
		return dst, false
	}
	op, err := DecodeOp(req)
	if err != nil || op.Level != One || op.check() != nil ||
		op.Epoch != 0 && op.Epoch != c.place.Epoch {
		return dst, false
	}
	part := PartitionOf(op.Key)
	if !c.place.Owns(c.options.Self, part) || c.replica.behind.Load() {
		return dst, false
	}
	start := time.Now()
	o, done, err := c.replica.TryRead(part, op.Key)
	if !done || err != nil {
		return dst, false // what reads a disk is for Call, and another replica may do better
	}
	c.node.ops[KindRead].record(time.Since(start), true)
	return appendReadAnswer(dst, &o, c.id, op.Key, []NodeID{c.options.Self}), true
}

// Call answers any request. The error is always nil and there for the transport's interface.
func (c *Cluster) Call(ctx context.Context, req, dst []byte) ([]byte, error) {
	if len(req) == 0 {
		return c.node.Call(ctx, req, dst)
	}
	kind := Kind(req[0])
	switch kind {
	case KindGet, KindPut, KindDelete:
		return c.plain(ctx, req, dst), nil
	case KindApply, KindScan:
		return appendError(dst, &MessageError{Kind: kind,
			Reason: "a cluster does this key by key and partition by partition"}, false), nil
	case KindRead, KindWrite, KindPage, KindExplain, KindRing:
	default:
		return c.node.Call(ctx, req, dst)
	}
	if c.node.draining.Load() && kind != KindRing {
		c.node.refused.Add(1)
		return appendError(dst, ErrDraining, false), nil
	}
	return append(dst, c.ask(ctx, req)...), nil
}

// defaultTimeout is for requests whose context has no deadline.
const defaultTimeout = 10 * time.Second

// ask gives a request to the core and waits for its answer, which comes by the deadline.
func (c *Cluster) ask(ctx context.Context, req []byte) []byte {
	answer := make(chan []byte, 1)
	c.Start([][]byte{req}, []time.Time{deadlineOf(ctx, defaultTimeout)},
		[]func([]byte){func(resp []byte) { answer <- resp }})
	return <-answer
}

// Starts tells that Start takes reads and writes, unless so much work waits that whoever brings
// more may have to do it: that is for Call.
func (c *Cluster) Starts(req []byte) bool {
	if len(req) == 0 || c.node.draining.Load() || len(c.work) > workQueue/2 {
		return false
	}
	kind := Kind(req[0])
	return kind == KindRead || kind == KindWrite
}

// Start gives requests to the core. Each is answered by its deadline.
func (c *Cluster) Start(reqs [][]byte, deadlines []time.Time, answers []func(resp []byte)) {
	now := time.Now()
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		for _, answer := range answers {
			answer(appendError(nil, ErrDraining, false))
		}
		return
	}
	s := steppingPool.Get().(*stepping)
	for i, req := range reqs {
		p := pendingCall{Kind(req[0]), now, answers[i]}
		left := deadlines[i].Sub(now)
		if left <= 0 {
			s.answered = append(s.answered,
				answeredCall{p, appendError(nil, context.DeadlineExceeded, false)})
			continue
		}
		left -= min(left/20, 20*time.Millisecond) // the client is to hear of it before it gives up
		c.lastToken++
		c.waiting[c.lastToken] = p
		s.events = append(s.events, Event{Kind: EventRequest, Token: c.lastToken, Request: req,
			Deadline: now.Sub(c.born) + left})
	}
	c.mu.Unlock()
	c.drive(s)
}

// plain serves the requests of a client that knows nothing of clusters, at QUORUM. Of several
// values it gets the one that was written last.
func (c *Cluster) plain(ctx context.Context, req, dst []byte) []byte {
	r, err := decodeRequest(req)
	if err != nil {
		c.node.malformed.Add(1)
		return appendError(dst, err, false)
	}
	op := Op{Kind: KindRead, Key: r.key}
	if r.kind != KindGet {
		op = Op{Kind: KindWrite, Key: r.key, Value: r.value, Durability: r.durability,
			Tombstone: r.kind == KindDelete}
	}
	answer, _ := c.Call(ctx, op.AppendTo(nil), nil)
	body, err := decodeAnswer(answer)
	if err != nil {
		return append(dst, answer...)
	}
	if r.kind != KindGet {
		return append(dst, byte(statusOK))
	}
	a, err := decodeOpAnswer(body, true)
	if err != nil {
		return appendError(dst, err, false)
	}
	if len(a.values) == 0 {
		return append(dst, byte(statusNotFound))
	}
	return append(append(dst, byte(statusOK)), a.values[0]...)
}

// Ring describes the cluster as this node sees it.
func (c *Cluster) Ring() Ring {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.Ring()
}

// Counts are those of the core, and of its replica.
func (c *Cluster) Counts() CoreCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.core.Counts
	n.HintsDropped = c.core.replica.hints.dropped.Load()
	return n
}

// LocalCaller is a Caller that asks this node without a network.
type LocalCaller struct{ Cluster *Cluster }

func (l LocalCaller) Call(ctx context.Context, req, dst []byte) ([]byte, error) {
	if out, ok := l.Cluster.TryCall(req, dst); ok {
		return out, nil
	}
	return l.Cluster.Call(ctx, req, dst)
}

func (LocalCaller) Close() error { return nil }

var errNoNode = errors.New("replication: no node of the cluster can be reached")
