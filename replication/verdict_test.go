package replication

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

// The log never said that a node was suspect, down or back.
func TestVerdictsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		place := simPlacement(3, 3, 0)
		var ids []NodeID
		for _, m := range place.Members {
			ids = append(ids, m.ID)
		}
		db, err := lsm.Open("data", lsm.Options{FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		c, err := NewCluster(db, ClusterOptions{Self: ids[0], Placement: place, Authority: 1,
			Logger: timeless(&log), Send: func(NodeID, Class, []byte) bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- c.Run(ctx) }()

		// What the other two say is made up here.
		began, rng := time.Now(), rand.New(rand.NewPCG(1, 2))
		say := func(m *Membership) {
			m.Tick(time.Since(began))
			b := peerMessage{kind: peerGossip, cluster: c.id, epoch: place.Epoch, body: m.Gossip(nil, false)}
			c.HandlePeer(string(m.table[m.self].id), [][]byte{b.appendTo(nil)})
		}
		second := newMembership(ids[1], ids, 1, time.Second, rng)
		third := newMembership(ids[2], ids, 1, time.Second, rng)
		live := func(seconds int, thirdTalks, secondHearsIt bool) {
			for range seconds {
				time.Sleep(time.Second)
				second.Heard(time.Since(began), ids[0])
				if secondHearsIt {
					second.Heard(time.Since(began), ids[2])
				}
				say(second)
				if thirdTalks {
					say(third)
				}
			}
		}
		live(20, true, true)
		live(20, false, true)
		live(20, false, false)
		live(20, true, true)
		stop()
		<-ran
		const want = `level=WARN msg="a node is suspect" node=n3 before=alive
level=WARN msg="a node is down" node=n3 before=suspect
level=INFO msg="a node is alive" node=n3 before=down
`
		if got := log.String(); got != want {
			t.Errorf("logged:\n%s\nwant:\n%s", got, want)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}
