package netquic

import (
	"sync/atomic"
	"time"
)

// PeerMetrics of Peers. Counts run from StartPeers on.
type PeerMetrics struct {
	Connected int // peers that a message can be sent to now
	Incoming  int // peers that can send one to this node now

	Dials        uint64 // connections attempted
	DialFailures uint64

	Sent    map[string]uint64 // messages taken by Send, by class
	Dropped map[string]uint64 // messages not taken by Send, by class
	Lost    uint64            // messages taken that a connection's end found in the queue

	Received                  uint64 // messages
	BytesIn, BytesOut         uint64 // of frames
	DatagramsIn, DatagramsOut uint64 // messages of gossip that were datagrams

	// Closed counts ended connections that peers had opened, as Metrics.Closed does those of
	// clients.
	Closed map[string]uint64
}

type peerCounters struct {
	dials, dialFailures       atomic.Uint64
	sent, dropped             [classCount]atomic.Uint64
	lost, received            atomic.Uint64
	bytesIn, bytesOut         atomic.Uint64
	datagramsIn, datagramsOut atomic.Uint64
	closed                    closeCounts
}

// Metrics returns the counts of now.
func (p *Peers) Metrics() PeerMetrics {
	c := &p.counters
	m := PeerMetrics{
		Dials:        c.dials.Load(),
		DialFailures: c.dialFailures.Load(),
		Sent:         make(map[string]uint64, classCount),
		Dropped:      make(map[string]uint64, classCount),
		Lost:         c.lost.Load(),
		Received:     c.received.Load(),
		BytesIn:      c.bytesIn.Load(),
		BytesOut:     c.bytesOut.Load(),
		DatagramsIn:  c.datagramsIn.Load(),
		DatagramsOut: c.datagramsOut.Load(),
		Closed:       c.closed.byName(),
	}
	for i := range classCount {
		m.Sent[Class(i).String()] = c.sent[i].Load()
		m.Dropped[Class(i).String()] = c.dropped[i].Load()
	}
	for _, pr := range p.peers {
		if pr.current.Load() != nil {
			m.Connected++
		}
	}
	p.mu.Lock()
	m.Incoming = len(p.incoming)
	p.mu.Unlock()
	return m
}

// PeerStatus is the way to one peer.
type PeerStatus struct {
	Name, Addr  string
	Connected   bool
	Since       time.Time     // of the last change, or attempt
	Err         error         // why there is no connection; nil before the first attempt has ended
	RTT         time.Duration // as QUIC has it
	QueuedBytes int           // in both classes
}

// Status returns the state of all peers, in the order of their names.
func (p *Peers) Status() []PeerStatus {
	all := make([]PeerStatus, 0, len(p.names))
	for _, name := range p.names {
		pr := p.peers[name]
		pr.mu.Lock()
		st := PeerStatus{Name: name, Addr: pr.addr, Since: pr.since, Err: pr.err}
		pr.mu.Unlock()
		if l := pr.current.Load(); l != nil {
			st.Connected = true
			st.RTT = l.qc.ConnectionStats().SmoothedRTT
			for _, w := range l.lanes {
				st.QueuedBytes += w.queued()
			}
		}
		all = append(all, st)
	}
	return all
}
