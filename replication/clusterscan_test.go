package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// scanned is a cluster of three with 5000 keys, key0000 and so on, and more pairs.
func scanned(t *testing.T, more ...Pair) (context.Context, *localCluster, *ClusterClient) {
	l := newLocalCluster(t, 3)
	c := l.client()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	for i := range 5000 {
		more = append(more, Pair{fmt.Appendf(nil, "key%04d", i), []byte("v")})
	}
	if err := c.PutAll(ctx, more, WriteOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	return ctx, l, c
}

// TestClusterScanReadsNoMoreThanItNeeds counts what a scan asks for until it is given what it
// wants, or until its caller takes time: a scan once read 16 partitions at a time for a few pairs,
// and each of them as a whole before it gave any.
func TestClusterScanReadsNoMoreThanItNeeds(t *testing.T) {
	large := bytes.Repeat([]byte{'v'}, pageBytes/4)
	var pairs []Pair
	for i := range 40 { // ten pages or more, in one partition
		pairs = append(pairs, Pair{fmt.Appendf(nil, "{large}%02d", i), large})
	}
	ctx, l, c := scanned(t, pairs...)
	stop := errors.New("stop")
	for _, r := range []struct {
		name                string
		lower, upper        string
		limit, stopAt, want int // pairs
		most                int64
	}{
		{"one pair", "key", "l", 1, 0, 1, 3},                   // the first partition may have none
		{"all of one tag", "{large}", "{large~", 0, 0, 40, 14}, // pages of three pairs
		{"a part of it", "{large}", "{large~", 6, 0, 6, 3},
		{"a caller who takes time", "{large}", "{large~", 0, 1, 1, 3},
		{"in other partitions", "key", "l", 0, 1000, 1000, Partitions/3 + scanParallel},
	} {
		before, seen := l.pages.Load(), 0
		err := c.Scan(ctx, []byte(r.lower), []byte(r.upper), r.limit, ReadOptions{},
			func(_ []byte, _ [][]byte) error {
				if seen++; seen == r.stopAt {
					time.Sleep(100 * time.Millisecond) // what is read ahead is read by then
					return stop
				}
				return nil
			})
		if r.stopAt == 0 && err != nil || r.stopAt > 0 && err != stop || seen != r.want {
			t.Errorf("%s: %d pairs, want %d, %v", r.name, seen, r.want, err)
		}
		if n := l.pages.Load() - before; n > r.most {
			t.Errorf("%s: %d pages, want %d at most", r.name, n, r.most)
		}
	}
	none := func(_ []byte, _ [][]byte) error { return nil }
	if err := c.Scan(ctx, nil, nil, -1, ReadOptions{}, none); err == nil {
		t.Error("a negative limit is taken")
	}
}

// TestScanThatFoundEnoughBlamesNobody: what it was reading ahead ended with it, and every node that
// it had asked was asked last until a probe.
func TestScanThatFoundEnoughBlamesNobody(t *testing.T) {
	ctx, l, c := scanned(t)
	c.mu.Lock()
	clear(c.bad) // of a node that took long
	c.mu.Unlock()
	l.stuck.Store(true)
	stop := errors.New("stop")
	err := c.Scan(ctx, nil, nil, 0, ReadOptions{}, func(key []byte, _ [][]byte) error {
		if PartitionOf(key) == 1 { // partition 2 is being read
			return stop
		}
		return nil
	})
	if err != stop {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bad) > 0 {
		t.Errorf("blamed: %v", c.bad)
	}
}

// TestScansShareWhatIsReadAhead: each once read 16 partitions at a time, also of 64 scans, and then
// calls timed out.
func TestScansShareWhatIsReadAhead(t *testing.T) {
	ctx, l, c := scanned(t)
	const scans = 64
	var wg sync.WaitGroup
	for range scans {
		wg.Go(func() {
			seen := 0
			err := c.Scan(ctx, nil, nil, 0, ReadOptions{}, func(_ []byte, _ [][]byte) error {
				seen++
				return nil
			})
			if err != nil || seen != 5000 {
				t.Errorf("%d keys, %v", seen, err)
			}
		})
	}
	wg.Wait()
	// The first to begin and the last to end read ahead.
	if n := l.mostInFlight.Load(); n > 2*scans {
		t.Errorf("%d pages were asked for at a time by %d scans", n, scans)
	}
	if n := c.scans.Load(); n != 0 {
		t.Errorf("%d scans are left", n)
	}
}

func TestArena(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var a arena
	var want, got [][]byte
	for i := range 200 {
		b := bytes.Repeat([]byte{byte(i)}, r.IntN(2000))
		if i == 100 {
			b = bytes.Repeat([]byte{'l'}, 3*lastChunkBytes)
		}
		want, got = append(want, b), append(got, a.copy(b))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) || cap(got[i]) != len(got[i]) {
			t.Errorf("copy %d is not what it was of, or can grow into the next", i)
		}
	}
}
