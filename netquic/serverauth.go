package netquic

import (
	"crypto/tls"
	"errors"
	"slices"
)

// tlsConfig picks by protocol what a server asks of the other end: nothing of clients, unless
// RequireClientCert; of peers the certificate of a node that is among them. Everything is decided
// in the handshake, before a frame is read.
func (s *Server) tlsConfig() *tls.Config {
	clients := s.o.Identity.baseConfig(Protocol)
	if s.o.RequireClientCert {
		clients.ClientAuth = tls.RequestClientCert // a missing one is refused below, and counted
		clients.VerifyConnection = s.counted(func(cs tls.ConnectionState) error {
			_, _, err := s.o.Cluster.authority.verify(cs)
			return err
		})
	}
	peers := s.o.Identity.baseConfig(PeerProtocol)
	peers.ClientAuth = tls.RequestClientCert
	peers.VerifyConnection = s.counted(func(cs tls.ConnectionState) error {
		p := s.peers.Load()
		err := s.o.Cluster.authority.verifyNodeOf(cs, p.names, CertUnknownName)
		if err != nil {
			p.refuseCaller(cs, err)
		}
		return err
	})
	conf := clients.Clone()
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case slices.Contains(hello.SupportedProtos, PeerProtocol) && s.peers.Load() != nil:
			return peers, nil
		case !slices.Contains(hello.SupportedProtos, Protocol):
			s.counters.wrongProtocol.Add(1)
		case s.counters.connections.Load() > int64(s.o.MaxConnections):
			s.counters.refused.Add(1)
			return nil, errors.New("netquic: too many connections") // the rest is for peers
		}
		return clients, nil // which has no protocol in common with a wrong one
	}
	return conf
}

// maxConnections is how many connections there may be, handshakes included. Connected clients
// cannot keep peers out. Handshakes under way can, until they time out: whose they are is not known
// before they are complete.
func (s *Server) maxConnections() int64 {
	n := s.o.MaxConnections
	if p := s.peers.Load(); p != nil {
		n += connectionsPerPeer * len(p.names)
	}
	return int64(n)
}

// counted counts the faults that verify finds.
func (s *Server) counted(verify func(tls.ConnectionState) error) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		err := verify(cs)
		if fault, ok := errors.AsType[*CertError](err); ok {
			s.counters.certs[fault.Fault].Add(1)
		}
		return err
	}
}
