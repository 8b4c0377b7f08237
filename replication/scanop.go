package replication

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// scanOp is a page of one partition, merged from R replicas, of which one is an owner: a list that
// lacks what was written before owners went away would look like a whole one. One replica sends its
// page, this node if it has one, and R-1 others digests of theirs. A page is fetched as well when
// its digest is that of none which is here.
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
	pages    []page // one for each replica that was asked
}

// page is what one replica has.
type page struct {
	node    NodeID
	state   askedState    // waiting, answered or failed
	full    bool          // asked for the page, not for its digest
	slow    time.Duration // when somebody else is asked as well
	digest  uint64        // unless full
	entries []entry       // if full
	more    bool          // if full
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
	for i := range need {
		s.ask(c, i == 0)
	}
}

// ask asks the next replica, for its page or just for a digest. A node that is no owner is always
// asked for its page: it has only what it was given while owners were away, and its digest would be
// that of no other page. ask reports false when there is nobody left.
func (s *scanOp) ask(c *Core, full bool) bool {
	if len(s.left) == 0 {
		return false
	}
	s.pages = append(s.pages, page{node: s.left[0]})
	s.left = s.left[1:]
	p := &s.pages[len(s.pages)-1]
	s.askFor(c, p, full || !c.place.Owns(p.node, s.op.Part))
	return true
}

func (s *scanOp) askFor(c *Core, p *page, full bool) {
	p.state, p.full = askedWaiting, full
	p.slow = c.now.Since + scanPatience*c.patience(p.node)
	if p.node == c.self {
		p.full = true // it costs no message
		c.do(&Work{Kind: WorkScan, For: forScan, ID: s.id, From: c.self, Part: s.op.Part,
			Lower: s.op.Lower, Upper: s.op.Upper, Limit: int(s.op.Limit)})
		return
	}
	m := peerMessage{kind: peerScan, id: s.id, part: s.op.Part, key: s.op.Lower,
		upper: s.op.Upper, limit: s.op.Limit}
	if !full {
		m.kind = peerScanDigest
	}
	c.send(p.node, ClassRequest, &m)
	c.wakeAt(s.id, p.slow)
}

// scanPatience is how many times as long as for one object a scan waits for a page.
const scanPatience = 4

// peerScan reads a page for another node, or makes its digest.
func (c *Core) peerScan(from NodeID, m *peerMessage) {
	w := &Work{Kind: WorkScan, For: forScan, ID: m.id, From: from, Part: m.part,
		Lower: append([]byte(nil), m.key...), Upper: append([]byte(nil), m.upper...),
		Limit: int(min(m.limit, scanEntriesMax))}
	if m.kind == peerScanDigest {
		w.Kind = WorkScanDigest
	}
	if !c.counts(m.part) {
		w.Result.Err = errBehind
		c.scanWork(w)
		return
	}
	c.do(w)
}

func (c *Core) scanWork(w *Work) {
	a := ackOf(w.Result.Err)
	if w.From == c.self {
		if s, ok := c.ops[w.ID].(*scanOp); ok {
			s.answered(c, page{node: c.self, full: true, entries: w.Result.Entries,
				more: w.Result.More}, a)
		}
		return
	}
	if w.Kind == WorkScanDigest {
		c.send(w.From, ClassRequest, &peerMessage{kind: peerPageDigest, id: w.ID, ack: a,
			digest: w.Result.Digest})
		return
	}
	m := peerMessage{kind: peerPage, id: w.ID, part: w.Part, ack: a}
	if a == ackOK {
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
	s.answered(c, page{node: from, full: m.kind == peerPage, digest: m.digest,
		entries: m.entries, more: m.flags&flagMore != 0}, m.ack)
}

// answered is told what a replica has.
func (s *scanOp) answered(c *Core, got page, a ack) {
	i := slices.IndexFunc(s.pages, func(p page) bool { return p.node == got.node })
	if i < 0 || s.pages[i].state != askedWaiting || s.pages[i].full != got.full {
		return // not asked, not again, or not for the digest any more
	}
	p := &s.pages[i]
	if a != ackOK {
		p.state = askedFailed
		if !s.ask(c, !s.havePage()) {
			s.check(c)
		}
		return
	}
	p.state, p.digest, p.entries, p.more = askedAnswered, got.digest, got.entries, got.more
	s.check(c)
}

// havePage reports whether there is a page that a digest can be compared with.
func (s *scanOp) havePage() bool {
	return slices.ContainsFunc(s.pages, func(p page) bool {
		return p.full && p.state == askedAnswered
	})
}

// check goes on when there are enough answers: it fetches the pages that differ, or ends the scan.
// It ends it also when there cannot be enough any more.
func (s *scanOp) check(c *Core) {
	answers, waiting, ownerSpoke := 0, 0, false
	for _, p := range s.pages {
		switch p.state {
		case askedAnswered:
			answers++
			// Others do not know what there is.
			ownerSpoke = ownerSpoke || c.place.Owns(p.node, s.op.Part)
		case askedWaiting:
			waiting++
		}
	}
	enough := answers >= s.need && ownerSpoke
	switch {
	case enough && s.fetchOthers(c):
		// With what comes the answers are enough again, unless a node fails.
	case enough:
		c.end(s.id)
		c.answer(s.from, s.merge(c))
	case waiting == 0, answers+waiting+len(s.left) < s.need:
		s.fail(c)
	}
}

// fetchOthers asks for the pages whose digests are those of none that is here. Where several have
// the same digest, one of them is asked.
func (s *scanOp) fetchOthers(c *Core) (asking bool) {
	var here []uint64
	for i := range s.pages {
		p := &s.pages[i]
		if p.full || p.state != askedAnswered {
			continue
		}
		if here == nil {
			here = s.digests()
		}
		if !slices.Contains(here, p.digest) {
			s.askFor(c, p, true)
			here, asking = append(here, p.digest), true
		}
	}
	return asking
}

// digests are those of the pages that are here, one at least when there are enough answers: those
// who are asked first are asked for one page, and others for digests only once there is one.
func (s *scanOp) digests() (all []uint64) {
	for _, p := range s.pages {
		if !p.full || p.state != askedAnswered {
			continue
		}
		sum := newPageSum()
		for i := range p.entries {
			sum.add(p.entries[i].key, p.entries[i].object)
		}
		all = append(all, sum.end(p.more))
	}
	return all
}

// pageSum makes the digest of a page: the xxhash64 of its keys and objects, each pair after their
// lengths, and of whether there is more. Objects have one encoding.
type pageSum struct{ xxhash.Digest }

func newPageSum() (s pageSum) {
	s.Reset()
	return s
}

func (s *pageSum) add(key, object []byte) {
	var space [2 * binary.MaxVarintLen64]byte
	lengths := binary.AppendUvarint(space[:0], uint64(len(key)))
	s.Write(binary.AppendUvarint(lengths, uint64(len(object))))
	s.Write(key)
	s.Write(object)
}

func (s *pageSum) end(more bool) uint64 {
	if more {
		s.Write([]byte{1})
	}
	return s.Sum64()
}

func (s *scanOp) fail(c *Core) {
	answers := 0
	for _, p := range s.pages {
		if p.state == askedAnswered {
			answers++
		}
	}
	c.end(s.id)
	c.Counts.Unavailable++
	c.answer(s.from, appendOpError(nil, &UnavailableError{Need: s.need, Got: answers}, false))
}

func (s *scanOp) wake(c *Core) {
	if c.now.Since >= s.deadline {
		s.fail(c)
		return
	}
	slow := slices.ContainsFunc(s.pages, func(p page) bool {
		return p.state == askedWaiting && c.now.Since >= p.slow
	})
	if slow && len(s.pages) < s.need+2 {
		s.ask(c, !s.havePage())
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
		if !o.fits() {
			return appendOpError(nil, fmt.Errorf("%w: %q", ErrTooManySiblings, key), false)
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
