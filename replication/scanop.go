package replication

import (
	"encoding/binary"
	"slices"
	"time"
)

// scanOp is a page of one partition, merged from R replicas, of which one is an owner: a list that
// lacks what was written before owners went away would look like a whole one.
//
// The answer, after the status byte: pairs in the order of their keys, each with all its values,
// then an empty key and where the next page of the partition starts, empty at its end.
//
//	( key | n uvarint | n values )* | 00 | next
type scanOp struct {
	id       uint64
	from     origin
	op       Op
	deadline time.Duration
	need     int
	left     []NodeID
	asked    []NodeID
	pages    []page
	failures int
}

// page is what one replica has.
type page struct {
	node    NodeID
	entries []entry
	more    bool
}

const scanEntriesMax = 4096

func (c *Core) startScan(from origin, op Op, deadline time.Duration) {
	if op.Part >= Partitions {
		c.refuse(from, &MessageError{Kind: op.Kind, Reason: "no such partition"})
		return
	}
	need, err := op.Level.need(len(c.place.Owners(op.Part)))
	if err != nil {
		c.refuse(from, err)
		return
	}
	s := &scanOp{id: c.newID(), from: from, op: op, deadline: deadline, need: need}
	s.left = c.readOrder(op.Part, op.Strict || c.cfg.off.sloppy)
	if len(s.left) < need || !c.place.Owns(s.left[0], op.Part) { // owners come first
		c.Counts.Unavailable++
		c.refuse(from, &UnavailableError{Need: need, Got: len(s.left)})
		return
	}
	if s.op.Limit == 0 || s.op.Limit > scanEntriesMax {
		s.op.Limit = scanEntriesMax
	}
	c.begin(s.id, s)
	c.wakeAt(s.id, deadline)
	for range need {
		s.ask(c)
	}
}

func (s *scanOp) ask(c *Core) bool {
	if len(s.left) == 0 {
		return false
	}
	node := s.left[0]
	s.left = s.left[1:]
	s.asked = append(s.asked, node)
	if node == c.self {
		c.do(&Work{Kind: WorkScan, For: forScan, ID: s.id, From: c.self, Part: s.op.Part,
			Lower: s.op.Lower, Upper: s.op.Upper, Limit: int(s.op.Limit)})
		return true
	}
	c.send(node, ClassRequest, &peerMessage{kind: peerScan, id: s.id, part: s.op.Part,
		key: s.op.Lower, upper: s.op.Upper, limit: s.op.Limit})
	c.wakeAt(s.id, c.now.Since+4*c.patience(node))
	return true
}

// peerScan reads a page for another node.
func (c *Core) peerScan(from NodeID, m *peerMessage) {
	c.do(&Work{Kind: WorkScan, For: forScan, ID: m.id, From: from, Part: m.part,
		Lower: append([]byte(nil), m.key...), Upper: append([]byte(nil), m.upper...),
		Limit: int(min(m.limit, scanEntriesMax))})
}

func (c *Core) scanWork(w *Work) {
	if w.From == c.self {
		if s, ok := c.ops[w.ID].(*scanOp); ok {
			s.answered(c, page{c.self, w.Result.Entries, w.Result.More}, ackOf(w.Result.Err))
		}
		return
	}
	m := peerMessage{kind: peerPage, id: w.ID, part: w.Part, ack: ackOf(w.Result.Err)}
	if m.ack == ackOK {
		m.entries = w.Result.Entries
	}
	if w.Result.More {
		m.flags = flagMore
	}
	c.send(w.From, ClassRequest, &m)
}

func (c *Core) scanPage(from NodeID, m *peerMessage) {
	s, ok := c.ops[m.id].(*scanOp)
	if !ok {
		return
	}
	mem := arena{}
	for i := range m.entries {
		e := &m.entries[i]
		e.key, e.object = mem.copy(e.key), mem.copy(e.object)
	}
	s.answered(c, page{from, m.entries, m.flags&flagMore != 0}, m.ack)
}

func (s *scanOp) answered(c *Core, p page, a ack) {
	for i := range s.pages {
		if s.pages[i].node == p.node {
			return
		}
	}
	if a != ackOK {
		s.failures++
		waiting := len(s.asked) - s.failures - len(s.pages)
		if !s.ask(c) && (len(s.asked)-s.failures < s.need || waiting == 0) {
			s.fail(c)
		}
		return
	}
	s.pages = append(s.pages, p)
	if len(s.pages) >= s.need && s.ownerSpoke(c) {
		c.end(s.id)
		c.answer(s.from, s.merge(c))
	}
}

// ownerSpoke reports whether any of the pages is an owner's: others do not know what there is.
func (s *scanOp) ownerSpoke(c *Core) bool {
	return slices.ContainsFunc(s.pages, func(p page) bool {
		return c.place.Owns(p.node, s.op.Part)
	})
}

func (s *scanOp) fail(c *Core) {
	c.end(s.id)
	c.Counts.Unavailable++
	c.answer(s.from, appendOpError(nil, &UnavailableError{Need: s.need, Got: len(s.pages)}, false))
}

func (s *scanOp) wake(c *Core) {
	if c.now.Since >= s.deadline {
		s.fail(c)
		return
	}
	if len(s.asked) < s.need+2 {
		s.ask(c) // one that is slow
	}
}

// merge joins the pages. A page that is not the whole says nothing of what lies behind its last
// key, so the answer goes no further than the shortest of them.
func (s *scanOp) merge(c *Core) []byte {
	var end []byte // the last key that all pages cover; nil: everything
	for _, p := range s.pages {
		if !p.more || len(p.entries) == 0 {
			continue
		}
		if last := p.entries[len(p.entries)-1].key; end == nil || string(last) < string(end) {
			end = last
		}
	}
	out := append(make([]byte, 0, s.answerBytes()), byte(statusOK))
	count, next := uint64(0), []byte(nil)
	for {
		key := s.smallest()
		if key == nil || end != nil && string(key) > string(end) {
			break
		}
		if count == s.op.Limit {
			next = key
			end = nil
			break
		}
		var o Object
		for i := range s.pages {
			p := &s.pages[i]
			if len(p.entries) == 0 || string(p.entries[0].key) != string(key) {
				continue
			}
			theirs, err := DecodeObject(p.entries[0].object)
			p.entries = p.entries[1:]
			if err != nil {
				c.Counts.Malformed++
				continue
			}
			o = Merge(o, theirs, c.cfg.Policy(key))
		}
		values := o.Values()
		if len(values) == 0 {
			continue
		}
		count++
		out = appendField(out, key)
		out = binary.AppendUvarint(out, uint64(len(values)))
		for _, v := range values {
			out = appendField(out, v.Value)
		}
	}
	if end != nil {
		next = append(append([]byte(nil), end...), 0)
	}
	return appendField(append(out, 0), next)
}

// answerBytes is about how much the answer takes: what the largest of the pages does.
func (s *scanOp) answerBytes() (most int) {
	for _, p := range s.pages {
		most = max(most, entriesBytes(p.entries))
	}
	return most + messageHeadBytes
}

func (s *scanOp) smallest() (key []byte) {
	for _, p := range s.pages {
		if len(p.entries) > 0 && (key == nil || string(p.entries[0].key) < string(key)) {
			key = p.entries[0].key
		}
	}
	return key
}
