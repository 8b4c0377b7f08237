package main

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/lsm/vfs"
	"kvd/netquic"
	"kvd/replication"
)

// silent is a node that takes messages and answers none.
type silent struct{}

func (silent) HandlePeer(string, [][]byte)     {}
func (silent) PeerUp(string)                   {}
func (silent) PeerDown(string, error)          {}
func (silent) PeerRefused(string, bool, error) {}

// TestDrainTimeoutEndsWrites: a write that waits for another node does not keep a node from
// stopping until the client's deadline.
func TestDrainTimeoutEndsWrites(t *testing.T) {
	tls := t.TempDir()
	if _, err := netquic.CreateAuthority(tls); err != nil {
		t.Fatal(err)
	}
	id, err := netquic.LoadCluster(tls, "n1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := netquic.Listen("127.0.0.1:0", netquic.Options{Cluster: id})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Shutdown(t.Context())
	db, err := lsm.Open("/db", lsm.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := serveSettings{id: "n0", tls: tls, listen: "127.0.0.1:0", drain: 50 * time.Millisecond,
		cluster: fmt.Sprintf("n0=127.0.0.1:1,n1=%s", other.Addr())}
	log := slog.New(slog.DiscardHandler)
	n, err := s.listenOn(db, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.StartPeers(netquic.PeerOptions{Peers: map[string]string{
		"n0": n.server.Addr().String()}}, silent{}); err != nil {
		t.Fatal(err)
	}
	go other.Serve(t.Context(), n.node)
	life, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	served := make(chan error, 1)
	go func() { served <- n.serve(life) }()
	c, err := netquic.NewClient(n.server.Addr().String(), netquic.Options{Pin: n.pin})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	write := replication.Op{Kind: replication.KindWrite, Key: []byte("k"), Value: []byte("v"),
		Level: replication.All}
	go func() {
		var err error
		for err == nil { // it is refused until the nodes have met
			_, err = c.CallBy(t.Context(), time.Now().Add(time.Hour), write.AppendTo(nil), nil)
		}
	}()
	for n.peers.Metrics().Connected == 0 || n.server.Metrics().InFlight == 0 {
		time.Sleep(time.Millisecond)
	}
	drained := make(chan error, 1)
	go func() { drained <- drain(s, newHealth(), n, served, giveUp, log) }()
	hung := time.AfterFunc(20*time.Second, func() {
		t.Error("the node does not stop")
		giveUp()
	})
	if err := <-drained; err != nil {
		t.Error(err)
	}
	hung.Stop()
}
