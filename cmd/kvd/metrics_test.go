package main

import (
	"context"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"kvd/lsm"
	"kvd/lsm/vfs"
	"kvd/netquic"
	"kvd/replication"
)

var update = flag.Bool("update", false, "rewrite testdata/metrics.txt")

// TestMetricNames pins the names, labels and kinds of the metrics: dashboards depend on them.
func TestMetricNames(t *testing.T) {
	db, err := lsm.Open("/db", lsm.Options{FS: vfs.NewMem(), MemtableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	identity, err := netquic.EnsureIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server, err := netquic.Listen("127.0.0.1:0", netquic.Options{Identity: identity})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown(context.Background())
	go server.Serve(t.Context(), replication.NewNode(db, replication.NodeOptions{}))
	registry := prometheus.NewRegistry()
	node := replication.NewNode(db, replication.NodeOptions{})
	registry.MustRegister(newCollector(db, &servedNode{node: node, server: server}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		var labels []string
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains(labels, l.GetName()) {
					labels = append(labels, l.GetName())
				}
			}
		}
		slices.Sort(labels)
		kind := strings.ToLower(f.GetType().String())
		lines = append(lines, f.GetName()+"{"+strings.Join(labels, ",")+"} "+kind+"\n")
		if (kind == "counter") != strings.HasSuffix(f.GetName(), "_total") {
			t.Errorf("%s is a %s: counters, and only they, end in _total", f.GetName(), kind)
		}
	}
	got := strings.Join(lines, "")
	const golden = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the metrics are\n%s\nand %s has\n%s", got, golden, want)
	}
}
