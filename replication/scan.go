package replication

import (
	"cmp"
	"context"
	"errors"

	"kvd/lsm"
)

// Scan calls fn with every pair of [lower, upper) in the order of the keys, at most limit of them
// (0 = all), until fn returns an error, which Scan returns. An empty bound is open. Key and value
// are valid during the call of fn.
//
// The pairs come in pages, the next fetched while fn works on the one before. Each page is a
// moment of the database, the whole scan is not: a write during the scan is seen if it falls
// behind the scan's position. For a moment of everything take a Checkpoint.
func (c *Client) Scan(ctx context.Context, lower, upper []byte, limit int,
	fn func(key, value []byte) error) error {
	return c.scan(ctx, request{lower: lower, upper: upper}, limit, fn)
}

// ScanKeys is Scan without the values, which do not travel.
func (c *Client) ScanKeys(ctx context.Context, lower, upper []byte, limit int,
	fn func(key []byte) error) error {
	r := request{lower: lower, upper: upper, keysOnly: true}
	return c.scan(ctx, r, limit, func(key, _ []byte) error { return fn(key) })
}

var errNegativeLimit = errors.New("replication: negative limit")

// fetched is a page on its way from the goroutine that fetches to the one that reads.
type fetched struct {
	answer []byte
	err    error
}

func (c *Client) scan(ctx context.Context, r request, limit int,
	fn func(key, value []byte) error) error {
	if limit < 0 {
		return errNegativeLimit
	}
	for _, b := range [][]byte{r.lower, r.upper} {
		if len(b) > lsm.MaxKeyBytes+1 {
			return &lsm.KeySizeError{Bytes: len(b)}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan fetched)
	spare := make(chan []byte, 2) // two buffers: one being read, one being filled
	spare <- nil
	spare <- nil
	go func() {
		defer close(pages)
		c.fetchPages(ctx, r, limit, pages, spare)
	}()
	defer func() {
		cancel()
		for range pages { // let the fetcher end
		}
	}()
	for page := range pages {
		if page.err != nil {
			return cmp.Or(ctx.Err(), page.err) // the node's word for an ended context is a text
		}
		p := pageReader{d: decoder{rest: page.answer[1:]}, keysOnly: r.keysOnly}
		for p.next() {
			if err := fn(p.key, p.value); err != nil {
				return err
			}
		}
		if err := p.err(); err != nil {
			return err
		}
		spare <- page.answer
	}
	return ctx.Err()
}

// fetchPages asks for page after page until the last one, an error or the end of ctx.
func (c *Client) fetchPages(ctx context.Context, r request, limit int,
	pages chan<- fetched, spare <-chan []byte) {
	r.kind = KindScan
	for left := limit; ; {
		var buf []byte
		select {
		case buf = <-spare:
		case <-ctx.Done():
			return
		}
		r.entries = uint64(left)
		answer, err := c.roundTrip(ctx, &r, buf[:0])
		count, following := 0, []byte(nil)
		if err == nil {
			count, following, err = measurePage(answer[1:], r.keysOnly, r.lower)
		}
		select {
		case pages <- fetched{answer, err}:
		case <-ctx.Done():
			return
		}
		if err != nil || len(following) == 0 {
			return
		}
		if limit > 0 {
			if left -= count; left <= 0 {
				return
			}
		}
		r.lower = following
	}
}

// measurePage returns the number of entries of a page and a copy of the key that follows it. A
// page that would not bring the scan forward is malformed: a client never loops on an answer.
func measurePage(body []byte, keysOnly bool, lower []byte) (int, []byte, error) {
	p := pageReader{d: decoder{rest: body}, keysOnly: keysOnly}
	count := 0
	for p.next() {
		count++
	}
	if err := p.err(); err != nil {
		return 0, nil, err
	}
	if len(p.following) == 0 {
		return count, nil, nil
	}
	if count == 0 || string(p.following) <= string(lower) {
		return 0, nil, &MessageError{Kind: KindScan, Reason: "page does not advance"}
	}
	return count, append([]byte(nil), p.following...), nil
}
