package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"kvd/replication"
)

// bringBack starts the killed nodes again, one of them without what it had on its disk, and waits
// until they have what they missed.
func (d *demo) bringBack(ctx context.Context) error {
	survivor, empty := d.nodes[1], d.nodes[3]
	if err := os.RemoveAll(empty.data); err != nil {
		return err
	}
	owed, err := d.owed(ctx)
	if err != nil {
		return err
	}
	before, err := d.sentByTrees(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	for _, n := range []*demoNode{survivor, empty} {
		if err := d.startNode(n); err != nil {
			return err
		}
	}
	d.say("Started both again, n4 without its disk. The others keep hints for %s keys that they "+
		"missed.", grouped(int64(owed)))
	if err := d.follow(ctx, "hints", owed, func() (int, error) {
		left, err := d.owed(ctx)
		return owed - left, err
	}); err != nil {
		return err
	}
	hinted := time.Since(start)
	due := map[*demoNode]int{survivor: d.keysOf(survivor), empty: d.keysOf(empty)}
	if err := d.follow(ctx, "repair", due[survivor]+due[empty], func() (has int, err error) {
		for n, want := range due {
			r, err := d.ring(ctx, n)
			if err != nil {
				return 0, err
			}
			has += min(r.Objects, want)
		}
		return has, nil
	}); err != nil {
		return err
	}
	took := time.Since(start)
	after, err := d.sentByTrees(ctx)
	if err != nil {
		return err
	}
	d.say("All hints were handed over after %s. Comparing Merkle trees, nodes found %s objects "+
		"(%s) that another lacked, and sent them; n4 had all of its %s keys again after %s.",
		short(hinted), grouped(after.objects-before.objects), megabytes(after.bytes-before.bytes),
		grouped(int64(due[empty])), short(took))
	return d.figure("repair", map[string]any{"hints": owed, "hints_seconds": hinted.Seconds(),
		"sent_by_trees":       after.objects - before.objects,
		"sent_by_trees_bytes": after.bytes - before.bytes,
		"keys_of_empty_node":  due[empty], "seconds": took.Seconds()})
}

// follow shows how a count grows until it is all. It gives up when that stops.
func (d *demo) follow(ctx context.Context, doing string, all int,
	count func() (int, error)) error {
	const patience = time.Minute
	show := d.p.startCounting(doing, int64(all))
	defer show.stop()
	best, grown := 0, time.Now()
	for {
		// Whoever has just been started may not answer at first.
		n, err := count()
		if err == nil && n > best {
			show.addKeys(int64(n - best))
			best, grown = n, time.Now()
		}
		switch {
		case err == nil && n >= all:
			return nil
		case time.Since(grown) > patience && err != nil:
			return err
		case time.Since(grown) > patience:
			return fmt.Errorf("%s: %d of %d keys, and no more within %s", doing, best, all,
				patience)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// owed is the number of keys that the running nodes keep hints for.
func (d *demo) owed(ctx context.Context) (n int, err error) {
	for _, x := range d.nodes {
		if x.child == nil {
			continue
		}
		r, err := d.ring(ctx, x)
		if err != nil {
			return 0, err
		}
		for _, m := range r.Members {
			n += m.Hints
		}
	}
	return n, nil
}

// keysOf counts the keys that certainly exist and that a node is to hold.
func (d *demo) keysOf(n *demoNode) (keys int) {
	count := func(key string) {
		if d.place.Owns(replication.NodeID(n.id), replication.PartitionOf([]byte(key))) {
			keys++
		}
	}
	for _, name := range d.files {
		count(name)
	}
	for _, w := range d.written {
		if w.acknowledged {
			count(w.key)
		}
	}
	return keys
}

// treeTraffic is what nodes sent each other because their trees differed.
type treeTraffic struct{ objects, bytes int64 }

// sentByTrees asks the metrics of the running nodes.
func (d *demo) sentByTrees(ctx context.Context) (sum treeTraffic, err error) {
	for _, n := range d.nodes {
		if n.child == nil {
			continue
		}
		if err := n.metrics(ctx, map[string]*int64{
			"kvd_antientropy_sent_total":       &sum.objects,
			"kvd_antientropy_sent_bytes_total": &sum.bytes,
		}); err != nil {
			return sum, fmt.Errorf("metrics of %s: %w", n.id, err)
		}
	}
	return sum, nil
}

// metrics adds what a node says of its counters to the numbers they are to go to.
func (n *demoNode) metrics(ctx context.Context, wanted map[string]*int64) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+n.child.ready.Admin+"/metrics", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines, found := bufio.NewScanner(resp.Body), 0
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if to := wanted[name]; to != nil {
			x, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return err
			}
			*to += int64(x)
			found++
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if found != len(wanted) {
		return fmt.Errorf("%d of %d counters found", found, len(wanted))
	}
	return nil
}
