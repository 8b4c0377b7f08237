package netquic

import (
	"crypto/tls"
	"testing"
)

// A node that was not among the peers of another one dialled it for ever, and neither said a word.
func TestRefusalIsToldOnce(t *testing.T) {
	dir := authority(t)
	id := func(name string) Options { return Options{Cluster: clusterIdentity(t, dir, name)} }
	knows := func(name, addr string) PeerOptions {
		return PeerOptions{Peers: map[string]string{name: addr}}
	}
	old := startNode(t, "127.0.0.1:0", id("n0"), knows("n1", "127.0.0.1:1"), &inbox{})
	addr := old.s.Addr().String()
	extra := startNode(t, "127.0.0.1:0", id("n4"), knows("n0", addr), &inbox{})

	atNew := "n0 refuses: netquic: connect to peer n0 at " + addr +
		": netquic: this end's certificate was refused by the other end"
	const atOld = "n4: netquic: certificate refused: unknown name (n4)"
	told := func(old *node, atExtra string) {
		t.Helper()
		eventually(t, func() any { return old.s.Metrics() }, func() bool {
			return old.s.Metrics().CertsRefused["unknown name"] >= 3
		})
		eventually(t, func() any { return extra.in.refusals() }, func() bool {
			return extra.in.refusals() == atExtra
		})
		if got := old.in.refusals(); got != atOld {
			t.Errorf("the one that refuses is told %q", got)
		}
	}
	told(old, atNew)

	old.stop()
	old = startNode(t, addr, id("n0"), knows("n4", extra.s.Addr().String()), &inbox{})
	waitPeers(t, extra, func(m PeerMetrics) bool { return m.Connected == 1 })
	if got := old.in.refusals() + extra.in.refusals(); got != atNew {
		t.Errorf("once they are connected: %q", got)
	}
	old.stop()
	old = startNode(t, addr, id("n0"), knows("n1", "127.0.0.1:1"), &inbox{})
	told(old, atNew+", "+atNew)
}

// Of a stranger whose certificate the authority has not signed no name is told, or it could have as
// many told as it likes.
func TestRefusalOfAStrangerHasNoName(t *testing.T) {
	n, dir, _ := lonely(t, Options{})
	knock := func(cert tls.Certificate) {
		if qc, err := briefPeer(t, n.s, PeerProtocol, cert); err == nil {
			<-qc.Context().Done()
		}
	}
	elsewhere := authority(t)
	for _, name := range []string{"n1", "n2", "n3"} {
		knock(member(t, elsewhere, name, RoleNode, neverEnds))
	}
	knock(member(t, dir, "someone", RoleClient, neverEnds))
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	if r := n.in.refused; len(r) != 2 || r[0][0] != ':' || r[1][0] != ':' {
		t.Errorf("told: %q", r)
	}
}
