package replication

import (
	"time"
)

// Tombstones are forgotten when nobody can bring back what they cover: every owner holds exactly
// this tombstone durably, no node keeps a hint about the partition, and all nodes have been up for
// longer than a message can be on its way. The first owner of a partition asks; nobody's time of
// day counts.
type collectState struct {
	next    time.Duration
	look    time.Duration // when to see again whether all nodes are up
	part    int           // index into the members' partitions: the next to look at
	allUp   time.Duration // since when all nodes have been up; below 0: they are not
	found   map[Partition]*found
	round   *collectRound
	primary []Partition // of which this node is the first owner
	began   bool
}

// found are tombstones that have been seen, and when.
type found struct {
	since   time.Duration
	entries map[string]uint64 // key -> digest
	agreed  bool              // all have agreed once, a grace ago
}

// collectRound is a question to all nodes.
type collectRound struct {
	id      uint64
	part    Partition
	entries []entry
	agreed  map[string]int // owners that hold the same, by key
	waiting map[NodeID]bool
	until   time.Duration
	second  bool
}

const (
	collectMost     = 256             // tombstones of one question
	collectPatience = 5 * time.Second // for the answers
	lookEvery       = 200 * time.Millisecond
)

func (c *Core) tickCollect() {
	s := &c.collect
	if c.cfg.off.collect {
		s.next = never
		return
	}
	if !s.began {
		s.began = true
		s.found = make(map[Partition]*found)
		s.allUp = -1
		s.next = jitter(c, c.cfg.CollectInterval)
		for p := range Partitions {
			if c.place.Owners(Partition(p))[0] == c.self {
				s.primary = append(s.primary, Partition(p))
			}
		}
	}
	if c.now.Since < min(s.next, s.look) && s.round == nil {
		return
	}
	s.look = c.now.Since + lookEvery
	if !c.allReachable() {
		s.someoneLeft()
	} else if s.allUp < 0 {
		s.allUp = c.now.Since
	}
	if s.round != nil && c.now.Since >= s.round.until {
		s.round = nil
	}
	if c.now.Since < s.next {
		return
	}
	s.next = c.now.Since + jitter(c, c.cfg.CollectInterval)
	if s.round != nil || s.allUp < 0 || len(s.primary) == 0 {
		return
	}
	// All partitions within one grace or so, at least one at a time.
	for range max(1, int(time.Duration(len(s.primary))*c.cfg.CollectInterval/c.cfg.CollectGrace)) {
		s.part = (s.part + 1) % len(s.primary)
		c.do(&Work{Kind: WorkDeleted, For: forCollect, Part: s.primary[s.part], Limit: collectMost})
	}
}

// someoneLeft starts the time anew for which all nodes have been up.
func (s *collectState) someoneLeft() {
	s.allUp, s.round = -1, nil
	clear(s.found)
}

func (c *Core) allReachable() bool {
	for _, m := range c.place.Members {
		if !c.reachable(m.ID) || c.verdict(m.ID) != Alive {
			return false
		}
	}
	return true
}

func (c *Core) collectWork(w *Work) {
	switch w.Kind {
	case WorkDeleted:
		if w.Result.Err == nil {
			c.deletedFound(w)
		}
	case WorkCheck:
		if w.Result.Err == nil && !w.Result.Durable {
			return
		}
		m := peerMessage{kind: peerCollected, id: w.ID, part: w.Part, ack: ackOf(w.Result.Err),
			entries: w.Result.Entries}
		if w.Result.Any {
			m.flags = flagAny
		}
		if w.From == c.self {
			c.collected(c.self, &m)
			return
		}
		c.send(w.From, ClassBulk, &m)
	case WorkDrop:
		c.Counts.Collected += uint64(len(w.Result.Entries))
	}
}

// deletedFound begins a round with those tombstones that were there a grace ago and are the same.
func (c *Core) deletedFound(w *Work) {
	s := &c.collect
	f := s.found[w.Part]
	if f == nil {
		if len(w.Result.Entries) == 0 {
			return
		}
		f = &found{since: c.now.Since, entries: make(map[string]uint64)}
		for _, e := range w.Result.Entries {
			f.entries[string(e.key)] = e.digest
		}
		s.found[w.Part] = f
		return
	}
	if c.now.Since < max(f.since, s.allUp)+c.cfg.CollectGrace || s.allUp < 0 || s.round != nil {
		return
	}
	var old []entry
	for _, e := range w.Result.Entries {
		if f.entries[string(e.key)] == e.digest {
			old = append(old, e)
		}
	}
	delete(s.found, w.Part) // what is left over is found again
	if len(old) == 0 {
		return
	}
	r := &collectRound{id: c.newID(), part: w.Part, entries: old, agreed: make(map[string]int),
		waiting: make(map[NodeID]bool), until: c.now.Since + collectPatience,
		second: f.agreed}
	s.round = r
	for _, m := range c.place.Members {
		r.waiting[m.ID] = true
		if m.ID == c.self {
			c.do(&Work{Kind: WorkCheck, For: forCollect, From: c.self, ID: r.id, Part: w.Part,
				Entries: old})
			continue
		}
		c.send(m.ID, ClassBulk, &peerMessage{kind: peerCollect, id: r.id, part: w.Part,
			entries: old})
	}
}

func (c *Core) collectMessage(from NodeID, m *peerMessage) {
	switch m.kind {
	case peerCollect:
		c.do(&Work{Kind: WorkCheck, For: forCollect, From: from, ID: m.id, Part: m.part,
			Entries: keep(m.entries)})
	case peerCollected:
		c.collected(from, m)
	case peerForget:
		if c.place.Owns(c.self, m.part) && c.place.Owners(m.part)[0] == from {
			c.do(&Work{Kind: WorkDrop, For: forCollect, Part: m.part, Entries: keep(m.entries)})
		}
	}
}

// keep copies entries out of a message.
func keep(entries []entry) []entry {
	all := make([]entry, 0, len(entries))
	for _, e := range entries {
		e.key = append([]byte(nil), e.key...)
		all = append(all, e)
	}
	return all
}

// collected counts an answer. One that objects ends the round.
func (c *Core) collected(from NodeID, m *peerMessage) {
	s := &c.collect
	r := s.round
	if r == nil || r.id != m.id || !r.waiting[from] {
		return
	}
	if m.ack != ackOK || m.flags&flagAny != 0 {
		s.round = nil
		return
	}
	delete(r.waiting, from)
	if c.place.Owns(from, r.part) {
		for _, e := range m.entries {
			r.agreed[string(e.key)]++
		}
	}
	if len(r.waiting) > 0 {
		return
	}
	s.round = nil
	owners := c.place.Owners(r.part)
	var all []entry
	for _, e := range r.entries {
		if r.agreed[string(e.key)] == len(owners) {
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		return
	}
	if !r.second {
		// An owner may have sent an older value to another before it agreed. Asked again, after
		// longer than a message lives, it has nothing to send that the others could take.
		f := &found{since: c.now.Since, entries: make(map[string]uint64), agreed: true}
		for _, e := range all {
			f.entries[string(e.key)] = e.digest
		}
		s.found[r.part] = f
		return
	}
	for _, id := range owners {
		if id == c.self {
			c.do(&Work{Kind: WorkDrop, For: forCollect, Part: r.part, Entries: all})
			continue
		}
		c.send(id, ClassBulk, &peerMessage{kind: peerForget, id: r.id, part: r.part, entries: all})
	}
}
