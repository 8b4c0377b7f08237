package replication

import (
	"bytes"
	"context"
	"fmt"
)

// scanParallel is how many partitions a scan reads together.
const scanParallel = 16

// Scan calls fn with every key of [lower, upper) and all its values, at most limit keys (0 = all),
// until fn returns an error, which Scan returns. Partition by partition: within one the keys are in
// order, and keys with the same {hash tag} are in one partition. When the bounds have such a tag in
// common only its partition is read. Slices are valid during the call.
//
// A key that is written during the scan is seen or not; one that is not is seen exactly once.
func (c *ClusterClient) Scan(ctx context.Context, lower, upper []byte, limit int, o ReadOptions,
	fn func(key []byte, values [][]byte) error) error {
	parts := scanPartitions(lower, upper)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		pages [][]byte
		err   error
	}
	results := make([]chan result, len(parts))
	slots := make(chan struct{}, scanParallel)
	for i := range results {
		results[i] = make(chan result, 1)
	}
	go func() {
		for i, part := range parts {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				pages, err := c.scanPartition(ctx, part, lower, upper, limit, o)
				results[i] <- result{pages, err}
			}()
		}
	}()
	count := 0
	for i := range parts {
		var r result
		select {
		case r = <-results[i]:
			<-slots
		case <-ctx.Done():
			return ctx.Err()
		}
		if r.err != nil {
			return fmt.Errorf("partition %d: %w", parts[i], r.err)
		}
		for _, body := range r.pages {
			p := clusterPage{d: decoder{rest: body}}
			for p.next() {
				if limit > 0 && count == limit {
					return nil
				}
				count++
				if err := fn(p.key, distinct(p.values)); err != nil {
					return err
				}
			}
			if p.d.reason != "" {
				return &MessageError{Kind: KindPage, Reason: p.d.reason}
			}
		}
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

// scanPartition fetches what one partition has of a range.
func (c *ClusterClient) scanPartition(ctx context.Context, part Partition, lower, upper []byte,
	limit int, o ReadOptions) (pages [][]byte, err error) {
	op := Op{Kind: KindPage, Part: part, Lower: lower, Upper: upper, Level: o.Level,
		Strict: o.Strict}
	left := limit
	for {
		op.Limit = uint64(left)
		body, err := c.call(ctx, &op)
		if err != nil {
			return nil, err
		}
		pages = append(pages, body)
		p := clusterPage{d: decoder{rest: body}}
		for p.next() {
			left--
		}
		if p.d.reason != "" {
			return nil, &MessageError{Kind: KindPage, Reason: p.d.reason}
		}
		if len(p.following) == 0 || limit > 0 && left <= 0 {
			return pages, nil
		}
		if bytes.Compare(p.following, op.Lower) <= 0 {
			return nil, &MessageError{Kind: KindPage, Reason: "page does not advance"}
		}
		op.Lower = p.following
	}
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
	n := p.d.uvarint()
	if n > uint64(len(p.d.rest)) {
		p.d.fail("more values than bytes")
		return false
	}
	for range n {
		p.values = append(p.values, p.d.field())
	}
	return p.d.reason == ""
}
