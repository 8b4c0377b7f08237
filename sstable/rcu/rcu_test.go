package rcu

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestReadersNeverMeetWhatWasFreed replaces a value over and over and breaks the old one after the
// grace period: no reader may meet a broken one.
func TestReadersNeverMeetWhatWasFreed(t *testing.T) {
	var d Domain
	type value struct{ broken bool } // not atomic: the race detector has a word too
	var current atomic.Pointer[value]
	current.Store(new(value))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				cell := d.Enter()
				v := current.Load()
				for range rand.IntN(3) {
					runtime.Gosched()
				}
				if v.broken {
					t.Error("read after the grace period")
				}
				cell.Exit()
			}
		})
	}
	var updates sync.WaitGroup
	for range 2 {
		updates.Go(func() {
			for range 150 {
				old := current.Swap(new(value))
				d.Synchronize()
				old.broken = true
			}
		})
	}
	updates.Wait()
	stop.Store(true)
	wg.Wait()
	for phase := range d.inside {
		for i := range d.inside[phase].cells {
			if n := d.inside[phase].cells[i].n.Load(); n != 0 {
				t.Errorf("%d readers left in a cell", n)
			}
		}
	}
}

// TestMarkPassesWhenTheReaderHasLeft: not before, and without anybody waiting.
func TestMarkPassesWhenTheReaderHasLeft(t *testing.T) {
	var d Domain
	for range 7 { // from every phase
		cell := d.Enter()
		mark := d.Mark()
		for range 5 {
			if d.Passed(mark) {
				t.Fatal("passed with a reader inside")
			}
			d.Enter().Exit()
		}
		cell.Exit()
		late := d.Enter() // came after the mark: of no account beyond one phase
		if d.Passed(mark) {
			late.Exit()
			continue
		}
		late.Exit()
		if !d.Passed(mark) {
			t.Fatal("not passed without readers")
		}
	}
}

func BenchmarkEnterExit(b *testing.B) {
	var d Domain
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d.Enter().Exit()
		}
	})
}

// TestCounterSumsWhatManyAdd: also when others take away what one has added.
func TestCounterSumsWhatManyAdd(t *testing.T) {
	var c Counter
	var wg sync.WaitGroup
	handed := make(chan int64, 64)
	for i := range 8 {
		wg.Go(func() {
			for n := range int64(1000) {
				c.Add(n)
				handed <- n
				c.Add(-<-handed)
				c.Add(int64(i))
			}
		})
	}
	wg.Wait()
	if sum := c.Sum(); sum != 28_000 {
		t.Errorf("sum %d", sum)
	}
}
