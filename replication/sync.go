package replication

import (
	"encoding/binary"
	"time"
)

// Anti-entropy: two nodes compare the trees of the partitions that both own, from the top down, and
// send each other what differs. Nodes that agree exchange one number.
//
//	summary ──►            one number over all roots
//	        ◄── summary    the same: done
//	        ◄── roots      or: the root of each partition
//	leaves  ──►            of a partition whose roots differ
//	        ◄── writes     objects of leaves that are empty there
//	        ◄── digests    keys of leaves that differ, with digest and stamp; which leaves to send
//	                       or: cannot be read here
//	writes  ──►            what is newer here or missing there
//	want    ──►            what is newer there or missing here
//	        ◄── writes
//
// The responder keeps nothing between messages, the initiator one round. What is lost on the way
// differs in the next round too.
type syncState struct {
	next    time.Duration
	shared  map[NodeID][]Partition // partitions that this node and another own
	unbuilt []Partition
	damaged []Partition // whose tree could not be made
	retry   time.Duration
	peer    int // of the last round, as index of the members
	round   *syncRound
	differs map[resumeAt]time.Duration // since when a partition differs and does not come to rest
	resume  map[resumeAt][]byte        // the key behind which the next look at a partition begins
}

// resumeAt names a partition that is compared with a peer in more than one page.
type resumeAt struct {
	peer NodeID
	part Partition
}

// syncRound is a comparison that this node began.
type syncRound struct {
	id       uint64
	peer     NodeID
	progress time.Duration // when something last came
	left     []Partition   // that differ and were not looked at
	flying   map[Partition]bool
}

const (
	busyAfter     = 10 // settle times, then a partition in use is compared all the same
	buildParallel = 64 // partitions whose trees are made in one go
	damagedRetry  = time.Minute
	owesPatience  = 30 * time.Second // without a hint handed over; then trees are compared
	syncParallel  = 8                // partitions of a round that are looked at together
	syncPatience  = 5 * time.Second  // without progress, then a round is given up
)

func (s *syncState) init(c *Core) {
	s.shared = make(map[NodeID][]Partition)
	s.differs = make(map[resumeAt]time.Duration)
	s.resume = make(map[resumeAt][]byte)
	s.unbuilt = c.place.Owned(c.self)
	for _, m := range c.place.Members {
		if m.ID != c.self {
			s.shared[m.ID] = c.place.Shared(c.self, m.ID)
		}
	}
	if c.cfg.off.trees {
		s.unbuilt = nil
		s.next = never
		return
	}
	s.next = jitter(c, c.cfg.SyncInterval)
}

const never = time.Duration(1<<63 - 1)

// jitter is a time between half and one and a half times d.
func jitter(c *Core, d time.Duration) time.Duration {
	return d/2 + time.Duration(c.cfg.Rand.Int64N(int64(d)))
}

func (c *Core) tickSync() {
	s := &c.sync
	if c.now.Since < s.next {
		return
	}
	s.next = c.now.Since + jitter(c, c.cfg.SyncInterval)
	if len(s.damaged) > 0 && s.round == nil && c.now.Since >= s.retry {
		s.retry = c.now.Since + damagedRetry
		s.unbuilt, s.damaged = append(s.unbuilt, s.damaged...), nil
	}
	if len(s.unbuilt) > 0 {
		// A few partitions at a time: reading everything after a start must not be in the way.
		if !s.building() {
			c.buildNext()
		}
		return
	}
	if r := s.round; r != nil {
		if c.now.Since < r.progress+syncPatience {
			return
		}
		s.round = nil
	}
	for range c.place.Members {
		s.peer = (s.peer + 1) % len(c.place.Members)
		id := c.place.Members[s.peer].ID
		if len(s.shared[id]) == 0 || !c.reachable(id) || c.owes(id) {
			continue
		}
		s.round = &syncRound{id: c.newID(), peer: id, progress: c.now.Since,
			flying: make(map[Partition]bool)}
		c.Counts.SyncRounds++
		c.send(id, ClassBulk, &peerMessage{kind: peerSummary, id: s.round.id,
			digest: c.summary(id)})
		return
	}
}

// building reports whether the tree of the next partition is being made.
func (s *syncState) building() bool { return s.round != nil }

func (c *Core) buildNext() {
	c.sync.round = &syncRound{} // a placeholder: no comparison while trees are made
	w := &Work{Kind: WorkBuild, For: forSync}
	for _, part := range c.sync.unbuilt[:min(len(c.sync.unbuilt), buildParallel)] {
		w.Entries = append(w.Entries, entry{part: part})
	}
	c.do(w)
}

func (c *Core) built(w *Work) {
	s := &c.sync
	if w.Result.Err != nil { // damage, most likely: the partition is compared when it can be read
		for _, e := range w.Entries {
			if t, _ := c.replica.treeOf(e.part); t == nil {
				s.damaged = append(s.damaged, e.part)
			}
		}
	}
	s.unbuilt = s.unbuilt[len(w.Entries):]
	if len(s.unbuilt) == 0 {
		s.round = nil
		s.next = c.now.Since + jitter(c, c.cfg.SyncInterval)
		return
	}
	c.buildNext()
}

// summary is one number over the roots of all partitions shared with a node.
func (c *Core) summary(id NodeID) uint64 {
	shared := c.sync.shared[id]
	roots := make([]PartitionRoot, len(shared))
	for i, part := range shared {
		roots[i] = PartitionRoot{part, c.replica.rootOf(part)}
	}
	return Summary(roots)
}

func (c *Core) roots(id NodeID) []byte {
	var b []byte
	for _, part := range c.sync.shared[id] {
		b = binary.LittleEndian.AppendUint64(b, c.replica.rootOf(part))
	}
	return b
}

func (c *Core) syncMessage(from NodeID, m *peerMessage) {
	s := &c.sync
	if len(s.unbuilt) > 0 || c.cfg.off.trees {
		return
	}
	mine := s.round != nil && s.round.id == m.id && s.round.peer == from
	if mine {
		s.round.progress = c.now.Since
	}
	switch {
	case m.kind == peerSummary && m.flags&flagReply == 0:
		c.compareSummary(from, m)
	case m.kind == peerSummary && mine:
		c.Counts.SyncEqual++
		c.links[from].equal = c.now.Since
		c.foundEqual(from, s.shared[from]...)
		s.round = nil
	case m.kind == peerRoots && mine:
		c.compareRoots(from, m)
	case m.kind == peerLeaves:
		c.compareLeaves(from, m)
	case m.kind == peerDigests && mine:
		c.askDigests(from, m)
	case m.kind == peerWant:
		c.sendWanted(from, m)
	}
}

// owes reports whether a node is being given what it missed: what differs until then is on its way.
func (c *Core) owes(id NodeID) bool {
	h := c.handoff[id]
	return h != nil && c.replica.hints.of(id.Number()) > 0 &&
		c.now.Since < max(h.progress, c.links[id].since)+owesPatience
}

func (c *Core) compareSummary(from NodeID, m *peerMessage) {
	if c.owes(from) {
		return // it asks again
	}
	if sum := c.summary(from); sum == m.digest {
		c.links[from].equal = c.now.Since
		c.foundEqual(from, c.sync.shared[from]...)
		c.send(from, ClassBulk, &peerMessage{kind: peerSummary, id: m.id, flags: flagReply,
			digest: sum})
		return
	}
	c.send(from, ClassBulk, &peerMessage{kind: peerRoots, id: m.id, flags: flagReply,
		body: c.roots(from)})
}

// compareRoots finds the partitions to look at. Those that have just changed are left for later:
// what differs in them is most likely on its way.
func (c *Core) compareRoots(from NodeID, m *peerMessage) {
	r := c.sync.round
	shared := c.sync.shared[from]
	if len(m.body) != 8*len(shared) {
		c.Counts.Malformed++
		c.sync.round = nil
		return
	}
	for i, part := range shared {
		theirs := binary.LittleEndian.Uint64(m.body[8*i:])
		if c.replica.rootOf(part) == theirs {
			delete(c.sync.differs, resumeAt{from, part})
			c.foundEqual(from, part)
			continue
		}
		tree, touched := c.replica.treeOf(part)
		if tree == nil {
			continue // damaged here
		}
		quiet := c.now.WallMillis - touched
		at := resumeAt{from, part}
		since, seen := c.sync.differs[at]
		if !seen {
			since = c.now.Since
			c.sync.differs[at] = since
		}
		// One that never comes to rest is compared too, if not as often.
		if quiet >= 0 && quiet < c.cfg.SettleTime.Milliseconds() &&
			c.now.Since < since+busyAfter*c.cfg.SettleTime {
			continue
		}
		delete(c.sync.differs, at)
		r.left = append(r.left, part)
	}
	c.continueRound()
}

func (c *Core) continueRound() {
	r := c.sync.round
	for len(r.left) > 0 && len(r.flying) < syncParallel {
		part := r.left[0]
		r.left = r.left[1:]
		t, _ := c.replica.treeOf(part)
		r.flying[part] = true
		c.send(r.peer, ClassBulk, &peerMessage{kind: peerLeaves, id: r.id, part: part,
			key: c.sync.resume[resumeAt{r.peer, part}], body: AppendLeaves(nil, t.Leaves())})
	}
	if len(r.left) == 0 && len(r.flying) == 0 {
		c.sync.round = nil
	}
}

// compareLeaves is the responder's: it sends what the other lacks altogether, and says what it has
// in the leaves that differ.
func (c *Core) compareLeaves(from NodeID, m *peerMessage) {
	theirs, err := DecodeLeaves(m.body)
	if err != nil {
		c.Counts.Malformed++
		return
	}
	tree, _ := c.replica.treeOf(m.part)
	if tree == nil || !c.place.Owns(c.self, m.part) {
		c.cannotCompare(from, m.id, m.part)
		return
	}
	ours := tree.Leaves()
	var send, list, give [Leaves]bool
	some := false
	for _, leaf := range Diff(ours, theirs) {
		switch {
		case theirs[leaf].Count == 0:
			send[leaf], some = true, true
		case ours[leaf].Count == 0:
			give[leaf] = true
		default:
			list[leaf] = true
		}
	}
	if some {
		c.do(&Work{Kind: WorkObjects, For: forSync, From: from, Part: m.part, Leaves: &send})
	}
	w := &Work{Kind: WorkDigests, For: forSync, From: from, ID: m.id, Part: m.part, Leaves: &list}
	w.After = append([]byte(nil), m.key...)
	w.Value = append(appendLeafSet(nil, &list), appendLeafSet(nil, &give)...)
	c.do(w)
}

const leafSetBytes = Leaves / 8

func appendLeafSet(dst []byte, set *[Leaves]bool) []byte {
	var b [leafSetBytes]byte
	for i, in := range set {
		if in {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return append(dst, b[:]...)
}

func leafSet(b []byte) *[Leaves]bool {
	var set [Leaves]bool
	for i := range set {
		set[i] = b[i/8]&(1<<(i%8)) != 0
	}
	return &set
}

// syncWork goes on with what was read from the store.
func (c *Core) syncWork(w *Work) {
	if w.Kind == WorkBuild {
		c.built(w)
		return
	}
	failed := w.Result.Err != nil // the next round meets it again
	switch {
	case w.Kind == WorkObjects && failed:
	case w.Kind == WorkObjects:
		c.push(w.From, w.Result.Entries)
	case w.Value != nil && failed:
		c.cannotCompare(w.From, w.ID, w.Part)
	case failed:
		c.leaveOut(w.ID, w.Part)
	case w.Value != nil: // responder: what is in the leaves that differ
		flags := uint8(0)
		if w.Result.More {
			flags = flagMore
		}
		c.send(w.From, ClassBulk, &peerMessage{kind: peerDigests, id: w.ID, flags: flags,
			part: w.Part, key: w.After, body: w.Value, entries: w.Result.Entries})
	default: // initiator: the same leaves here
		c.compareDigests(w)
	}
}

// cannotCompare tells the initiator that a partition cannot be read here. If nothing came, the
// round would wait for it as for one that is being read.
func (c *Core) cannotCompare(to NodeID, id uint64, part Partition) {
	c.send(to, ClassBulk, &peerMessage{kind: peerDigests, id: id, part: part, ack: ackCorrupt})
}

// leaveOut goes on with a round without one of its partitions.
func (c *Core) leaveOut(id uint64, part Partition) {
	if r := c.sync.round; r != nil && r.id == id {
		delete(r.flying, part)
		c.continueRound()
	}
}

func (c *Core) push(to NodeID, entries []entry) {
	for _, e := range entries {
		c.Counts.SyncSent++
		c.Counts.SyncBytesSent += uint64(len(e.key) + len(e.object))
		c.send(to, ClassBulk, &peerMessage{kind: peerWrite, id: 0, flags: flagRepair,
			durability: durabilityOfRepair, key: e.key, object: e.object})
	}
}

// askDigests reads here what the responder has listed of itself.
func (c *Core) askDigests(from NodeID, m *peerMessage) {
	if m.ack != ackOK {
		c.leaveOut(m.id, m.part)
		return
	}
	if len(m.body) != 2*leafSetBytes {
		c.Counts.Malformed++
		return
	}
	give := leafSet(m.body[leafSetBytes:])
	for _, in := range give {
		if in {
			c.do(&Work{Kind: WorkObjects, For: forSync, From: from, Part: m.part, Leaves: give})
			break
		}
	}
	w := &Work{Kind: WorkDigests, For: forSync, From: from, ID: m.id, Part: m.part,
		Leaves: leafSet(m.body[:leafSetBytes]), Entries: []entry{},
		After: append([]byte(nil), m.key...)}
	for _, e := range m.entries {
		e.key = append([]byte(nil), e.key...)
		w.Entries = append(w.Entries, e)
	}
	if m.flags&flagMore != 0 && len(w.Entries) > 0 {
		w.Upper = w.Entries[len(w.Entries)-1].key // nothing is known of what lies behind
	}
	c.do(w)
}

// compareDigests walks both lists, which are in the order of the keys: what is only here or newer
// here is sent, what is only there or newer there is asked for.
func (c *Core) compareDigests(w *Work) {
	r := c.sync.round
	if r == nil || r.id != w.ID {
		return
	}
	var send, want []entry
	ours, theirs := w.Result.Entries, w.Entries
	end := w.Upper // the last key that both pages cover; nil: everything
	if w.Result.More {
		if last := ours[len(ours)-1].key; end == nil || string(last) < string(end) {
			end = last
		}
	}
	covered := func(key []byte) bool { return end == nil || string(key) <= string(end) }
	at := resumeAt{r.peer, w.Part}
	if end == nil {
		delete(c.sync.resume, at)
	} else {
		c.sync.resume[at] = end
	}
	for len(ours) > 0 || len(theirs) > 0 {
		switch {
		case len(theirs) == 0 || len(ours) > 0 && string(ours[0].key) < string(theirs[0].key):
			if covered(ours[0].key) {
				send = append(send, ours[0])
			}
			ours = ours[1:]
		case len(ours) == 0 || string(theirs[0].key) < string(ours[0].key):
			if covered(theirs[0].key) {
				want = append(want, theirs[0])
			}
			theirs = theirs[1:]
		default:
			if ours[0].digest != theirs[0].digest {
				if ours[0].stamp > theirs[0].stamp {
					send = append(send, ours[0])
				} else {
					want = append(want, theirs[0])
				}
			}
			ours, theirs = ours[1:], theirs[1:]
		}
	}
	if len(send) > 0 {
		c.do(&Work{Kind: WorkObjects, For: forSync, From: w.From, Part: w.Part, Entries: send})
	}
	if len(want) > 0 {
		c.send(w.From, ClassBulk, &peerMessage{kind: peerWant, id: r.id, part: w.Part,
			entries: want})
	}
	delete(r.flying, w.Part)
	c.continueRound()
}

// sendWanted sends the objects that a peer has asked for.
func (c *Core) sendWanted(from NodeID, m *peerMessage) {
	w := &Work{Kind: WorkObjects, For: forSync, From: from, Part: m.part, Entries: []entry{}}
	for _, e := range m.entries {
		e.key = append([]byte(nil), e.key...)
		w.Entries = append(w.Entries, e)
	}
	c.do(w)
}
