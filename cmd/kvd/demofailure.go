package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kvd/lsm"
	"kvd/replication"
)

// writtenPair is a pair of the writers, with what is known of it.
type writtenPair struct {
	key, value   string
	acknowledged bool
}

// demoLoad is what the clients of a phase saw.
type demoLoad struct {
	puts, gets []time.Duration
	failed     atomic.Int64
	mu         sync.Mutex
	written    []writtenPair
	standIns   int
}

// writeThroughFailure has clients write and read while two nodes are killed.
func (d *demo) writeThroughFailure(ctx context.Context) error {
	before, err := d.runLoad(ctx, d.options.writing/3, func() {})
	if err != nil {
		return err
	}
	d.say("Eight clients write and read at QUORUM: %s.", before)
	victims := []*demoNode{d.nodes[1], d.nodes[3]}
	during, err := d.runLoad(ctx, 2*d.options.writing/3, func() {
		for _, n := range victims {
			n.child.kill()
			n.child = nil
		}
	})
	if err != nil {
		return err
	}
	d.say("Killed n2 and n4 with SIGKILL in the middle. Reading and writing went on: %s; %s "+
		"writes are kept by a node that stands in. %d writes were under way at the kill and are "+
		"in doubt.",
		during, grouped(int64(during.standIns)), during.failed.Load())
	return d.figure("failure", map[string]any{"puts": len(during.puts), "gets": len(during.gets),
		"in_doubt": during.failed.Load(), "stand_ins": during.standIns,
		"put_p50_seconds": percentile(during.puts, 50).Seconds(),
		"put_p99_seconds": percentile(during.puts, 99).Seconds(),
		"get_p99_seconds": percentile(during.gets, 99).Seconds()})
}

func (l *demoLoad) String() string {
	return fmt.Sprintf("%s writes, half of them within %s, 99 of 100 within %s, and %s reads, 99 "+
		"of 100 within %s", grouped(int64(len(l.puts))), short(percentile(l.puts, 50)),
		short(percentile(l.puts, 99)), grouped(int64(len(l.gets))), short(percentile(l.gets, 99)))
}

// runLoad runs eight clients for a while and calls strike in the middle of their beginning.
func (d *demo) runLoad(ctx context.Context, length time.Duration, strike func()) (
	*demoLoad, error) {
	const clients = 8
	l := new(demoLoad)
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for c := range clients {
		wg.Go(func() { errs[c] = d.loadLoop(ctx, c, l) })
	}
	select {
	case <-time.After(length / 8):
	case <-ctx.Done():
	}
	strike()
	wg.Wait()
	d.written = append(d.written, l.written...)
	if len(l.puts) == 0 {
		return nil, errors.New("no write was acknowledged")
	}
	return l, errors.Join(errs...)
}

// loadLoop writes a pair and reads a file, over and over.
func (d *demo) loadLoop(ctx context.Context, client int, l *demoLoad) error {
	for i := 0; ctx.Err() == nil; i++ {
		w := writtenPair{key: fmt.Sprintf("kvd-demo/%d/%d/%06d", time.Now().UnixNano(), client, i),
			value: fmt.Sprintf("pair %d of client %d, %s", i, client, strings.Repeat("x", 100))}
		asked := time.Now()
		step, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		done, err := d.client.Put(step, []byte(w.key), []byte(w.value), replication.WriteOptions{})
		cancel()
		took := time.Since(asked)
		name := d.files[(client*7919+i*31)%len(d.files)]
		asked = time.Now()
		step, cancel = context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		v, readErr := d.client.Get(step, []byte(name), replication.ReadOptions{})
		cancel()
		readTook := time.Since(asked)
		if readErr != nil || len(v.All) != 1 {
			return fmt.Errorf("%s cannot be read: %w", name, readErr)
		}
		l.mu.Lock()
		l.gets = append(l.gets, readTook)
		w.acknowledged = err == nil
		l.written = append(l.written, w)
		if err == nil {
			l.puts = append(l.puts, took)
			part := replication.PartitionOf([]byte(w.key))
			if slices.ContainsFunc(done.Nodes, func(id replication.NodeID) bool {
				return !d.place.Owns(id, part)
			}) {
				l.standIns++
			}
		} else {
			l.failed.Add(1)
		}
		l.mu.Unlock()
	}
	return nil
}

// bringBack starts the killed nodes again, one of them without what it had on its disk.
func (d *demo) bringBack(ctx context.Context) error {
	start := time.Now()
	survivor, empty := d.nodes[1], d.nodes[3]
	if err := os.RemoveAll(empty.data); err != nil {
		return err
	}
	owed := d.owed(ctx)
	for _, n := range []*demoNode{survivor, empty} {
		if err := d.startNode(n); err != nil {
			return err
		}
	}
	d.say("Started both again, n4 without its disk. The others keep hints for %s keys that they "+
		"missed.", grouped(int64(owed)))
	due := map[*demoNode]int{survivor: d.keysOf(survivor), empty: d.keysOf(empty)}
	show := d.p.startCounting("repair", int64(due[survivor]+due[empty]))
	shown, hinted := 0, time.Duration(0)
	for {
		has := 0
		for n, want := range due {
			if r, err := d.ring(ctx, n); err == nil {
				has += min(r.Objects, want)
			}
		}
		show.addKeys(int64(max(has-shown, 0)))
		shown = max(shown, has)
		if owed := d.owed(ctx); owed == 0 && hinted == 0 {
			hinted = time.Since(start)
		}
		if has == due[survivor]+due[empty] && hinted > 0 {
			break
		}
		if time.Since(start) > 2*time.Minute {
			show.stop()
			return fmt.Errorf("n2 and n4 hold %d of %d keys after two minutes", has,
				due[survivor]+due[empty])
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			show.stop()
			return ctx.Err()
		}
	}
	show.stop()
	took := time.Since(start)
	d.say("All hints were handed over after %s; by comparing Merkle trees n4 got all of its %s "+
		"keys back after %s.", short(hinted), grouped(int64(due[empty])), short(took))
	return d.figure("repair", map[string]any{"hints": owed, "hints_seconds": hinted.Seconds(),
		"keys_of_empty_node": due[empty], "seconds": took.Seconds()})
}

// owed is the number of keys that the running nodes keep hints for.
func (d *demo) owed(ctx context.Context) (n int) {
	for _, x := range d.nodes {
		if x.child == nil {
			continue
		}
		r, err := d.ring(ctx, x)
		if err != nil {
			return -1
		}
		for _, m := range r.Members {
			n += m.Hints
		}
	}
	return n
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

// prove stops the nodes and compares what they have on disk: all replicas byte for byte with each
// other, and every acknowledged write with what was written.
func (d *demo) prove(ctx context.Context) error {
	// What was in doubt at the kill comes to all replicas, or to none.
	asked := time.Now()
	if err := d.await(ctx, func(r replication.Ring) bool {
		for _, m := range r.Members {
			if m.ID != r.Self && (m.EqualSeconds == nil ||
				*m.EqualSeconds > time.Since(asked).Seconds()) {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	if err := d.stopNodes(); err != nil {
		return err
	}
	start := time.Now()
	held := make([]map[string]uint64, len(d.nodes)) // key of the engine -> hash of the object
	values := map[string][]byte{}                   // of the pairs of the writers
	total := 0
	for i, n := range d.nodes {
		var err error
		if held[i], err = d.read(n, values); err != nil {
			return fmt.Errorf("%s: %w", n.id, err)
		}
		total += len(held[i])
	}
	for i, n := range d.nodes {
		for key, hash := range held[i] {
			part, user, _ := replication.ObjectKey([]byte(key))
			for j, other := range d.nodes {
				owns := d.place.Owns(replication.NodeID(other.id), part)
				if there, has := held[j][key]; has != owns || owns && there != hash {
					return fmt.Errorf("%s and %s do not hold the same for %s", n.id, other.id,
						printable(user))
				}
			}
		}
	}
	acknowledged := 0
	for _, w := range d.written {
		if w.acknowledged && !bytes.Equal(values[w.key], []byte(w.value)) {
			return fmt.Errorf("%s was acknowledged and is lost", w.key)
		}
		if w.acknowledged {
			acknowledged++
		}
	}
	d.say("Stopped all five and compared their disks in %s: %s objects, each the same, byte for "+
		"byte, on its three nodes and on no other. All %s acknowledged writes are there.",
		short(time.Since(start)), grouped(int64(total)), grouped(int64(acknowledged)))
	return d.figure("proof", map[string]any{"objects": total, "acknowledged": acknowledged,
		"lost": 0, "different": 0})
}

// read returns hashes of all objects on the disk of a node.
func (d *demo) read(n *demoNode, values map[string][]byte) (map[string]uint64, error) {
	db, err := lsm.Open(n.data, lsm.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	held := map[string]uint64{}
	lower, upper := replication.ObjectKeys()
	it := db.NewIter(lsm.IterOptions{Lower: lower, Upper: upper})
	for key, data := range it.All() {
		o, err := replication.DecodeObject(data)
		if err != nil {
			return nil, errors.Join(err, it.Close(), db.Close())
		}
		held[string(key)] = o.Digest()
		_, user, _ := replication.ObjectKey(key)
		if live := o.Values(); strings.HasPrefix(string(user), "kvd-demo/") && len(live) == 1 {
			values[string(user)] = bytes.Clone(live[0].Value)
		}
	}
	return held, errors.Join(it.Close(), db.Close())
}
