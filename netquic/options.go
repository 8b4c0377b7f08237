package netquic

import (
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

// The ALPN names of the protocols between a client and a server and between two servers. Wire
// constants: a changed format gets another name.
const (
	Protocol     = "kvd-client/1"
	PeerProtocol = "kvd-peer/1"
)

// Options of a Server or a Client. A zero field takes its default.
type Options struct {
	// MaxFrameBytes bounds a frame, head included, in both directions. Default 9 MiB: a value of
	// 8 MiB, a key of 64 KiB, and slack.
	MaxFrameBytes int
	// IdleTimeout closes a connection from which nothing has arrived for so long. Default 30 s at
	// the server, 15 s at a client, which keeps its connections alive in a third of it.
	IdleTimeout time.Duration

	// Identity is the server's key and certificate. A server needs one, or Cluster.
	Identity *Identity
	// Cluster makes the server a node of a cluster, known to its peers and its clients by the
	// node's certificate.
	Cluster *ClusterIdentity
	// RequireClientCert lets a server with Cluster take calls only from clients, and nodes, with a
	// certificate of the cluster.
	RequireClientCert bool
	// MaxConnections bounds the connections of a server, handshakes included. Default 1000.
	MaxConnections int
	// MaxInFlight bounds the calls of one connection that run in Handler.Call, wait for it or for
	// Settle, or were started; one more is answered with ErrOverloaded. Default 4096.
	MaxInFlight int
	// MaxInFlightBytes bounds the bytes of these calls: their requests, and their answers that wait
	// to be taken by the client. When answers are expected to take more than a quarter of it, calls
	// wait with being started. Default 64 MiB.
	MaxInFlightBytes int64
	// FrameTimeout is how long a frame may take from its first byte to its last, and a batch of
	// answers to be taken by the client; large ones get as much again for every 64 KiB read and
	// 256 KiB written. Default 10 s.
	FrameTimeout time.Duration

	// Pin is the server's public key, as Identity.Pin gives it. It goes before Authority, and that
	// before KnownServers.
	Pin Pin
	// Authority of a cluster, to any of whose nodes the client then connects. Default that of
	// ClientCert, when no other way to know the server is given.
	Authority *Authority
	// ClientCert is shown to servers that require one.
	ClientCert *ClientIdentity
	// KnownServers names a file of "address pin" lines. An unknown server on a loopback address is
	// added at first contact; any other one is refused until its line is there.
	KnownServers string
	// Connections of a client, used in turn. Default 1.
	Connections int
	// Lanes per connection, used in turn. Default 1, at most 8.
	Lanes int
	// CallTimeout is the deadline of a call whose context has none. Default 10 s.
	CallTimeout time.Duration

	socket net.PacketConn // instead of opening one: simulated networks in tests
}

const (
	connectionIDBytes = 8
	maxLanes          = 8 // per connection, for its whole life
	handshakeTimeout  = 5 * time.Second

	streamWindowBytes        = 1 << 20
	maxStreamWindowBytes     = 6 << 20
	connectionWindowBytes    = 2 << 20
	maxConnectionWindowBytes = 12 << 20
)

func orDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

func (o Options) withDefaults(idle time.Duration) Options {
	orDefault(&o.MaxFrameBytes, 9<<20)
	orDefault(&o.IdleTimeout, idle)
	orDefault(&o.MaxConnections, 1000)
	orDefault(&o.MaxInFlight, 4096)
	orDefault(&o.MaxInFlightBytes, 64<<20)
	orDefault(&o.FrameTimeout, 10*time.Second)
	orDefault(&o.Connections, 1)
	orDefault(&o.Lanes, 1)
	o.Lanes = min(o.Lanes, maxLanes)
	orDefault(&o.CallTimeout, 10*time.Second)
	return o
}

// quicConfig is what both ends share.
func (o *Options) quicConfig() *quic.Config {
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 o.IdleTimeout,
		InitialStreamReceiveWindow:     streamWindowBytes,
		MaxStreamReceiveWindow:         maxStreamWindowBytes,
		InitialConnectionReceiveWindow: connectionWindowBytes,
		MaxConnectionReceiveWindow:     maxConnectionWindowBytes,
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          -1,
	}
}

// listenSocket opens the UDP socket of a server, or takes the one given.
func (o *Options) listenSocket(addr string) (net.PacketConn, error) {
	if o.socket != nil {
		return o.socket, nil
	}
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", udp)
	if err != nil {
		return nil, err
	}
	return polling(socket), nil
}
