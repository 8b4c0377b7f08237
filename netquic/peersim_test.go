package netquic

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
)

// TestPeersArePartitioned cuts the network between two nodes in virtual time: both notice within
// the idle timeout and a third, Send reports it from then on, and after healing they find each other again.
func TestPeersArePartitioned(t *testing.T) {
	dir := authority(t)
	ids := []*ClusterIdentity{clusterIdentity(t, dir, "n0"), clusterIdentity(t, dir, "n1")}
	synctest.Test(t, func(t *testing.T) {
		router := &simRouter{}
		network := &simnet.Simnet{Router: router}
		link := simnet.NodeBiDiLinkSettings{Latency: simRTT / 2}
		addrs := []*net.UDPAddr{{IP: net.IPv4(10, 0, 0, 1), Port: 7400},
			{IP: net.IPv4(10, 0, 0, 2), Port: 7400}}
		var options [2]Options
		for i, addr := range addrs {
			options[i] = Options{Cluster: ids[i], socket: network.NewEndpoint(addr, link)}
		}
		if err := network.Start(); err != nil {
			t.Fatal(err)
		}
		var nodes [2]*node
		for i := range nodes {
			peers := map[string]string{ids[1-i].name: addrs[1-i].String()}
			nodes[i] = startNode(t, "", options[i], PeerOptions{Peers: peers}, &inbox{})
		}
		up := func() bool {
			a, b := nodes[0].peers.Metrics(), nodes[1].peers.Metrics()
			return a.Connected == 1 && b.Connected == 1 && a.Incoming == 1 && b.Incoming == 1
		}
		time.Sleep(time.Second)
		if !up() {
			t.Fatalf("%+v, %+v", nodes[0].peers.Status(), nodes[1].peers.Status())
		}
		time.Sleep(time.Hour) // without a message
		if m := nodes[0].peers.Metrics(); !up() || m.Dials != 1 {
			t.Errorf("%+v", m)
		}
		sent := time.Now()
		var arrived atomic.Int64
		nodes[1].in.handle(func(string, []byte) { arrived.Store(int64(time.Since(sent))) })
		nodes[0].peers.Send("n1", Request, []byte("x"))
		time.Sleep(time.Second)
		if took := time.Duration(arrived.Load()); took < simRTT/2 || took > simRTT/2+2*time.Millisecond {
			t.Errorf("a message took %v", took)
		}
		for range 3 {
			router.cut.Store(true)
			time.Sleep(5*time.Second*4/3 + 2*simRTT)
			for i, n := range nodes {
				if m := n.peers.Metrics(); m.Connected != 0 || m.Incoming != 0 {
					t.Errorf("n%d has not noticed: %+v", i, m)
				}
				if n.peers.Send(ids[1-i].name, Request, []byte("x")) {
					t.Error("sent into a cut network")
				}
			}
			time.Sleep(time.Minute)
			router.cut.Store(false)
			time.Sleep(6 * time.Second) // a pause, and what an attempt under way takes
			if !up() {
				t.Fatalf("%+v, %+v", nodes[0].peers.Status(), nodes[1].peers.Status())
			}
		}
		for _, n := range nodes {
			n.stop()
			if h := n.in.history(); len(h) < 40 {
				t.Error(h)
			}
		}
		network.Close()
	})
}
