package lsm

import (
	"sync"
	"sync/atomic"

	"kvd/sstable"
)

// publisher makes commits visible in the order of their sequence numbers, whatever order their
// memtable inserts finish in: a reader sees a prefix of all commits, and each commit whole.
//
// Each commit owns the step from the sequence number before it to its last. Whoever finds its
// step next takes it alone; one that finishes early leaves its step to the one before it and
// waits, because a writer must be able to read its own write.
type publisher struct {
	visible atomic.Uint64 // everything up to here can be read

	waiting atomic.Int32 // commits inside mu; lets the one before them know that it must look
	mu      sync.Mutex
	moved   sync.Cond         // visible has moved
	parked  map[uint64]uint64 // first -> last of finished steps that are not yet next
}

func (p *publisher) init(visible sstable.Seq) {
	p.visible.Store(uint64(visible))
	p.moved.L = &p.mu
	p.parked = make(map[uint64]uint64)
}

func (p *publisher) seq() sstable.Seq { return sstable.Seq(p.visible.Load()) }

// publishSpins is how often a commit looks for its turn before it parks: the one before it is most
// often running on another core and needs less than the 1-5 us that parking costs.
const publishSpins = 64

// publish makes [first, last] visible and returns when it is.
func (p *publisher) publish(first, last sstable.Seq) {
	for range publishSpins {
		if p.visible.Load() == uint64(first)-1 {
			p.visible.Store(uint64(last))
			if p.waiting.Load() != 0 {
				p.mu.Lock()
				p.advanceLocked()
				p.mu.Unlock()
			}
			return
		}
	}
	p.mu.Lock()
	p.waiting.Add(1)
	p.parked[uint64(first)] = uint64(last)
	p.advanceLocked()
	for p.visible.Load() < uint64(last) {
		p.moved.Wait()
	}
	p.waiting.Add(-1)
	p.mu.Unlock()
}

// advanceLocked takes the steps of parked commits that are next by now and wakes all who wait.
func (p *publisher) advanceLocked() {
	for {
		next := p.visible.Load() + 1
		last, ok := p.parked[next]
		if !ok {
			break
		}
		delete(p.parked, next)
		p.visible.Store(last)
	}
	p.moved.Broadcast()
}

// wait returns when everything up to seq is visible.
func (p *publisher) wait(seq sstable.Seq) {
	if p.visible.Load() >= uint64(seq) {
		return
	}
	p.mu.Lock()
	p.waiting.Add(1)
	for p.visible.Load() < uint64(seq) {
		p.moved.Wait()
	}
	p.waiting.Add(-1)
	p.mu.Unlock()
}
