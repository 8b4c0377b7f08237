package replication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"kvd/lsm"
)

// NodeOptions are what a Node tells about the program around it.
type NodeOptions struct {
	// Version of the program, for Status.
	Version string
	// Transport returns the figures of the transport that carries the node's messages, something
	// that encodes to JSON, for Status. Nil leaves them out.
	Transport func() any
}

// Node answers the requests of clients from one database. It is the handler of a transport, which
// it meets by shape; TryCall, TryDefer, Settle and Call may be called from any number of
// goroutines.
//
// The node does not own the database: whoever opened it closes it, after the transport has let
// its last request go.
type Node struct {
	// Fixed after NewNode.
	db      *lsm.DB
	options NodeOptions
	started time.Time

	cluster func() Ring // nil for a node by itself

	// Own synchronisation.
	draining  atomic.Bool
	malformed atomic.Uint64
	refused   atomic.Uint64
	ops       [Kinds]counters
}

// NewNode returns a node that serves db. It starts nothing.
func NewNode(db *lsm.DB, o NodeOptions) *Node {
	return &Node{db: db, options: o, started: time.Now()}
}

// Drain makes the node refuse every new request but Ping and Status with ErrDraining. Requests
// under way go on.
func (n *Node) Drain() { n.draining.Store(true) }

// TryCall answers a request that needs no waiting, and reports false for one that belongs in Call.
// It runs on the goroutine that reads the connection, which spares small requests a hand-over of
// about a microsecond, and what it waits for all other requests of the lane wait for too. So it
// answers gets of what is in memory, and unsynced writes while commits do not have to wait.
//
// The answer is appended to dst. Neither req nor dst is kept. Gets and puts allocate
// nothing.
func (n *Node) TryCall(req, dst []byte) ([]byte, bool) {
	if len(req) < 2 {
		return dst, false
	}
	switch kind := Kind(req[0]); {
	case kind == KindGet:
		return n.tryGet(req, dst)
	case kind.writes() && lsm.Durability(req[1]) == lsm.NoSync:
		start := time.Now()
		resp, ok := n.tryWrite(req, dst)
		if ok {
			n.ops[kind].record(time.Since(start), status(resp[len(dst)]) == statusOK)
		}
		return resp, ok
	}
	return dst, false
}

// tryGet leaves to Call what reads a file, and errors.
func (n *Node) tryGet(req, dst []byte) ([]byte, bool) {
	r, err := decodeRequest(req)
	if err != nil || n.draining.Load() {
		return dst, false
	}
	start := time.Now()
	resp, done, err := n.db.TryGet(append(dst, byte(statusOK)), r.key)
	switch {
	case !done || err != nil && err != lsm.ErrNotFound:
		return dst, false
	case err != nil:
		resp = appendError(dst, err, false)
	}
	n.ops[KindGet].record(time.Since(start), true)
	return resp, true
}

// TryDefer does a write without waiting for its durability: the answer may go out after Settle.
// Its way is that of TryCall. Writes that would have to wait, because commits are being slowed down
// say, and those with errors it leaves to Call, which alone answers them.
func (n *Node) TryDefer(req, dst []byte) (resp []byte, tag byte, ok bool) {
	if len(req) < 2 {
		return dst, 0, false
	}
	kind, d := Kind(req[0]), lsm.Durability(req[1])
	if !kind.writes() || d != lsm.Sync && d != lsm.Async {
		return dst, 0, false
	}
	resp, ok = n.tryWrite(req, dst)
	return resp, tagOf(kind, d), ok
}

// syncTag marks the tags of writes that have to survive a power loss.
const syncTag = 1 << 7

func tagOf(kind Kind, d lsm.Durability) byte {
	if d == lsm.Sync {
		return byte(kind) | syncTag
	}
	return byte(kind)
}

// tryWrite does a write, unless it is large, would have to wait, or fails. Only when it cannot be
// told whether it has been done the answer is an error.
func (n *Node) tryWrite(req, dst []byte) ([]byte, bool) {
	if len(req) > tryBytesMax || n.draining.Load() {
		return dst, false
	}
	r, err := decodeRequest(req)
	if err != nil {
		return dst, false
	}
	b := batches.Get().(*lsm.Batch)
	defer batches.Put(b)
	b.Reset()
	r.fill(b)
	done, err := n.db.TryApply(b)
	if !done || err != nil && !errors.Is(err, lsm.ErrInDoubt) {
		return dst, false // nothing was changed
	}
	if err != nil {
		return appendError(dst, err, true), true
	}
	return append(dst, byte(statusOK)), true
}

// tryBytesMax bounds the writes that are done while others of the lane wait, and with it the
// memory that pooled batches hold on to.
const tryBytesMax = 64 << 10

// barrier is empty and never changed: to apply it is to wait for everything before.
var barrier = new(lsm.Batch)

var batches = sync.Pool{New: func() any { return new(lsm.Batch) }}

// Settle makes what TryDefer has done as durable as the strictest of the writes wants it: by one
// sync, which those of other connections share, or by one write to the log's file. What it returns,
// unless it is nil, is the answer to all of them.
func (n *Node) Settle(tags []byte, arrived []time.Time) (instead []byte) {
	d := lsm.Async
	for _, tag := range tags {
		if tag&syncTag != 0 {
			d = lsm.Sync
			break
		}
	}
	err := n.db.Apply(barrier, d)
	now := time.Now()
	for i, tag := range tags {
		n.ops[tag&^syncTag].record(now.Sub(arrived[i]), err == nil)
	}
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, lsm.ErrInDoubt): // it speaks of the barrier
		err = fmt.Errorf("%w: %w", lsm.ErrInDoubt, err)
	}
	return appendError(nil, err, true)
}

// Call answers any request. Like every failure of a request, a malformed one is told in the
// answer: the error of Call is always nil and there for the transport's interface.
func (n *Node) Call(ctx context.Context, req, dst []byte) ([]byte, error) {
	return n.answer(ctx, req, dst), nil
}

// Metrics returns the node's counters.
func (n *Node) Metrics() Metrics {
	m := Metrics{
		Malformed: n.malformed.Load(),
		Refused:   n.refused.Load(),
		Draining:  n.draining.Load(),
	}
	for k := KindPing; k < Kinds; k++ {
		m.Ops = append(m.Ops, n.ops[k].read(k))
	}
	return m
}

// answer is the one way of every request: decode, execute, count.
func (n *Node) answer(ctx context.Context, msg, dst []byte) []byte {
	r, err := decodeRequest(msg)
	if err != nil {
		n.malformed.Add(1)
		return appendError(dst, err, false)
	}
	if n.draining.Load() && r.kind != KindPing && r.kind != KindStatus {
		n.refused.Add(1)
		return appendError(dst, ErrDraining, false)
	}
	start := time.Now()
	out, err := n.execute(ctx, &r, append(dst, byte(statusOK)))
	n.ops[r.kind].record(time.Since(start), err == nil || errors.Is(err, lsm.ErrNotFound))
	if err != nil {
		return appendError(dst, err, r.kind.writes())
	}
	return out
}

// writes reports whether a failed request of this kind may have changed data.
func (k Kind) writes() bool { return k == KindPut || k == KindDelete || k == KindApply }

// execute appends the body of the answer to dst.
func (n *Node) execute(ctx context.Context, r *request, dst []byte) ([]byte, error) {
	switch r.kind {
	case KindGet:
		return n.db.GetTo(dst, r.key)
	case KindPut, KindDelete, KindApply:
		return dst, n.write(ctx, r)
	case KindScan:
		return n.page(ctx, r, dst)
	case KindStatus:
		text, err := json.Marshal(n.Status())
		return append(dst, text...), err
	case KindFlush:
		return dst, n.db.Flush()
	case KindCompact:
		return dst, n.db.Compact(ctx, bound(r.lower), bound(r.upper))
	case KindCheckpoint:
		dir := string(r.dir)
		if !filepath.IsAbs(dir) {
			return dst, &MessageError{Kind: r.kind, Reason: "the path must be absolute"}
		}
		return dst, n.db.Checkpoint(filepath.Clean(dir))
	case KindScrub:
		report, err := n.db.Scrub(ctx)
		if err != nil {
			return dst, err
		}
		text, err := json.Marshal(report)
		return append(dst, text...), err
	}
	return dst, nil
}

// write does a write, unless the engine slows writes down beyond the deadline of this one.
func (n *Node) write(ctx context.Context, r *request) error {
	b := batches.Get().(*lsm.Batch)
	b.Reset()
	r.fill(b)
	err := n.db.ApplyContext(ctx, b, r.durability)
	if len(r.key)+len(r.value)+len(r.ops) <= tryBytesMax {
		batches.Put(b)
	}
	if errors.Is(err, lsm.ErrTooLate) {
		return fmt.Errorf("%w: %w", ErrOverloaded, err)
	}
	return err
}

// page appends one page of a scan, all of it from one snapshot.
func (n *Node) page(ctx context.Context, r *request, dst []byte) ([]byte, error) {
	entries := uint64(MaxPageEntries)
	if r.entries > 0 {
		entries = min(entries, r.entries)
	}
	room := MaxPageBytes
	if r.bytes > 0 && r.bytes < MaxPageBytes {
		room = int(r.bytes)
	}
	it := n.db.NewIter(lsm.IterOptions{Lower: bound(r.lower), Upper: bound(r.upper)})
	defer it.Close()
	var next []byte
	start := len(dst)
	for ok := it.First(); ok; ok = it.Next() {
		size := len(it.Key())
		if !r.keysOnly {
			size += len(it.Value())
		}
		used := len(dst) - start
		if entries == 0 || (used > 0 && used+size > room) {
			next = it.Key()
			break
		}
		if ctx.Err() != nil {
			return dst, ctx.Err()
		}
		var value []byte
		if !r.keysOnly {
			value = it.Value()
		}
		dst = appendEntry(dst, it.Key(), value, r.keysOnly)
		entries--
	}
	if err := it.Err(); err != nil {
		return dst, err
	}
	return appendPageEnd(dst, next), nil
}

// bound turns the empty bound of a message into the engine's open one.
func bound(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// Status is a node's account of itself.
type Status struct {
	Version       string            `json:"version"`
	UptimeSeconds float64           `json:"uptime_seconds"`
	Draining      bool              `json:"draining"`
	Requests      map[string]uint64 `json:"requests"` // answered, by kind
	Engine        lsm.Metrics       `json:"engine"`
	Transport     any               `json:"transport,omitempty"`
	Cluster       *Ring             `json:"cluster,omitempty"` // of a node of one, without Owners
}

// Status returns the node's account of itself.
func (n *Node) Status() Status {
	s := Status{
		Version:       n.options.Version,
		UptimeSeconds: time.Since(n.started).Seconds(),
		Draining:      n.draining.Load(),
		Requests:      map[string]uint64{},
		Engine:        n.db.Metrics(),
	}
	for _, op := range n.Metrics().Ops {
		if total := op.OK + op.Failed; total > 0 {
			s.Requests[op.Kind.String()] = total
		}
	}
	if n.options.Transport != nil {
		s.Transport = n.options.Transport()
	}
	if n.cluster != nil {
		r := n.cluster()
		r.Owners = nil
		s.Cluster = &r
	}
	return s
}
