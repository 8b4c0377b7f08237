package procs

import (
	"context"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// follow runs Follow until the end of the test, with as many processors.
func follow(t *testing.T, n int) {
	if given, set := os.LookupEnv("GOMAXPROCS"); set {
		os.Unsetenv("GOMAXPROCS")
		t.Cleanup(func() { os.Setenv("GOMAXPROCS", given) })
	}
	before := runtime.GOMAXPROCS(n)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { Follow(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if got := runtime.GOMAXPROCS(before); got != n {
			t.Errorf("%d processors are left, %d were given", got, n)
		}
		All()
	})
}

// compute keeps a processor busy for the share of the time, until stop is closed.
func compute(share time.Duration, stop chan struct{}) {
	const turn = 2 * time.Millisecond
	for {
		select {
		case <-stop:
			return
		default:
		}
		for end := time.Now().Add(turn * share / 100); time.Now().Before(end); {
		}
		time.Sleep(turn * (100 - share) / 100)
	}
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
	follow(t, 4)
	stop := make(chan struct{})
	defer close(stop)
	go compute(30, stop)
	few := func() bool { return Now() == 1 && runtime.GOMAXPROCS(0) == 1 }
	await(t, "a light load keeps all processors", few)
	if All() != 4 {
		t.Errorf("%d of one processor are all", All())
	}
	for range 2 {
		Begin()
		if Now() != 4 || runtime.GOMAXPROCS(0) != 4 {
			t.Errorf("work begins with %d processors", Now())
		}
	}
	End()
	time.Sleep(2 * patience)
	if Now() != 4 {
		t.Errorf("work goes on with %d processors", Now())
	}
	End()
	await(t, "a light load keeps what work has left", few)
	go compute(100, stop)
	await(t, "more load gets no more processors", func() bool { return Now() == 4 })
}

// TestNoWorkBeginsWithFew: whatever is taken away at the same time.
func TestNoWorkBeginsWithFew(t *testing.T) {
	follow(t, 4)
	await(t, "it does not follow", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return following
	})
	end := time.Now().Add(200 * time.Millisecond)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for time.Now().Before(end) {
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
	times := 0
	for time.Now().Before(end) {
		set(1)
		if Now() == 1 {
			times++
		}
		runtime.Gosched()
	}
	wg.Wait()
	if times == 0 {
		t.Error("there never were few")
	}
}

// TestFollowLeavesAlone what is said in the environment, and a machine with one processor.
func TestFollowLeavesAlone(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2")
	Follow(context.Background())
	os.Unsetenv("GOMAXPROCS")
	before := runtime.GOMAXPROCS(1)
	defer func() { runtime.GOMAXPROCS(before); All() }()
	Follow(context.Background())
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
