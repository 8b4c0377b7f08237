package replication

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

// timeless is a logger that leaves the time out.
func timeless(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
}

// What is wrong with a node that is refused, or with this one, is for an operator to read.
func TestRefusalsAreLogged(t *testing.T) {
	db, err := lsm.Open("data", lsm.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var log bytes.Buffer
	place := simPlacement(3, 3, 0)
	c, err := NewCluster(db, ClusterOptions{Self: place.Members[0].ID, Placement: place,
		Authority: 1, Logger: timeless(&log)})
	if err != nil {
		t.Fatal(err)
	}
	reason := errors.New("because")
	for _, x := range []struct {
		name   string
		byPeer bool
		want   string
	}{
		{"n4", false, "a node is refused: it is not in this node's --cluster list"},
		{"n2", false, "a certificate is refused"},
		{"", false, "a certificate is refused"},
		{"n2", true, "a node refuses this one: it is not in that node's --cluster list"},
	} {
		log.Reset()
		c.PeerRefused(x.name, x.byPeer, reason)
		got := log.String()
		if !strings.HasPrefix(got, "level=WARN msg=\""+x.want) || !strings.Contains(got, "because") {
			t.Errorf("%s, %v: %s", x.name, x.byPeer, got)
		}
	}
}

// A node whose --buckets differ is heard of once, whatever it sends.
func TestOtherClusterIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := lsm.Open("data", lsm.Options{FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var log bytes.Buffer
		c, err := NewCluster(db, ClusterOptions{Self: "n1", Placement: simPlacement(3, 3, 0),
			Send:   func(NodeID, Class, []byte) bool { return false },
			Logger: timeless(&log)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- c.Run(ctx) }()
		m := peerMessage{kind: peerWant, cluster: c.id + 1, epoch: 1}
		for range 3 {
			c.HandlePeer("n2", [][]byte{m.appendTo(nil)})
			time.Sleep(5 * time.Second)
		}
		stop()
		<-ran
		if n := strings.Count(log.String(), "--buckets differ"); n != 1 {
			t.Errorf("logged %d times: %s", n, log.String())
		}
	})
}
