package replication

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"
)

// Verdict is what a node thinks of a member.
type Verdict uint8

const (
	Alive   Verdict = iota
	Suspect         // it is silent for longer than is usual
	Down            // and others say so too: nothing is sent to it that somebody waits for
)

func (v Verdict) String() string { return [...]string{"alive", "suspect", "down"}[v] }

// Membership is what a node knows of the lives of all members: heartbeat counters that everybody
// raises for itself and passes on to a few others, as Dynamo's. It decides, it sends nothing.
//
// A member counts as down when it is silent here and at least one other member that is heard
// reports the same. A broken link between two nodes takes nobody out of service: the heartbeats go
// around it. Where nobody else is heard, there is nobody to ask.
type Membership struct {
	// Fixed after newMembership.
	self     int
	interval time.Duration
	rng      *rand.Rand
	alone    bool // verdicts need no confirmation: tests show what it is for

	table   []member // sorted by ID
	next    time.Duration
	stretch float64 // of the own patience: above 1 while this node itself is slow
	quiet   bool    // nothing of this life is told: the incarnation is not decided yet
	empty   bool    // nor is there a row of it then: nothing is stored here
}

// member is a row of the table.
type member struct {
	id          NodeID
	incarnation uint32
	heartbeat   uint64
	detector    detector
	verdict     Verdict
	doubts      map[int]time.Duration // who has reported that it suspects it, and when
}

const (
	gossipFanout = 2
	stretchMax   = 8.0
	doubtLives   = 4 // intervals for which a report counts
)

func newMembership(self NodeID, ids []NodeID, incarnation uint32, interval time.Duration,
	rng *rand.Rand) *Membership {
	m := &Membership{interval: interval, rng: rng, stretch: 1}
	ids = slices.Sorted(slices.Values(ids))
	for i, id := range ids {
		if id == self {
			m.self = i
		}
		m.table = append(m.table, member{id: id, doubts: make(map[int]time.Duration),
			detector: detector{mean: interval}})
	}
	m.table[m.self].incarnation = incarnation
	return m
}

func (m *Membership) index(id NodeID) int {
	i, there := slices.BinarySearchFunc(m.table, id, func(x member, id NodeID) int {
		return cmp.Compare(x.id, id)
	})
	if !there {
		return -1
	}
	return i
}

// Verdict is what is thought of a member since the last Tick, Receive or Heard.
func (m *Membership) Verdict(id NodeID) Verdict {
	if i := m.index(id); i >= 0 {
		return m.table[i].verdict
	}
	return Down
}

// opinion is what is thought of a member now and what was before.
type opinion struct {
	id      NodeID
	was, is Verdict
}

// changes returns of whom something else is thought than last has, which is brought up to date.
// Last is in the order of the table.
func (m *Membership) changes(last []Verdict) (all []opinion) {
	for i := range m.table {
		if x := &m.table[i]; x.verdict != last[i] {
			all = append(all, opinion{x.id, last[i], x.verdict})
			last[i] = x.verdict
		}
	}
	return all
}

// Incarnation of a member, 0 when nothing is known of it.
func (m *Membership) Incarnation(id NodeID) uint32 {
	if i := m.index(id); i >= 0 {
		return m.table[i].incarnation
	}
	return 0
}

// Next is when Tick wants to be called.
func (m *Membership) Next() time.Duration { return m.next }

// Tick raises the own heartbeat and says who is to get gossip: a few members that are not down, now
// and then one that is, and when somebody has just come under suspicion some more, who will answer
// what they think of it.
func (m *Membership) Tick(now time.Duration) (to []NodeID) {
	late := now - m.next
	if m.next == 0 {
		late = 0
	}
	m.next = now + m.interval*3/4 + time.Duration(m.rng.Int64N(int64(m.interval/2)))
	m.ownPace(now, late)
	m.table[m.self].heartbeat++
	fresh := m.judge(now)
	var up, down []NodeID
	for i := range m.table {
		switch {
		case i == m.self:
		case m.table[i].verdict == Down:
			down = append(down, m.table[i].id)
		default:
			up = append(up, m.table[i].id)
		}
	}
	fanout := gossipFanout
	if fresh || m.quiet {
		fanout = len(m.table)
	}
	m.rng.Shuffle(len(up), func(i, j int) { up[i], up[j] = up[j], up[i] })
	to = up[:min(fanout, len(up))]
	if len(down) > 0 {
		to = append(to, down[m.rng.IntN(len(down))])
	}
	return to
}

// ownPace makes a node that is late itself more patient with others, for a while (Lifeguard, Dadgar
// et al., 2018). One that was stopped altogether begins to listen anew.
func (m *Membership) ownPace(now, late time.Duration) {
	switch {
	case late > 3*m.interval:
		for i := range m.table {
			m.table[i].detector.skip(now, late)
			clear(m.table[i].doubts)
		}
		m.stretch = min(m.stretch*2, stretchMax)
	case late > m.interval/2:
		m.stretch = min(m.stretch+0.5, stretchMax)
	default:
		m.stretch = max(m.stretch*0.9, 1)
	}
}

// judge looks at everybody. It reports whether somebody has come under suspicion.
func (m *Membership) judge(now time.Duration) (fresh bool) {
	for i := range m.table {
		x := &m.table[i]
		if i == m.self {
			continue
		}
		silent := x.detector.phi(now, m.interval) > phiSuspect*m.stretch
		if silent && x.verdict == Alive {
			x.verdict, fresh = Suspect, true
		}
		if !silent {
			x.verdict = Alive
		}
	}
	for i := range m.table {
		if x := &m.table[i]; x.verdict != Alive {
			x.verdict = Suspect
			if m.confirmed(i, now) {
				x.verdict = Down
			}
		}
	}
	return fresh
}

// confirmed reports whether a suspected member is suspected by somebody else who is heard.
func (m *Membership) confirmed(i int, now time.Duration) bool {
	others := 0
	for j := range m.table {
		if j == i || j == m.self || m.table[j].verdict != Alive {
			continue
		}
		others++
		at, said := m.table[i].doubts[j]
		if said && now-at <= doubtLives*m.interval {
			return true
		}
	}
	return others == 0 || m.alone
}

// Heard takes in that a member has sent something.
func (m *Membership) Heard(now time.Duration, id NodeID) {
	if i := m.index(id); i >= 0 {
		m.table[i].detector.heard(now)
		m.table[i].verdict = Alive
	}
}

// Lived takes in that a member has been in a life, whether or not anything was heard of it in that.
func (m *Membership) Lived(id NodeID, incarnation uint32) {
	if i := m.index(id); i >= 0 && i != m.self && incarnation > m.table[i].incarnation {
		m.table[i].incarnation, m.table[i].heartbeat = incarnation, 0
	}
}

// Gossip is the table as it travels: 19 bytes a member at most, so that fifty fit a datagram.
//
//	flags u8 (1: answer with yours) |
//	n × (number u32 | incarnation u32 | heartbeat uvarint | suspect u8)
func (m *Membership) Gossip(dst []byte, wantReply bool) []byte {
	flag := byte(0)
	if wantReply {
		flag = 1
	}
	dst = append(dst, flag)
	for i := range m.table {
		x := &m.table[i]
		r := gossipRow{x.id.Number(), x.incarnation, x.heartbeat, x.verdict != Alive}
		if i == m.self && m.quiet {
			if m.empty {
				continue
			}
			r = gossipRow{number: r.number}
		}
		dst = r.appendTo(dst)
	}
	return dst
}

// gossipRow is a member as another one sees it.
type gossipRow struct {
	number, incarnation uint32
	heartbeat           uint64
	suspect             bool
}

func (r gossipRow) appendTo(dst []byte) []byte {
	suspect := byte(0)
	if r.suspect {
		suspect = 1
	}
	dst = binary.LittleEndian.AppendUint32(dst, r.number)
	dst = binary.LittleEndian.AppendUint32(dst, r.incarnation)
	dst = binary.AppendUvarint(dst, r.heartbeat)
	return append(dst, suspect)
}

func decodeGossip(b []byte) (rows []gossipRow, wantReply bool, err error) {
	d := decoder{rest: b}
	flag := d.byte()
	if flag > 1 {
		d.fail("unknown flags")
	}
	for len(d.rest) > 0 {
		r := gossipRow{number: d.fixed32(), incarnation: d.fixed32(), heartbeat: d.uvarint()}
		suspect := d.byte()
		if suspect > 1 {
			d.fail("unknown verdict")
		}
		r.suspect = suspect == 1
		rows = append(rows, r)
	}
	if d.reason != "" {
		return nil, false, &PeerMessageError{peerGossip, d.reason}
	}
	return rows, flag == 1, nil
}

// Receive takes in the table of another member: the greater incarnation and heartbeat of each row
// is kept. It returns the incarnation that the other knows this node by, 0 for none.
func (m *Membership) Receive(now time.Duration, from NodeID, rows []gossipRow) (own uint32) {
	sender := m.index(from)
	if sender < 0 {
		return 0
	}
	for _, r := range rows {
		i := slices.IndexFunc(m.table, func(x member) bool { return x.id.Number() == r.number })
		if i < 0 {
			continue
		}
		if i == m.self {
			own = r.incarnation
			continue
		}
		x := &m.table[i]
		if cmp.Or(cmp.Compare(r.incarnation, x.incarnation),
			cmp.Compare(r.heartbeat, x.heartbeat)) > 0 {
			x.incarnation, x.heartbeat = r.incarnation, r.heartbeat
			x.detector.beat(now, m.interval)
			x.verdict = Alive
		}
		if r.suspect {
			x.doubts[sender] = now
		} else {
			delete(x.doubts, sender)
		}
	}
	m.judge(now)
	return own
}
