package replication

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"sync"
)

// scanParallel is how many partitions the scans of a client read together, each at least one. A
// scan gets to its share of them once it has gone through as many. With 16 for each, 64 callers who
// read all of 400 MB had a thousand pages under way, and waited for one until the call timed out.
const scanParallel = 16

// Scan calls fn with every key of [lower, upper) and all its values, at most limit keys (0 = all),
// until fn returns an error, which Scan returns. Partition by partition: within one the keys are in
// order, and keys with the same {hash tag} are in one partition. When the bounds have such a tag in
// common only its partition is read. Slices are valid during the call.
//
// A key that is written during the scan is seen or not; one that is not is seen exactly once. Of
// each partition two pages are read ahead at most, which have some 192 KiB.
func (c *ClusterClient) Scan(ctx context.Context, lower, upper []byte, limit int, o ReadOptions,
	fn func(key []byte, values [][]byte) error) error {
	if limit < 0 {
		return errNegativeLimit
	}
	parts := scanPartitions(lower, upper)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.scans.Add(1)
	defer c.scans.Add(-1)
	// One at first, then twice as many each time: most scans with a limit find enough in the first.
	// With 16 at once, 64 callers who scan 50 pairs got 55 a second instead of 800.
	ahead, window := make([]chan fetched, 0, scanParallel), 1
	for i, begun, count := 0, 0, 0; i < len(parts); i++ {
		for ; begun < len(parts) && len(ahead) < window; begun++ {
			pages := make(chan fetched, 1)
			ahead = append(ahead, pages)
			s := partitionScan{c, parts[begun], lower, upper, max(limit-count, 0), o}
			wg.Go(func() {
				defer close(pages)
				s.run(ctx, pages)
			})
		}
		for page := range ahead[0] {
			if page.err != nil {
				return cmp.Or(ctx.Err(), fmt.Errorf("partition %d: %w", parts[i], page.err))
			}
			p := clusterPage{d: decoder{rest: page.answer}}
			for p.next() {
				count++
				if err := fn(p.key, distinct(p.values)); err != nil {
					return err
				}
				if count == limit {
					return nil
				}
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		ahead = ahead[:copy(ahead, ahead[1:])]
		window = min(2*window, max(scanParallel/int(c.scans.Load()), 1))
	}
	return nil
}

// scanPartitions lists the partitions that may hold keys of a range.
func scanPartitions(lower, upper []byte) []Partition {
	open, end := bytes.IndexByte(lower, '{'), -1
	if open >= 0 {
		end = bytes.IndexByte(lower[open:], '}')
	}
	if end > 1 && upper != nil && bytes.HasPrefix(upper, lower[:open+end]) {
		tagged := lower[:open+end+1]
		// All keys between two that begin with the tag begin with it, if both really do.
		if bytes.Compare(upper, after(tagged)) <= 0 {
			return []Partition{PartitionOf(tagged)}
		}
	}
	all := make([]Partition, Partitions)
	for i := range all {
		all[i] = Partition(i)
	}
	return all
}

// partitionScan fetches what one partition has of a range.
type partitionScan struct {
	c            *ClusterClient
	part         Partition
	lower, upper []byte
	limit        int // 0: none
	o            ReadOptions
}

// run gives page after page, all of them well formed, until the last one, an error, which is given
// too, or the end of ctx.
func (s *partitionScan) run(ctx context.Context, pages chan<- fetched) {
	op := Op{Kind: KindPage, Part: s.part, Lower: s.lower, Upper: s.upper, Level: s.o.Level,
		Strict: s.o.Strict}
	for got := 0; ; {
		op.Limit = uint64(s.limit - got)
		body, err := s.c.call(ctx, &op)
		count, following := 0, []byte(nil)
		if err == nil {
			count, following, err = measureClusterPage(body, op.Lower)
		}
		select {
		case pages <- fetched{body, err}:
		case <-ctx.Done():
			return
		}
		if s.limit > 0 {
			got += count
		}
		if err != nil || len(following) == 0 || s.limit > 0 && got >= s.limit {
			return
		}
		op.Lower = following
	}
}

// measureClusterPage returns the number of pairs of a page and where the next one starts. A page
// that would not bring the scan forward is malformed: a client never loops on an answer.
func measureClusterPage(body, lower []byte) (count int, following []byte, err error) {
	p := clusterPage{d: decoder{rest: body}}
	for p.next() {
		count++
	}
	switch {
	case p.d.reason != "":
		return 0, nil, &MessageError{Kind: KindPage, Reason: p.d.reason}
	case len(p.following) > 0 && bytes.Compare(p.following, lower) <= 0:
		return 0, nil, &MessageError{Kind: KindPage, Reason: "page does not advance"}
	}
	return count, p.following, nil
}

// clusterPage walks the pairs of a page.
type clusterPage struct {
	d         decoder
	key       []byte
	values    [][]byte
	following []byte
}

func (p *clusterPage) next() bool {
	p.key, p.values = p.d.field(), p.values[:0]
	if p.d.reason != "" {
		return false
	}
	if len(p.key) == 0 {
		p.following = p.d.field()
		if p.d.reason == "" && len(p.d.rest) > 0 {
			p.d.fail("trailing bytes")
		}
		return false
	}
	p.values = p.d.values(p.values)
	return p.d.reason == ""
}
