package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"kvd/replication"
)

// writtenPair is a pair of the writers, with what is known of it.
type writtenPair struct {
	key, value   string
	acknowledged bool
}

// demoLoad is what the clients of a phase saw. Times of puts are of those that were acknowledged.
type demoLoad struct {
	mu         sync.Mutex
	puts, gets []time.Duration
	inDoubt    int // writes that were begun and not confirmed
	refused    int // writes that certainly were not begun
	standIns   int
	longest    time.Duration // that a client waited, however it ended
	written    []writtenPair
}

// writeThroughFailure has clients write and read while two nodes are killed.
func (d *demo) writeThroughFailure(ctx context.Context) error {
	// What is on two nodes already is acknowledged, and comes to the third soon. Only then do two
	// nodes that die leave one of everything that is read.
	if err := d.awaitEqual(ctx); err != nil {
		return err
	}
	victims := []*demoNode{d.nodes[1], d.nodes[3]}
	before, during, err := d.runLoad(ctx, func() {
		for _, n := range victims {
			n.kill()
		}
	})
	if err != nil {
		return err
	}
	d.say("Eight clients write and read at QUORUM: %s.", before)
	d.say("Killed n2 and n4 with SIGKILL in the middle. Reading and writing went on: %s; %s "+
		"writes are kept by a node that stands in. %s were under way at the kill and are in "+
		"doubt, %s were refused. No client waited longer than %s.", during,
		grouped(int64(during.standIns)), writes(during.inDoubt), writes(during.refused),
		short(during.longest))
	if err := d.figure("load", before.facts()); err != nil {
		return err
	}
	return d.figure("failure", during.facts())
}

func writes(n int) string {
	switch n {
	case 0:
		return "no writes"
	case 1:
		return "1 write"
	}
	return grouped(int64(n)) + " writes"
}

func (l *demoLoad) share() float64 {
	return float64(len(l.puts)) / float64(max(len(l.written), 1))
}

func (l *demoLoad) String() string {
	return fmt.Sprintf("%s writes of %s (%.1f%%) were acknowledged, half of them within %s, 99 of "+
		"100 within %s; all %s reads gave the bytes of the file, half of them within %s, 99 of "+
		"100 within %s", grouped(int64(len(l.puts))), grouped(int64(len(l.written))),
		100*l.share(), short(percentile(l.puts, 50)), short(percentile(l.puts, 99)),
		grouped(int64(len(l.gets))), short(percentile(l.gets, 50)), short(percentile(l.gets, 99)))
}

func (l *demoLoad) facts() map[string]any {
	return map[string]any{"writes": len(l.written), "acknowledged": len(l.puts),
		"acknowledged_share": l.share(), "in_doubt": l.inDoubt, "refused": l.refused,
		"stand_ins": l.standIns, "reads": len(l.gets), "reads_share": 1.0,
		"longest_seconds": l.longest.Seconds(),
		"put_p50_seconds": percentile(l.puts, 50).Seconds(),
		"put_p99_seconds": percentile(l.puts, 99).Seconds(),
		"get_p50_seconds": percentile(l.gets, 50).Seconds(),
		"get_p99_seconds": percentile(l.gets, 99).Seconds()}
}

// runLoad runs eight clients and calls strike when a third of the time is over. What ended before
// that and what ended after it are told apart.
func (d *demo) runLoad(ctx context.Context, strike func()) (before, after *demoLoad, err error) {
	const clients = 8
	root, err := os.OpenRoot(d.source)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	before, after = new(demoLoad), new(demoLoad)
	var current atomic.Pointer[demoLoad]
	current.Store(before)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	for c := range clients {
		group.Go(func() error { return d.loadLoop(ctx, c, root, &current) })
	}
	select {
	case <-time.After(d.options.writing / 3):
	case <-ctx.Done():
	}
	current.Store(after)
	strike()
	after.await(ctx, 2*d.options.writing/3)
	stop()
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	d.written = slices.Concat(before.written, after.written)
	if len(after.puts) == 0 {
		return nil, nil, errors.New("no write was acknowledged while two nodes were down")
	}
	return before, after, nil
}

// await lets the time pass, and on a machine that is busy with other things so much more that a
// write was acknowledged: the first of each client may wait for a node that was killed under it.
func (l *demoLoad) await(ctx context.Context, length time.Duration) {
	const patience = 30 * time.Second
	for began := time.Now(); time.Since(began) < length+patience && ctx.Err() == nil; {
		l.mu.Lock()
		some := len(l.puts) > 0
		l.mu.Unlock()
		if some && time.Since(began) >= length {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// loadLoop writes a pair and reads a file, over and over. A write may fail, which is counted; a
// read that does not give the file is the end.
func (d *demo) loadLoop(ctx context.Context, client int, root *os.Root,
	current *atomic.Pointer[demoLoad]) error {
	for i := 0; ctx.Err() == nil; i++ {
		w := writtenPair{key: fmt.Sprintf("%s%d/%06d", demoKeys, client, i),
			value: fmt.Sprintf("pair %d of client %d, %s", i, client, strings.Repeat("x", 100))}
		asked := time.Now()
		step, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		done, err := d.client.Put(step, []byte(w.key), []byte(w.value), replication.WriteOptions{})
		cancel()
		current.Load().wrote(w, &done, err, time.Since(asked), d.place)

		name := d.files[(client*7919+i*31)%len(d.files)]
		asked = time.Now()
		step, cancel = context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		v, err := d.client.Get(step, []byte(name), replication.ReadOptions{})
		cancel()
		took := time.Since(asked)
		if err != nil {
			return fmt.Errorf("%s cannot be read: %w", name, err)
		}
		want, err := root.ReadFile(name)
		if err != nil {
			return err
		}
		if err := sameAsFile(name, v.All, want); err != nil {
			return err
		}
		current.Load().read(took)
	}
	return nil
}

// demoKeys is what the keys of the writers begin with.
const demoKeys = "kvd-demo/"

func (l *demoLoad) wrote(w writtenPair, done *replication.Written, err error,
	took time.Duration, place *replication.Placement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.acknowledged = err == nil
	l.written = append(l.written, w)
	l.longest = max(l.longest, took)
	if err != nil {
		if _, ok := errors.AsType[*replication.UnavailableError](err); ok ||
			errors.Is(err, replication.ErrOverloaded) {
			l.refused++
		} else {
			l.inDoubt++
		}
		return
	}
	l.puts = append(l.puts, took)
	part := replication.PartitionOf([]byte(w.key))
	if slices.ContainsFunc(done.Nodes, func(id replication.NodeID) bool {
		return !place.Owns(id, part)
	}) {
		l.standIns++
	}
}

func (l *demoLoad) read(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gets = append(l.gets, took)
	l.longest = max(l.longest, took)
}
