package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvd/replication"
)

// chaosWriter writes and reads keys of its own and keys that it shares with others, and notes how
// that went.
type chaosWriter struct {
	t      *testing.T
	number int
	r      *rand.Rand
	client *replication.ClusterClient
	keys   []*chaosKey
	stats  *chaosStats
}

const (
	chaosWriters = 8
	chaosKeys    = 20              // of each writer
	chaosShared  = 16              // of all
	chaosPatient = 5 * time.Second // with a request
	inTime       = time.Second     // a request that succeeds within this does
	failureSeen  = time.Second     // when clients have noticed a failure
)

func (w *chaosWriter) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		k := w.keys[w.r.IntN(len(w.keys))]
		if w.r.IntN(3) == 0 {
			_, _, _ = w.read(k) // what it finds is checked there, how it went is counted
		} else {
			w.write(k, n)
		}
		time.Sleep(time.Duration(w.r.IntN(10)) * time.Millisecond)
	}
}

// read returns what a key has, with the context that covers it.
func (w *chaosWriter) read(k *chaosKey) (saw []*chaosWrite, covers []byte, err error) {
	var v replication.Values
	err = w.stats.timed("read", func(ctx context.Context) (err error) {
		v, err = w.client.Get(ctx, []byte(k.name), replication.ReadOptions{})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if saw, err = k.known(v.All); err != nil {
		w.t.Error(err)
	}
	return saw, v.Context, err
}

// write writes a key: over what it reads there if others write it too, over its own last write if
// not, or just so if the key is of that kind.
func (w *chaosWriter) write(k *chaosKey, n int) {
	x := &chaosWrite{value: fmt.Sprintf("w%d-%d", w.number, n), deletes: w.r.IntN(8) == 0}
	var o replication.WriteOptions
	switch {
	case k.blind && w.r.IntN(2) == 0:
		x.blind = true
	case k.shared:
		var err error
		if x.saw, o.Context, err = w.read(k); err != nil {
			return
		}
	case k.last != nil:
		x.saw, o.Context = []*chaosWrite{k.last}, k.lastContext
		x.blind = k.blind // the context is of all that the key had: more than its writer knows of
	}
	k.begin(x)
	var done replication.Written
	err := w.stats.timed("write", func(ctx context.Context) (err error) {
		if x.deletes {
			done, err = w.client.Delete(ctx, []byte(k.name), o)
		} else {
			done, err = w.client.Put(ctx, []byte(k.name), []byte(x.value), o)
		}
		return err
	})
	switch {
	case err == nil:
		k.end(x, chaosAcked, done.Context)
		w.stats.acked.Add(1)
	case errors.Is(err, replication.ErrInDoubt):
		w.stats.inDoubt.Add(1)
		k.end(x, chaosInDoubt, nil)
	default:
		w.stats.refused.Add(1)
		k.end(x, chaosRefused, nil)
	}
}

// chaosStats is how requests went.
type chaosStats struct {
	acked, inDoubt, refused atomic.Int64

	mu       sync.Mutex
	down     int // nodes in trouble
	trouble  string
	since    time.Time
	calm     chaosShare
	minority map[int]*chaosShare // while so many are in trouble
	settled  chaosShare          // of those, begun later than failureSeen
	slow     map[string]int      // what was late
}

func newChaosStats() *chaosStats {
	return &chaosStats{minority: map[int]*chaosShare{}, slow: map[string]int{}, trouble: "start",
		since: time.Now()}
}

// chaosShare counts requests.
type chaosShare struct{ all, late int64 }

func (t *chaosShare) add(late bool) {
	t.all++
	if late {
		t.late++
	}
}

func (t *chaosShare) String() string {
	return fmt.Sprintf("%.3f %% of %d", 100*float64(t.all-t.late)/float64(max(t.all, 1)), t.all)
}

// befall notes what is wrong from now on.
func (s *chaosStats) befall(down int, trouble string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.trouble, s.since = down, trouble, time.Now()
}

func (s *chaosStats) timed(kind string, request func(ctx context.Context) error) error {
	s.mu.Lock()
	down, trouble, since := s.down, s.trouble, time.Since(s.since)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), chaosPatient)
	defer cancel()
	began := time.Now()
	err := request(ctx)
	late := err != nil || time.Since(began) > inTime
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case down == 0:
		s.calm.add(late)
	default:
		if s.minority[down] == nil {
			s.minority[down] = new(chaosShare)
		}
		s.minority[down].add(late)
		if since > failureSeen {
			s.settled.add(late)
		}
	}
	if late {
		s.slow[fmt.Sprintf("%s %v after %s: %.60v", kind, since.Truncate(time.Second), trouble,
			err)]++
	}
	return err
}

func (s *chaosStats) requests() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.calm.all
	for _, m := range s.minority {
		all += m.all
	}
	return all
}

// String tells what share of the requests succeeded in time, and what the others were.
func (s *chaosStats) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "within %v succeeded %v requests while all nodes were up", inTime, &s.calm)
	for _, down := range slices.Sorted(maps.Keys(s.minority)) {
		fmt.Fprintf(&b, ", %v with %d in trouble", s.minority[down], down)
	}
	fmt.Fprintf(&b, ", and %v of these that began more than %v after the trouble; %d writes "+
		"acknowledged, %d in doubt, %d refused", &s.settled, failureSeen, s.acked.Load(),
		s.inDoubt.Load(), s.refused.Load())
	for _, what := range slices.Sorted(maps.Keys(s.slow)) {
		fmt.Fprintf(&b, "\n\t%d late: %s", s.slow[what], what)
	}
	return b.String()
}
