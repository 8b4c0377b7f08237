package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvd/replication"
)

// chaosWriter writes keys of its own, each time with the context of its last acknowledged write,
// and knows what must be left of them.
type chaosWriter struct {
	number int
	r      *rand.Rand
	client *replication.ClusterClient
	keys   []*chaosKey
	stats  *chaosStats
}

// chaosKey is what a writer knows of a key.
type chaosKey struct {
	name    string
	context []byte
	writes  []chaosWrite
}

type chaosWrite struct {
	value string // "" for a delete
	acked bool
}

type chaosStats struct {
	acked, doubtful, reads, readsFailed atomic.Int64
	inTime, late                        atomic.Int64 // by success within a second
	steady, steadyLate                  atomic.Int64 // begun later than failureSeen
	failed                              atomic.Int64 // when something last failed, unix ns
}

// failureSeen is when clients have noticed a failure. What is under way at a node at the moment of
// its death cannot be sent elsewhere: it may have been done.
const failureSeen = time.Second

const (
	chaosWriters = 8
	chaosKeys    = 20 // of each
)

func (w *chaosWriter) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		k := w.keys[w.r.IntN(len(w.keys))]
		if w.r.IntN(3) == 0 {
			w.read(ctx, k)
		} else {
			w.write(ctx, k, n)
		}
		time.Sleep(time.Duration(w.r.IntN(10)) * time.Millisecond)
	}
}

func (w *chaosWriter) timed(ctx context.Context, request func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	began := time.Now()
	err := request(ctx)
	ok := err == nil && time.Since(began) <= time.Second
	steady := began.UnixNano()-w.stats.failed.Load() > int64(failureSeen)
	for _, c := range []struct {
		counts    bool
		good, bad *atomic.Int64
	}{{true, &w.stats.inTime, &w.stats.late}, {steady, &w.stats.steady, &w.stats.steadyLate}} {
		switch {
		case c.counts && ok:
			c.good.Add(1)
		case c.counts:
			c.bad.Add(1)
		}
	}
	return err
}

func (w *chaosWriter) write(ctx context.Context, k *chaosKey, n int) {
	x := chaosWrite{value: fmt.Sprintf("w%d-%d", w.number, n)}
	if w.r.IntN(8) == 0 {
		x.value = ""
	}
	o := replication.WriteOptions{Context: k.context}
	var done replication.Written
	err := w.timed(context.WithoutCancel(ctx), func(ctx context.Context) (err error) {
		if x.value == "" {
			done, err = w.client.Delete(ctx, []byte(k.name), o)
		} else {
			done, err = w.client.Put(ctx, []byte(k.name), []byte(x.value), o)
		}
		return err
	})
	if err == nil {
		x.acked, k.context = true, done.Context
		w.stats.acked.Add(1)
	} else {
		w.stats.doubtful.Add(1)
	}
	k.writes = append(k.writes, x) // also when it failed: it may have happened
}

func (w *chaosWriter) read(ctx context.Context, k *chaosKey) {
	err := w.timed(context.WithoutCancel(ctx), func(ctx context.Context) error {
		_, err := w.client.Get(ctx, []byte(k.name), replication.ReadOptions{})
		return err
	})
	w.stats.reads.Add(1)
	if err != nil {
		w.stats.readsFailed.Add(1)
	}
}

// check compares what a key has in the end with what may be left: the last acknowledged write or
// one after it, beside others that were never acknowledged.
func (k *chaosKey) check(values [][]byte) error {
	last := -1
	place := map[string]int{}
	for i, x := range k.writes {
		if x.acked {
			last = i
		}
		if x.value != "" {
			place[x.value] = i
		}
	}
	kept := last < 0
	for _, v := range values {
		i, known := place[string(v)]
		switch {
		case !known:
			return fmt.Errorf("%s has %q, which nobody wrote", k.name, v)
		case k.writes[i].acked && i < last:
			return fmt.Errorf("%s has %q, which an acknowledged write had replaced", k.name, v)
		}
		kept = kept || i >= last
	}
	for i := max(last, 0); i < len(k.writes) && !kept; i++ {
		kept = k.writes[i].value == "" // a delete leaves nothing behind
	}
	if !kept {
		return fmt.Errorf("%s has lost %q, which was acknowledged: it has %q", k.name,
			k.writes[last].value, values)
	}
	return nil
}

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
	stats := new(chaosStats)
	length := max(8*time.Second, *budget/2)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	var writers []*chaosWriter
	var names []string
	for i := range chaosWriters {
		w := &chaosWriter{number: i, r: rand.New(rand.NewPCG(uint64(i), c.r.Uint64())),
			client: c.client(i % n), stats: stats}
		defer w.client.Close()
		for j := range chaosKeys {
			k := &chaosKey{name: fmt.Sprintf("writer%d/key%d", i, j)}
			w.keys = append(w.keys, k)
			names = append(names, k.name)
		}
		writers = append(writers, w)
		wg.Go(func() { w.run(ctx) })
	}
	events := c.disturb(length, names, &stats.failed)
	c.heal()
	time.Sleep(500 * time.Millisecond)
	stop()
	wg.Wait()
	took := c.settled(names, time.Minute)
	client := c.client(0)
	defer client.Close()
	for _, w := range writers {
		for _, k := range w.keys {
			v, err := client.Get(context.Background(), []byte(k.name),
				replication.ReadOptions{Level: replication.All})
			if err == nil {
				err = k.check(v.All)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
	objects := c.compareDisks()
	all := stats.inTime.Load() + stats.late.Load()
	steady := stats.steady.Load() + stats.steadyLate.Load()
	t.Logf("%d nodes: %.3f %% of %d requests succeeded within a second, %.3f %% of the %d begun more "+
		"than %v after a failure; %d writes acknowledged, %d in doubt or refused; converged in %v; "+
		"%d objects equal on disk", n, 100*float64(stats.inTime.Load())/float64(all), all,
		100*float64(stats.steady.Load())/float64(max(steady, 1)), steady, failureSeen,
		stats.acked.Load(), stats.doubtful.Load(), took.Round(time.Millisecond), objects)
	for what, times := range events {
		count(t, "cluster "+what, times)
	}
	count(t, "cluster writes acknowledged", stats.acked.Load())
	count(t, "cluster requests", all)
}

// disturb makes trouble for at most a minority of the nodes at a time.
func (c *chaosCluster) disturb(length time.Duration, names []string,
	failed *atomic.Int64) map[string]int64 {
	events := map[string]int64{}
	began := time.Now()
	wiped := false
	for time.Since(began) < length {
		time.Sleep(time.Duration(200+c.r.IntN(800)) * time.Millisecond)
		victims := c.r.Perm(len(c.nodes))[:1+c.r.IntN((len(c.nodes)-1)/2)]
		pause := time.Duration(300+c.r.IntN(3000)) * time.Millisecond
		if c.r.IntN(5) == 0 && *budget > 0 {
			pause += 10 * time.Second // long enough to be taken for down
		}
		failed.Store(time.Now().UnixNano())
		switch kind := c.r.IntN(6); {
		case kind <= 1:
			events["kills"] += int64(len(victims))
			for _, i := range victims {
				c.kill(i)
			}
			time.Sleep(pause)
			for _, i := range victims {
				c.start(i)
			}
		case kind == 2:
			events["stopped processes"] += int64(len(victims))
			for _, i := range victims {
				c.pause(i, true)
			}
			time.Sleep(pause)
			for _, i := range victims {
				c.pause(i, false)
			}
		case kind == 3:
			events["partitions"] += int64(len(victims))
			for _, i := range victims {
				c.isolate(i, true)
			}
			time.Sleep(pause)
			for _, i := range victims {
				c.isolate(i, false)
			}
		case kind == 4:
			events["one-way cuts"]++
			from, to := victims[0], (victims[0]+1)%len(c.nodes)
			c.cut(from, to, true)
			time.Sleep(pause)
			c.cut(from, to, false)
		case !wiped && time.Since(began) > length/3:
			// What only this node held must be elsewhere too before.
			wiped = true
			events["lost disks"]++
			c.settled(names, time.Minute)
			c.wipe(victims[0])
			time.Sleep(pause)
			c.start(victims[0])
			c.settled(names, time.Minute)
		default:
			events["lossy times"]++
			c.lossy(1+c.r.IntN(10), time.Duration(1+c.r.IntN(20))*time.Millisecond)
			time.Sleep(pause)
			c.lossy(0, 0)
		}
	}
	return events
}
