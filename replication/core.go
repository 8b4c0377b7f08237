package replication

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"kvd/lsm"
)

// Instant is a moment as a node sees it: the time since it started, which only goes on, and the
// time of day in milliseconds since 1970, which may jump and decides nothing but ties.
type Instant struct {
	Since      time.Duration
	WallMillis int64
}

// EventKind says what an Event is.
type EventKind uint8

const (
	EventTick    EventKind = iota + 1 // time has passed
	EventRequest                      // a client asks
	EventMessage                      // a node sent a message
	EventWork                         // the store has done Work
	EventLink                         // the connection to a node came up or broke
)

// Event is what a Core reacts to. Request and Message are valid during the Step only.
type Event struct {
	Kind     EventKind
	Token    uint64        // request: names it in its answer
	Request  []byte        // request: an encoded Op
	Deadline time.Duration // request: answered by then
	From     NodeID        // message, link
	Message  []byte        // message
	Up       bool          // link
	Work     *Work         // work
}

// Class is how a message travels.
type Class uint8

const (
	ClassRequest Class = iota // somebody waits
	ClassBulk                 // repair: behind everything else
	ClassGossip               // small, may be lost
)

// EffectKind says what an Effect is.
type EffectKind uint8

const (
	EffectSend   EffectKind = iota + 1 // send Message to To
	EffectWork                         // do Work, give it back as an event
	EffectAnswer                       // answer the request Token
)

// Effect is what a Core wants done. Message, Answer and Work are the receiver's to keep.
type Effect struct {
	Kind    EffectKind
	To      NodeID
	Class   Class
	Message []byte
	Work    *Work
	Token   uint64
	Answer  []byte
}

// Config is what a Core is made of. Zero times take their defaults.
type Config struct {
	Self      NodeID
	Placement *Placement
	Cluster   uint64 // identity of the cluster: messages of another are refused
	// Incarnation of this life of the node, durable before the Core is made.
	Incarnation uint32
	// Fresh says that the disk was empty, in this life or in one that ended before this was known:
	// the node takes no writes before its peers have said which incarnation it last had, or
	// FreshWait has passed.
	Fresh bool
	// Empty says that there is nothing in the store yet.
	Empty bool
	// Behind says that the disk was empty, in this life or an earlier one, and may lack what others
	// have: reads by this node do not count before that has come.
	Behind bool
	Rand   *rand.Rand
	Policy func(key []byte) Policy
	// MaxPending bounds the client requests under way; one more is refused at once. Default 4096.
	MaxPending int
	// GossipInterval is the time between heartbeats. Default 1 s.
	GossipInterval time.Duration
	// SyncInterval is the time between comparisons of trees with one peer. Default 1 s.
	SyncInterval time.Duration
	// SettleTime is how long after the last change a partition is compared. Default 2 s.
	SettleTime time.Duration
	// CollectInterval is the time between looks for tombstones to forget; CollectGrace is how long
	// all nodes must have been up and the tombstone unchanged: longer than any message lives.
	// Defaults 10 s and 10 min.
	CollectInterval, CollectGrace time.Duration
	// HintAge is how long a node may be away before owners stop making new hints for it: trees are
	// compared when it is back. Who stands in for it goes on. Default 3 h.
	HintAge time.Duration
	// FreshWait: see Fresh. Default 10 s.
	FreshWait time.Duration

	off switches
}

// switches turn mechanisms off, so that tests can show what each is for.
type switches struct {
	hints, readRepair, trees, sloppy, confirm, collect bool
}

func orElse[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

func (c Config) withDefaults() Config {
	orElse(&c.MaxPending, 4096)
	orElse(&c.GossipInterval, time.Second)
	orElse(&c.SyncInterval, time.Second)
	orElse(&c.SettleTime, 2*time.Second)
	orElse(&c.CollectInterval, 10*time.Second)
	orElse(&c.CollectGrace, 10*time.Minute)
	orElse(&c.HintAge, 3*time.Hour)
	orElse(&c.FreshWait, 10*time.Second)
	if c.Policy == nil {
		c.Policy = func([]byte) Policy { return KeepSiblings }
	}
	return c
}

// Core is the logic of a node of a cluster: what happened goes in, what is to be done comes out. It
// starts no goroutine, reads no clock, draws no randomness but from Config.Rand and waits for
// nothing, so a whole cluster of cores runs in one goroutine and does the same again for the same
// seed. Not for concurrent use.
type Core struct {
	// Fixed after NewCore.
	cfg     Config
	self    NodeID
	place   *Placement
	replica *Replica // asked only for what is in memory: roots and counts

	members *Membership
	links   map[NodeID]*link // never walked: the order of the members is that of Placement
	ops     map[uint64]operation
	flights map[flight]*getOp
	served  map[origin]bool // requests passed on by other nodes
	timers  timers
	handoff map[NodeID]*handoff
	sync    syncState
	collect collectState

	now        Instant
	lastID     uint64
	pending    int                    // client requests under way
	ready      bool                   // may give out dots
	asking     bool                   // whether others know of an earlier life; not ready meanwhile
	answeredBy map[NodeID]bool        // while asking: who has said what it knows of this node
	life       uint32                 // the least that this one may be, by what others know
	raising    bool                   // the incarnation, in the store
	behind     map[Partition][]NodeID // whom this node has to be equal with before its reads count
	effects    []Effect
	Counts     CoreCounts
}

// operation is something that goes on over several steps.
type operation interface {
	// wake is called at or after a time that the operation asked for.
	wake(c *Core)
}

// NewCore makes a core for a replica that has claimed its store.
func NewCore(cfg Config, r *Replica) *Core {
	cfg = cfg.withDefaults()
	c := &Core{
		cfg:        cfg,
		self:       cfg.Self,
		place:      cfg.Placement,
		replica:    r,
		links:      make(map[NodeID]*link),
		ops:        make(map[uint64]operation),
		flights:    make(map[flight]*getOp),
		served:     make(map[origin]bool),
		handoff:    make(map[NodeID]*handoff),
		answeredBy: make(map[NodeID]bool),
		lastID:     uint64(cfg.Incarnation) << 32,
		ready:      !cfg.Fresh || len(cfg.Placement.Members) == 1,
	}
	var ids []NodeID
	for _, m := range c.place.Members {
		ids = append(ids, m.ID)
		if m.ID != c.self {
			c.links[m.ID] = newLink()
		}
	}
	c.asking = !c.ready
	c.members = c.newMembership(ids)
	c.sync.init(c)
	c.initBehind()
	return c
}

// Step lets the core react to one event. The effects are valid until the next Step.
func (c *Core) Step(now Instant, e Event) []Effect {
	c.now = now
	clear(c.effects) // keep nothing alive
	c.effects = c.effects[:0]
	switch e.Kind {
	case EventRequest:
		c.request(e)
	case EventMessage:
		c.message(e.From, e.Message)
	case EventWork:
		c.workDone(e.Work)
	case EventLink:
		c.linkChanged(e.From, e.Up)
	}
	c.tick()
	return c.effects
}

// NextWake is when the core wants a tick at the latest.
func (c *Core) NextWake() time.Duration {
	next := min(c.nextGossip(), c.sync.next, c.collect.next)
	if len(c.timers) > 0 {
		next = min(next, c.timers[0].at)
	}
	return next
}

// tick does what is due.
func (c *Core) tick() {
	for len(c.timers) > 0 && c.timers[0].at <= c.now.Since {
		t := heap.Pop(&c.timers).(timer)
		if op := c.ops[t.id]; op != nil {
			op.wake(c)
		}
	}
	c.tickGossip()
	c.tickHandoff()
	c.tickSync()
	c.tickCollect()
}

func (c *Core) newID() uint64 {
	c.lastID++
	return c.lastID
}

// begin enters an operation under an id of its own.
func (c *Core) begin(id uint64, op operation) { c.ops[id] = op }

func (c *Core) end(id uint64) { delete(c.ops, id) }

func (c *Core) wakeAt(id uint64, at time.Duration) { heap.Push(&c.timers, timer{at, id}) }

// send gives a message to the network, which may lose it.
func (c *Core) send(to NodeID, class Class, m *peerMessage) {
	m.cluster, m.epoch = c.cfg.Cluster, c.place.Epoch
	c.effects = append(c.effects, Effect{Kind: EffectSend, To: to, Class: class,
		Message: m.appendTo(make([]byte, 0, m.bytes()))})
}

func (c *Core) do(w *Work) {
	w.WallMillis = c.now.WallMillis
	c.effects = append(c.effects, Effect{Kind: EffectWork, Work: w})
}

// answer ends a request: of a client, or of one that another node passed on.
func (c *Core) answer(o origin, answer []byte) {
	if o.node == "" {
		c.pending--
		c.effects = append(c.effects, Effect{Kind: EffectAnswer, Token: o.token, Answer: answer})
		return
	}
	c.send(o.node, ClassRequest, &peerMessage{kind: peerForwarded, id: o.token, body: answer})
}

// origin is who asked: a client of this node, or a node on behalf of one of its clients.
type origin struct {
	node  NodeID // "" for a client
	token uint64
}

// reachable reports whether there is any sense in sending to a node.
func (c *Core) reachable(id NodeID) bool {
	if id == c.self {
		return true
	}
	l := c.links[id]
	return l != nil && l.up && c.verdict(id) != Down
}

func (c *Core) linkChanged(from NodeID, up bool) {
	l := c.links[from]
	if l == nil {
		return
	}
	l.up, l.since = up, c.now.Since
	l.outstanding = 0 // what was under way is lost
	if !up {
		c.collect.someoneLeft()
	}
}

// message takes in what a peer sent. What is not for this cluster and placement goes no further.
func (c *Core) message(from NodeID, msg []byte) {
	m, err := decodePeerMessage(msg)
	switch {
	case err != nil:
		c.Counts.Malformed++
		return
	case c.links[from] == nil:
		c.Counts.Strangers++
		return
	case m.cluster != c.cfg.Cluster:
		c.Counts.WrongCluster++
		return
	case m.epoch != c.place.Epoch:
		c.Counts.WrongEpoch++
		if m.epoch < c.place.Epoch && m.kind != peerStale {
			c.send(from, ClassGossip, &peerMessage{kind: peerStale})
		}
		return
	}
	c.heard(from)
	c.Counts.Received[m.kind]++
	switch m.kind {
	case peerWrite:
		c.peerWrite(from, &m)
	case peerWriteAck:
		c.writeAck(from, &m)
	case peerRead:
		c.peerRead(from, &m)
	case peerReadAck:
		c.readAck(from, &m)
	case peerForward:
		c.forwardedHere(from, &m)
	case peerForwarded:
		c.forwardAnswered(from, &m)
	case peerGossip:
		c.gossip(from, &m)
	case peerStale:
		// With static membership nobody has a greater epoch; the count tells of a wrong set-up.
	case peerSummary, peerRoots, peerLeaves, peerDigests, peerWant:
		c.syncMessage(from, &m)
	case peerCollect, peerCollected, peerForget:
		c.collectMessage(from, &m)
	case peerScan, peerScanDigest:
		c.peerScan(from, &m)
	case peerPage, peerPageDigest:
		c.scanPage(from, &m)
	}
}

// workDone passes a Work on to whoever waits for it.
func (c *Core) workDone(w *Work) {
	if w.Result.Err != nil {
		c.Counts.StoreErrors++
	}
	switch w.For {
	case forPut:
		if op, ok := c.ops[w.ID].(*putOp); ok {
			op.stored(c, w)
		}
	case forGet:
		switch op := c.ops[w.ID].(type) {
		case *getOp:
			op.localRead(c, w)
		case *explainOp:
			op.has(c, c.self, w.Result.Object, ackOf(w.Result.Err))
		}
	case forRepair:
		if op, ok := c.ops[w.ID].(*getOp); ok {
			op.localRepair(c, w)
		}
	case forPeerWrite:
		c.peerWritten(w)
	case forPeerRead:
		c.peerHasRead(w)
	case forHandoff:
		c.handoffWork(w)
	case forSync:
		c.syncWork(w)
	case forCollect:
		c.collectWork(w)
	case forScan:
		c.scanWork(w)
	case forIncarnation:
		c.incarnationRaised(w)
	}
}

// peerWrite merges what a peer sent and acknowledges it when it is as durable as was asked.
func (c *Core) peerWrite(from NodeID, m *peerMessage) {
	o, err := DecodeObject(append([]byte(nil), m.object...))
	if err != nil || len(o.Clock) == 0 {
		c.Counts.Malformed++
		return
	}
	if m.flags&flagRepair != 0 {
		c.Counts.RepairsReceived++
	}
	if m.flags&flagHandoff != 0 {
		c.Counts.HintsReceived++
	}
	w := &Work{Kind: WorkMerge, For: forPeerWrite, From: from, ID: m.id,
		Part: PartitionOf(m.key), Key: append([]byte(nil), m.key...), Object: o,
		Durability: m.durability, Digest: o.Digest()}
	if m.target != 0 {
		w.Targets = []uint32{m.target}
	} else if !c.place.Owns(c.self, w.Part) {
		c.Counts.NotOwned++ // a node with another placement; it may not leave data here
		return
	}
	c.do(w)
}

func (c *Core) peerWritten(w *Work) {
	if w.Result.Err == nil && !w.Result.Durable {
		return
	}
	if w.Result.Err == nil && w.Result.Changed {
		c.Counts.Merged++
	}
	c.send(w.From, ClassRequest, &peerMessage{kind: peerWriteAck, id: w.ID,
		ack: ackOf(w.Result.Err), digest: w.Result.Object.Digest()})
}

// peerRead answers with the object of a key, or with its digest when that will do.
func (c *Core) peerRead(from NodeID, m *peerMessage) {
	part := PartitionOf(m.key)
	if !c.counts(part) {
		c.send(from, ClassRequest, &peerMessage{kind: peerReadAck, id: m.id, ack: ackFailed})
		return
	}
	w := &Work{Kind: WorkRead, For: forPeerRead, From: from, ID: m.id, Part: part,
		Key: append([]byte(nil), m.key...)}
	if m.flags&flagDigest != 0 {
		w.Limit = 1
	}
	c.do(w)
}

func (c *Core) peerHasRead(w *Work) {
	m := peerMessage{kind: peerReadAck, id: w.ID, ack: ackOf(w.Result.Err)}
	if w.Result.Err == nil {
		m.digest = w.Result.Object.Digest()
		if w.Limit == 0 {
			m.flags, m.object = flagFound, w.Result.Encoded
		}
	}
	c.send(w.From, ClassRequest, &m)
}

// writeAck is for the operation that sent the write.
func (c *Core) writeAck(from NodeID, m *peerMessage) {
	switch op := c.ops[m.id].(type) {
	case *putOp:
		op.acked(c, from, m.ack)
	case *getOp:
		op.repaired(c, from, m.ack)
	case *handoff:
		op.acked(c, from, m)
	}
}

func (c *Core) readAck(from NodeID, m *peerMessage) {
	switch op := c.ops[m.id].(type) {
	case *getOp:
		op.readAck(c, from, m)
	case *explainOp:
		o, err := Object{}, error(nil)
		if len(m.object) > 0 {
			o, err = DecodeObject(append([]byte(nil), m.object...))
		}
		if err != nil {
			c.Counts.Malformed++
			m.ack = ackCorrupt
		}
		op.has(c, from, o, m.ack)
	}
}

// durabilityOfRepair: what repairs bring is as durable as what they repair was asked to be, at
// most, and the default is the strongest.
const durabilityOfRepair = lsm.Sync

// timer is an operation's wish to be woken.
type timer struct {
	at time.Duration
	id uint64
}

// timers is a heap by time. Entries of operations that have ended are skipped when they come up.
type timers []timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].id < t[j].id
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

// CoreCounts count what a core has done.
type CoreCounts struct {
	Malformed       uint64            // messages that are none
	Strangers       uint64            // messages of nodes that are no members
	WrongCluster    uint64            // messages of another cluster
	WrongEpoch      uint64            // messages of another placement
	NotOwned        uint64            // writes for partitions that this node does not own
	LivesForgotten  uint64            // times others knew of a later life of this node
	StoreErrors     uint64            // work that failed
	Received        [peerKinds]uint64 // messages by kind
	Merged          uint64            // writes of peers that changed something
	RepairsReceived uint64
	RepairsSent     uint64 // read repair
	HintsReceived   uint64
	HintsSent       uint64
	HintBytesSent   uint64 // keys and objects
	HintsDropped    uint64 // by an owner, beyond HintsMax
	SyncSent        uint64 // objects sent because trees differed
	SyncBytesSent   uint64 // keys and objects
	SyncRounds      uint64 // comparisons begun
	SyncEqual       uint64 // that found nothing
	Collected       uint64 // tombstones forgotten
	Overloaded      uint64 // requests refused at once
	Unavailable     uint64
	InDoubt         uint64
	Hedged          uint64
	StoodIn         uint64 // writes taken for another node
	Forwarded       uint64
	Shared          uint64 // reads that shared another's answers
	Siblings        uint64 // reads answered with more than one value
}
