package replication

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

// direct is a Caller without a network: it gives the request to the node as a transport would.
type direct struct {
	node *Node
	fail error // instead of an answer, after the node has worked
}

func (d *direct) Call(ctx context.Context, req, dst []byte) ([]byte, error) {
	out, ok := d.node.TryCall(req, dst)
	if !ok {
		var tag byte
		if out, tag, ok = d.node.TryDefer(req, dst); ok {
			tags, arrived := []byte{tag}, []time.Time{time.Now()}
			if instead := d.node.Settle(tags, arrived); instead != nil {
				out = append(dst, instead...)
			}
		}
	}
	var err error
	if !ok {
		out, err = d.node.Call(ctx, req, dst)
	}
	if d.fail != nil {
		return dst, d.fail
	}
	return out, err
}

func (d *direct) Close() error { return nil }

func newTestNode(t testing.TB) (*Client, *Node, *direct) {
	t.Helper()
	db, err := lsm.Open("/db", lsm.Options{FS: vfs.NewMem(), MemtableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	node := NewNode(db, NodeOptions{Version: "test"})
	d := &direct{node: node}
	t.Cleanup(func() {
		if err := db.Close(); err != nil && !errors.Is(err, lsm.ErrClosed) {
			t.Error(err)
		}
	})
	return NewClient(d, errLost), node, d
}

var errLost = errors.New("the answer was lost")

func TestVerbs(t *testing.T) {
	c, node, _ := newTestNode(t)
	ctx := t.Context()
	if err := c.Put(ctx, []byte("k"), []byte("value"), lsm.Sync); err != nil {
		t.Fatal(err)
	}
	got, err := c.Get(ctx, []byte("k"), []byte("before "))
	if err != nil || string(got) != "before value" {
		t.Errorf("Get: %q, %v", got, err)
	}
	got, err = c.Get(ctx, []byte("nothing"), []byte("before"))
	if !errors.Is(err, lsm.ErrNotFound) || string(got) != "before" {
		t.Errorf("Get of nothing: %q, %v", got, err)
	}
	var b lsm.Batch
	b.Put([]byte("a"), nil)
	b.Delete([]byte("k"))
	b.Put([]byte("b"), []byte("2"))
	if err := c.Apply(ctx, &b, lsm.Async); err != nil || b.Len() != 3 {
		t.Errorf("Apply: %v, batch of %d", err, b.Len())
	}
	if _, err := c.Get(ctx, []byte("k"), nil); !errors.Is(err, lsm.ErrNotFound) {
		t.Errorf("a deleted key: %v", err)
	}
	if err := c.Delete(ctx, []byte("a"), lsm.NoSync); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"ping": c.Ping(ctx), "flush": c.Flush(ctx), "compact": c.Compact(ctx, nil, []byte("z")),
		"checkpoint": c.Checkpoint(ctx, "/copy"),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Checkpoint(ctx, "copy"); err == nil {
		t.Error("a checkpoint to a relative path")
	}
	report, err := c.Scrub(ctx)
	if err != nil || report.Files < 2 || report.Bytes == 0 || report.Found != 0 {
		t.Errorf("Scrub: %+v, %v", report, err)
	}
	raw, err := c.Status(ctx)
	var s Status
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil || s.Version != "test" || s.Requests["get"] != 3 || s.Engine.State != "healthy" {
		t.Errorf("Status: %s, %v", raw, err)
	}
	m := node.Metrics()
	if op := m.Ops[KindGet-1]; op.Kind != KindGet || op.OK != 3 || op.Duration.Count() != 3 {
		t.Errorf("metrics of get: %+v", op)
	}
}

func TestErrorsComeThroughTyped(t *testing.T) {
	c, node, d := newTestNode(t)
	ctx := t.Context()
	long, large := make([]byte, lsm.MaxKeyBytes+1), make([]byte, lsm.MaxValueBytes+1)
	var late lsm.Batch
	late.Put(nil, nil)
	for name, err := range map[string]error{
		"put":    c.Put(ctx, long, nil, lsm.Sync),
		"get":    second(c.Get(ctx, nil, nil)),
		"delete": c.Delete(ctx, long, lsm.Sync),
		"apply":  c.Apply(ctx, &late, lsm.Sync),
	} {
		if _, ok := errors.AsType[*lsm.KeySizeError](err); !ok {
			t.Errorf("%s: %v, want a *KeySizeError", name, err)
		}
	}
	if e, ok := errors.AsType[*lsm.ValueSizeError](c.Put(ctx, []byte("k"), large, lsm.Sync)); !ok ||
		e.Bytes != len(large) {
		t.Error("a large value is no *ValueSizeError")
	}
	// What the client would not send, the node refuses by itself.
	r := request{kind: KindPut, key: long}
	out, _ := d.Call(ctx, r.appendTo(nil), nil)
	_, err := decodeAnswer(out)
	if e, ok := errors.AsType[*lsm.KeySizeError](err); !ok || e.Bytes != len(long) {
		t.Errorf("the node answers a long key with % x", out)
	}
	var b lsm.Batch
	for i := range 3 {
		b.Put([]byte{byte(i), 1}, large[:4<<20])
	}
	if _, ok := errors.AsType[*ApplySizeError](c.Apply(ctx, &b, lsm.Sync)); !ok {
		t.Error("a large batch is no *ApplySizeError")
	}

	d.fail = errLost
	if err := c.Put(ctx, []byte("k"), nil, lsm.Sync); !errors.Is(err, ErrInDoubt) ||
		!errors.Is(err, errLost) {
		t.Errorf("a write without an answer: %v", err)
	}
	d.fail = errors.New("never sent")
	if err := c.Put(ctx, []byte("k"), nil, lsm.Sync); errors.Is(err, ErrInDoubt) {
		t.Errorf("a write that was not sent: %v", err)
	}
	d.fail = nil

	node.Drain()
	if err := c.Put(ctx, []byte("k"), nil, lsm.Sync); !errors.Is(err, ErrDraining) {
		t.Errorf("while draining: %v", err)
	}
	if err := c.Ping(ctx); err != nil {
		t.Errorf("ping while draining: %v", err)
	}
	if m := node.Metrics(); m.Refused != 1 || !m.Draining {
		t.Errorf("metrics: %+v", m)
	}
}

func TestClosedEngine(t *testing.T) {
	c, node, _ := newTestNode(t)
	if err := node.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), []byte("k"), nil, lsm.Sync); !errors.Is(err, lsm.ErrClosed) {
		t.Errorf("Put: %v", err)
	}
	if _, err := c.Get(t.Context(), []byte("k"), nil); !errors.Is(err, lsm.ErrClosed) {
		t.Errorf("Get: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestScanModel compares scans of random ranges and limits with a sorted list.
func TestScanModel(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 2))
	c, _, _ := newTestNode(t)
	ctx := t.Context()
	type pair struct{ k, v string }
	var model []pair
	for i := range 3000 {
		p := pair{fmt.Sprintf("%05d", i*7), strings.Repeat("v", r.IntN(2000))}
		if i == 1500 {
			p.v = strings.Repeat("w", 2<<20) // larger than a page
		}
		model = append(model, p)
		if err := c.Put(ctx, []byte(p.k), []byte(p.v), lsm.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	for range 60 {
		lo, hi := fmt.Sprintf("%05d", r.IntN(22000)), fmt.Sprintf("%05d", r.IntN(22000))
		if r.IntN(4) == 0 {
			lo = ""
		}
		if r.IntN(4) == 0 {
			hi = ""
		}
		limit := 0
		if r.IntN(2) == 0 {
			limit = 1 + r.IntN(3000)
		}
		var want, got []pair
		for _, p := range model {
			if p.k >= lo && (hi == "" || p.k < hi) && (limit == 0 || len(want) < limit) {
				want = append(want, p)
			}
		}
		keys := 0
		err := c.Scan(ctx, []byte(lo), []byte(hi), limit, func(k, v []byte) error {
			got = append(got, pair{string(k), string(v)})
			return nil
		})
		if err == nil {
			err = c.ScanKeys(ctx, []byte(lo), []byte(hi), limit, func(k []byte) error {
				if string(k) != want[keys].k {
					return fmt.Errorf("key %q at %d", k, keys)
				}
				keys++
				return nil
			})
		}
		if err != nil || !slices.Equal(got, want) || keys != len(want) {
			t.Fatalf("seed %d: scan [%s,%s) limit %d: %d pairs and %d keys of %d, %v", seed, lo, hi,
				limit, len(got), keys, len(want), err)
		}
	}
	stop := errors.New("enough")
	if err := c.Scan(ctx, nil, nil, 0, func(_, _ []byte) error { return stop }); err != stop {
		t.Errorf("Scan returns %v, not its callback's error", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	err := c.Scan(done, nil, nil, 0, func(_, _ []byte) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Scan with an ended context: %v", err)
	}
}

// repeating answers every request with the same bytes: a node that lies.
type repeating struct{ answer []byte }

func (r repeating) Call(_ context.Context, _, dst []byte) ([]byte, error) {
	return append(dst, r.answer...), nil
}
func (r repeating) Close() error { return nil }

func TestScanOfALyingNodeEnds(t *testing.T) {
	page := func(next string, keys ...string) []byte {
		out := []byte{byte(statusOK)}
		for _, k := range keys {
			out = appendEntry(out, []byte(k), nil, false)
		}
		return appendPageEnd(out, []byte(next))
	}
	for name, answer := range map[string][]byte{
		"a page that leads to itself": page("a", "a"),
		"an empty page with a next":   page("b"),
		"nothing":                     {},
		"half a page":                 page("", "a", "b")[:4],
	} {
		c := NewClient(repeating{answer}, nil)
		err := c.Scan(t.Context(), []byte("a"), nil, 0, func(_, _ []byte) error { return nil })
		if _, ok := errors.AsType[*MessageError](err); !ok {
			t.Errorf("%s: %v, want a *MessageError", name, err)
		}
	}
}

func TestBuckets(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want int
	}{{0, 0}, {time.Microsecond, 0}, {time.Microsecond + 1, 1}, {2 * time.Microsecond, 1},
		{3 * time.Microsecond, 2}, {time.Hour, DurationBuckets - 1}} {
		if got := bucketOf(c.d); got != c.want {
			t.Errorf("bucketOf(%v) = %d, want %d", c.d, got, c.want)
		}
	}
	for i := range DurationBuckets - 1 {
		if b := BucketBound(i); bucketOf(b) != i || bucketOf(b+1) != i+1 {
			t.Errorf("bucket %d does not end at %v", i, b)
		}
	}
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	c, node, _ := newTestNode(t)
	key, value := []byte("a key of some length"), bytes.Repeat([]byte("v"), 150)
	if err := c.Put(t.Context(), key, value, lsm.Sync); err != nil {
		t.Fatal(err)
	}
	get := (&request{kind: KindGet, key: key}).appendTo(nil)
	put := (&request{kind: KindPut, durability: lsm.NoSync, key: key, value: value}).appendTo(nil)
	durable := (&request{kind: KindPut, durability: lsm.Sync, key: key, value: value}).appendTo(nil)
	buf := make([]byte, 0, 1<<10)
	if raceDetector() {
		return // it makes pools forget
	}
	if n := testing.AllocsPerRun(200, func() {
		if _, _, ok := node.TryDefer(durable, buf); !ok {
			t.Fatal("not deferred")
		}
	}); n != 0 {
		t.Errorf("a durable put: %v allocations in the node", n)
	}
	for name, req := range map[string][]byte{"get": get, "put": put} {
		if n := testing.AllocsPerRun(200, func() {
			if _, ok := node.TryCall(req, buf); !ok {
				t.Fatal("not answered inline")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations in the node", name, n)
		}
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(200, func() {
		if _, err := c.Get(ctx, key, buf[:0]); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("Client.Get: %v allocations", n)
	}
}

func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "-race" && s.Value == "true"
	})
}

func BenchmarkNodeGet(b *testing.B) {
	c, node, _ := newTestNode(b)
	key := []byte("a key of some length")
	if err := c.Put(b.Context(), key, make([]byte, 150), lsm.NoSync); err != nil {
		b.Fatal(err)
	}
	req := (&request{kind: KindGet, key: key}).appendTo(nil)
	buf := make([]byte, 0, 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := node.TryCall(req, buf); !ok {
			b.Fatal("not inline")
		}
	}
}

func BenchmarkNodePut(b *testing.B) {
	_, node, _ := newTestNode(b)
	req := (&request{kind: KindPut, durability: lsm.NoSync, key: []byte("a key of some length"),
		value: make([]byte, 150)}).appendTo(nil)
	buf := make([]byte, 0, 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := node.TryCall(req, buf); !ok { // a memtable is full
			_, _ = node.Call(b.Context(), req, buf)
		}
	}
}

func ExampleClient() {
	db, err := lsm.Open("/db", lsm.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	// Over a network the caller is a connection; here it is the node itself.
	c := NewClient(&direct{node: NewNode(db, NodeOptions{})}, nil)
	ctx := context.Background()
	if err := c.Put(ctx, []byte("greeting"), []byte("hello"), lsm.Sync); err != nil {
		panic(err)
	}
	value, err := c.Get(ctx, []byte("greeting"), nil)
	fmt.Printf("%s %v\n", value, err)
	// Output: hello <nil>
}
