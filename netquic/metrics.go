package netquic

import (
	"errors"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// Metrics of a Server. Counts run from Listen on.
type Metrics struct {
	Connections int64 // open now, handshakes included
	Handshakes  int64 // under way now
	InFlight    int64 // calls in Handler.Call or waiting for it, for Settle, or started now

	Accepted         uint64 // connections whose handshake completed
	Refused          uint64 // over MaxConnections
	HandshakesFailed uint64 // by whatever cause, WrongProtocol included
	WrongProtocol    uint64 // clients that offered another ALPN or none

	// CertsRefused counts certificates of clients and peers by what was wrong with them. Those of
	// peers that this end has dialled are among them.
	CertsRefused map[string]uint64

	Calls      uint64 // requests answered by the Handler
	Inline     uint64 // of these, by TryCall or TryDefer
	Overloaded uint64 // requests refused over MaxInFlight or MaxInFlightBytes
	Drained    uint64 // requests refused during Shutdown
	Expired    uint64 // requests whose deadline had passed before they were started

	BytesIn, BytesOut uint64 // frame bytes

	// Closed counts ended connections: by the Reason when this end closed it for one, else
	// "by client", "idle" or "transport error".
	Closed map[string]uint64
}

// Ends of connections that are no Reason of ours.
const (
	closedByClient = reasonCount + iota
	closedIdle
	closedTransport
	closedCount
)

var closedNames = [closedCount - reasonCount]string{"by client", "idle", "transport error"}

type counters struct {
	connections, handshakes, inFlight                  atomic.Int64
	accepted, refused, handshakesFailed, wrongProtocol atomic.Uint64
	calls, inline, overloaded, drained, expired        atomic.Uint64
	bytesIn, bytesOut                                  atomic.Uint64
	certs                                              [certFaultCount]atomic.Uint64
	closed                                             closeCounts
}

// closeCounts counts ended connections by their cause.
type closeCounts [closedCount]atomic.Uint64

func (c *closeCounts) count(err error) {
	kind := uint64(closedTransport)
	var app *quic.ApplicationError
	var idle *quic.IdleTimeoutError
	switch {
	case errors.As(err, &app) && app.Remote:
		kind = closedByClient
	case errors.As(err, &app) && app.ErrorCode < reasonCount:
		kind = uint64(app.ErrorCode)
	case errors.As(err, &idle):
		kind = closedIdle
	}
	c[kind].Add(1)
}

func (c *closeCounts) byName() map[string]uint64 {
	m := make(map[string]uint64, closedCount)
	for i := range c {
		name := Reason(i).String()
		if i >= reasonCount {
			name = closedNames[i-reasonCount]
		}
		m[name] = c[i].Load()
	}
	return m
}

// Metrics returns the counts of now.
func (s *Server) Metrics() Metrics {
	c := &s.counters
	m := Metrics{
		Connections:      c.connections.Load(),
		Handshakes:       c.handshakes.Load(),
		InFlight:         c.inFlight.Load(),
		Accepted:         c.accepted.Load(),
		Refused:          c.refused.Load(),
		HandshakesFailed: c.handshakesFailed.Load(),
		WrongProtocol:    c.wrongProtocol.Load(),
		Calls:            c.calls.Load(),
		Inline:           c.inline.Load(),
		Overloaded:       c.overloaded.Load(),
		Drained:          c.drained.Load(),
		Expired:          c.expired.Load(),
		BytesIn:          c.bytesIn.Load(),
		BytesOut:         c.bytesOut.Load(),
		CertsRefused:     make(map[string]uint64, certFaultCount),
		Closed:           c.closed.byName(),
	}
	for i := range c.certs {
		m.CertsRefused[CertFault(i).String()] = c.certs[i].Load()
	}
	return m
}

// ClientMetrics of a Client. Counts run from NewClient on.
type ClientMetrics struct {
	Dials        uint64 // connections attempted
	DialFailures uint64
	Retries      uint64 // calls sent again because the first sending certainly had no effect
	Late         uint64 // answers to calls that had already ended
}

type clientCounters struct {
	dials, dialFailures, retries, late atomic.Uint64
}

// Metrics returns the counts of now.
func (c *Client) Metrics() ClientMetrics {
	return ClientMetrics{
		Dials:        c.counters.dials.Load(),
		DialFailures: c.counters.dialFailures.Load(),
		Retries:      c.counters.retries.Load(),
		Late:         c.counters.late.Load(),
	}
}
