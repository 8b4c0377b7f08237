//go:build !race

// With the race detector reads are too slow for the times of this test.

package sstable

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A cache that stays full of what is not asked for any more is no cache. With more readers than
// processors some are always preempted in the middle of a read.
func TestCacheFollowsManyReaders(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const readers, blocks = 16, 4000
	es := cachedEntries(blocks)
	for i := range es {
		es[i].value = bytes.Repeat(es[i].value[:1], 8000)
	}
	c := NewCache(16 << 20)
	c.patient = true // a yield is long on a busy machine too
	rd := open(t, build(t, WriterOptions{}, es), c)
	var asked atomic.Int32
	asked.Store(blocks) // twice what fits
	var wg sync.WaitGroup
	for g := range readers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			var dst []byte
			for n := asked.Load(); n > 0; n = asked.Load() {
				user := es[r.Int32N(n)].key.User
				cell := c.Readers().Enter()
				dst, _, _, _, _ = rd.Get(dst[:0], user, Hash(user), SeqMax)
				cell.Exit()
			}
		})
	}
	moment := func() { // of the processor: others may use it
		for until := processorTime(t) + 300*time.Millisecond; processorTime(t) < until; {
			time.Sleep(time.Millisecond)
		}
	}
	moment()
	asked.Store(blocks / 4) // half of what fits
	moment()
	moment()
	before := c.Metrics()
	moment()
	m := c.Metrics()
	asked.Store(0)
	wg.Wait()
	hits, misses := m.Hits-before.Hits, m.Misses-before.Misses
	if before.Evictions == 0 || misses > (hits+misses)/4 { // half of it, without yields
		t.Errorf("%d misses and %d hits of what fits, after %d evictions", misses, hits,
			before.Evictions)
	}
}

// processorTime is what this process has used so far.
func processorTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
