package replication

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

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
