package main

import (
	"context"
	"runtime/debug"
	"time"

	"kvd/lsm"
)

// workingBytes is what a node may use besides the block cache and what open tables pin: requests
// under way, buffers of connections, iterators, the garbage of all of that.
const workingBytes = 64 << 20

// memoryLimit is the soft limit of the Go heap for a node.
//
// GOGC stays at 100: the collector would let the heap grow to twice what lives, and what lives is
// mostly the cache, so a full cache of 1 GiB would cost 2. The limit makes it collect earlier as
// the heap nears what was promised. GOGC=off with the limit alone would let a small database fill
// the whole budget with garbage before the first collection. Memtables are mapped outside the heap
// and do not count.
func memoryLimit(m lsm.Metrics) int64 {
	return m.Cache.BudgetBytes + m.Cache.PinnedBytes + workingBytes
}

// keepMemory adjusts the limit to what open tables pin, which grows with the data. Nothing tells
// of that, and nothing hangs on the moment: it looks from time to time.
func keepMemory(ctx context.Context, db *lsm.DB) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		debug.SetMemoryLimit(memoryLimit(db.Metrics()))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
