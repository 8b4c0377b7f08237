package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kvd/replication"
)

// TestClusterChaos lives through kills, stopped processes, partitions, loss and a lost disk, with a
// minority of the nodes in trouble at a time, while eight clients write and read at QUORUM. Nothing
// acknowledged is lost, and a minute after the end all replicas are equal, byte for byte.
func TestClusterChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { testChaos(t, n) })
	}
}

func testChaos(t *testing.T, n int) {
	c := newChaosCluster(t, drawSeed(t), n)
	stats := newChaosStats()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	var all []*chaosKey
	for i := range chaosShared {
		all = append(all, newChaosKey(fmt.Sprintf("shared/key%d", i), true, i%4 == 0))
	}
	for i := range chaosWriters {
		w := &chaosWriter{t: t, number: i, r: rand.New(rand.NewPCG(uint64(i), c.r.Uint64())),
			client: c.client(i % n), stats: stats, keys: slices.Clone(all[:chaosShared])}
		defer w.client.Close()
		for j := range chaosKeys {
			k := newChaosKey(fmt.Sprintf("writer%d/key%d", i, j), false, j%4 == 0)
			w.keys = append(w.keys, k)
			all = append(all, k)
		}
		wg.Go(func() { w.run(ctx) })
	}
	var names []string
	for _, k := range all {
		names = append(names, k.name)
	}
	events := c.disturb(max(8*time.Second, *budget/2), names, stats)
	time.Sleep(500 * time.Millisecond)
	stop()
	wg.Wait()
	took := c.settled(names, time.Minute)
	c.checkKeys(all)
	objects := c.compareDisks()
	t.Logf("%d nodes: %s\nconverged in %v; %d objects equal on disk", n, stats,
		took.Round(time.Millisecond), objects)
	for what, times := range events {
		count(t, "cluster "+what, times)
	}
	count(t, "cluster writes acknowledged", stats.acked.Load())
	count(t, "cluster requests", stats.requests())
}

// checkKeys reads every key from all of its owners.
func (c *chaosCluster) checkKeys(keys []*chaosKey) {
	client := c.client(0)
	defer client.Close()
	for _, k := range keys {
		v, err := client.Get(context.Background(), []byte(k.name),
			replication.ReadOptions{Level: replication.All})
		if err == nil {
			err = k.check(v.All)
		}
		if err != nil {
			c.t.Error(err)
		}
	}
}

// troubles are what befalls a node. Each begins it and returns what ends it.
var troubles = []struct {
	name  string
	begin func(c *chaosCluster, i int) (end func())
}{
	{"kills", func(c *chaosCluster, i int) func() {
		c.kill(i)
		return func() { c.start(i) }
	}},
	{"stopped processes", func(c *chaosCluster, i int) func() {
		c.pause(i, true)
		return func() { c.pause(i, false) }
	}},
	{"partitions", func(c *chaosCluster, i int) func() {
		c.isolate(i, true)
		return func() { c.isolate(i, false) }
	}},
	{"one-way cuts", func(c *chaosCluster, i int) func() {
		to := (i + 1 + c.r.IntN(len(c.nodes)-1)) % len(c.nodes)
		c.cut(i, to, true)
		return func() { c.cut(i, to, false) }
	}},
}

// disturb makes trouble for at most a minority of the nodes at a time, and ends all of it.
func (c *chaosCluster) disturb(length time.Duration, names []string,
	stats *chaosStats) map[string]int64 {
	events := map[string]int64{}
	began := time.Now()
	wiped := false
	for time.Since(began) < length {
		time.Sleep(time.Duration(200+c.r.IntN(800)) * time.Millisecond)
		if !wiped && time.Since(began) > length/3 {
			wiped = true
			events["lost disks"]++
			c.loseDisk(c.r.IntN(len(c.nodes)), names, stats)
			continue
		}
		if c.r.IntN(4) == 0 {
			events["lossy times"]++
			c.lossy(1+c.r.IntN(10), c.r.IntN(5), time.Duration(1+c.r.IntN(20))*time.Millisecond)
		}
		same := c.r.IntN(3) > 0
		kind := c.r.IntN(len(troubles))
		victims := c.r.Perm(len(c.nodes))[:1+c.r.IntN((len(c.nodes)-1)/2)]
		var what []string
		var ends []func()
		for _, i := range victims {
			if !same {
				kind = c.r.IntN(len(troubles))
			}
			events[troubles[kind].name]++
			ends = append(ends, troubles[kind].begin(c, i))
			what = append(what, troubles[kind].name)
		}
		stats.befall(len(victims), strings.Join(what, " and "))
		time.Sleep(c.troubleTime())
		for _, end := range ends {
			end()
		}
		c.lossy(0, 0, 0)
		stats.befall(0, "the end of "+strings.Join(what, " and "))
	}
	return events
}

// troubleTime is how long a trouble lasts: in the long form also long enough for a node to be taken
// for down, which takes ten seconds and more.
func (c *chaosCluster) troubleTime() time.Duration {
	most := 3000
	if *budget > 0 {
		most = 15000
	}
	return time.Duration(500+c.r.IntN(most)) * time.Millisecond
}

// loseDisk kills a node and gives it back without its data. What only this node held must be
// elsewhere too before: a disk is lost when all are up and hold the same.
func (c *chaosCluster) loseDisk(i int, names []string, stats *chaosStats) {
	c.settled(names, time.Minute)
	c.wipe(i)
	stats.befall(1, "lost disk")
	time.Sleep(c.troubleTime())
	c.start(i)
	c.settled(names, time.Minute)
	stats.befall(0, "the end of lost disk")
}
