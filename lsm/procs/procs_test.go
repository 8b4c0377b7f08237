package procs

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is how many hundredths of a processor the process seems to use.
type load struct {
	atomic.Int64
	end func()
	gap atomic.Int64 // how long after processors were taken away the next look came; 0: not yet
}

// following runs follow with four processors until the end of the test.
func following(t *testing.T) *load {
	if given, set := os.LookupEnv("GOMAXPROCS"); set {
		os.Unsetenv("GOMAXPROCS")
		t.Cleanup(func() { os.Setenv("GOMAXPROCS", given) })
	}
	l, before := new(load), runtime.GOMAXPROCS(4)
	last, used, ones := time.Now(), time.Duration(0), 0
	cpuTime := func() (time.Duration, bool) {
		since := time.Since(last)
		ones++
		if Now() > 1 {
			ones = 0
		} else if ones == 2 { // the first is right after the change
			l.gap.Store(int64(since))
		}
		last = last.Add(since)
		used += since * time.Duration(l.Load()) / 100
		return used, true
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { follow(ctx, cpuTime) })
	l.end = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		n, got := Now(), runtime.GOMAXPROCS(before)
		if n != 4 || got != 4 || few.Load() {
			t.Errorf("%d processors are left, and said to be %d; 4 were given", got, n)
		}
		All()
	})
	t.Cleanup(func() {
		l.end()
		jobs.Store(0) // of a test that failed
	})
	await(t, "it does not follow", func() bool { return all.Load() == 4 })
	return l
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// TestFollow: a light load gets one processor, announced work all of them before it begins.
func TestFollow(t *testing.T) {
	l := following(t)
	l.Store(30)
	one := func() bool { return Now() == 1 && runtime.GOMAXPROCS(0) == 1 }
	await(t, "a light load keeps all processors", one)
	if All() != 4 {
		t.Errorf("%d of one processor are all", All())
	}
	if !Idle() {
		t.Error("three of four processors are not idle")
	}
	for range 2 {
		Begin()
		if Idle() || Now() != 4 || runtime.GOMAXPROCS(0) != 4 {
			t.Errorf("work begins with %d processors", Now())
		}
	}
	End()
	time.Sleep(2 * patience)
	if Now() != 4 {
		t.Errorf("work goes on with %d processors", Now())
	}
	End()
	await(t, "a light load keeps what work has left", one)
	// The pause after that was still the long one, and then the look came too late for one.
	await(t, "with few processors the looks come as seldom as with all", func() bool {
		gap := time.Duration(l.gap.Swap(0))
		if gap >= pauseAll {
			Begin()
			End()
		}
		return gap > 0 && gap < pauseAll
	})
	await(t, "a light load keeps all processors", one)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if Follow(ctx); ctx.Err() != nil {
		t.Error("a second one follows too")
	}
	l.Store(350)
	await(t, "more load gets no more processors", func() bool { return Now() == 4 })
}

// TestNoWorkBeginsWithFew: whatever is taken away or given at the same time.
func TestNoWorkBeginsWithFew(t *testing.T) {
	following(t)
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !done.Load() {
				Begin()
				runtime.Gosched()
				if n := Now(); n != 4 {
					t.Errorf("work goes on with %d processors", n)
				}
				End()
				runtime.Gosched()
			}
		})
	}
	for times := 0; times < 100; {
		set(1)
		if Now() == 1 {
			times++
		}
		runtime.Gosched()
		set(4)
	}
	done.Store(true)
	wg.Wait()
}

// Goroutines that wait for a disk use little of the processors they hold. With one of them, 64
// callers who read from the disk got half of what they get with two, and one was said to be enough.
func TestFollowGivesAllToMuchWaiting(t *testing.T) {
	l := following(t)
	l.Store(40)
	await(t, "a light load keeps all", func() bool { return Now() == 1 })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				for range 10 {
					Waited()
				}
			}
		}
	})
	await(t, "much waiting gets no more than one", func() bool { return Now() == 4 })
	time.Sleep(2 * patience)
	if n := Now(); n != 4 {
		t.Errorf("%d processors while many wait", n)
	}
	close(stop)
	wg.Wait()
	await(t, "all are kept when nobody waits any more", func() bool { return Now() == 1 })

	l.end() // or it takes what is counted here
	waits.Store(0)
	for n, want := range map[int]bool{0: false, 20: false, 21: true} {
		for range n {
			Waited()
		}
		if got := manyWaited(20 * waitEvery); got != want {
			t.Errorf("%d waits in 20 ms: many %v", n, got)
		}
	}
}

// When Follow ended while work waited to begin, there were said to be no processors at all.
func TestWorkBeginsAtTheEnd(t *testing.T) {
	for range 20 {
		l := following(t)
		l.Store(30)
		await(t, "a light load keeps all processors", func() bool {
			set(1)
			return Now() == 1
		})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				Begin()
				End()
			})
		}
		l.end()
		wg.Wait()
		if Now() < 1 {
			t.Fatal("no processors")
		}
	}
}

// TestFollowLeavesAlone what is said in the environment, a machine with one processor, and one that
// does not tell the processor time.
func TestFollowLeavesAlone(t *testing.T) {
	before := runtime.GOMAXPROCS(2)
	defer func() { runtime.GOMAXPROCS(before); All() }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	told := true
	cpuTime := func() (time.Duration, bool) { return 0, told }
	t.Setenv("GOMAXPROCS", "2")
	follow(ctx, cpuTime)
	os.Unsetenv("GOMAXPROCS")
	runtime.GOMAXPROCS(1)
	follow(ctx, cpuTime)
	runtime.GOMAXPROCS(2)
	told = false
	follow(ctx, cpuTime)
	if ctx.Err() != nil {
		t.Error("it follows")
	}
}

// TestPolled: what was spent in waiting is no load.
func TestPolled(t *testing.T) {
	before, ok := cpuTime()
	if !ok {
		t.Skip("not on this system")
	}
	Polled(time.Hour)
	defer Polled(-time.Hour)
	if used, _ := cpuTime(); used > before-time.Hour+time.Minute {
		t.Errorf("used %v, and then %v", before, used)
	}
	if Idle() {
		t.Error("idle processors without Follow")
	}
}

func TestAlone(t *testing.T) {
	Alone()
	if !Alone() {
		t.Error("not alone without others")
	}
	Other()
	Other()
	if Alone() || !Alone() {
		t.Error("others are not noted until the next look")
	}
}
