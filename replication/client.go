package replication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"kvd/lsm"
)

// Caller carries one request to a node and brings its answer, appended to dst. It may be called
// from many goroutines and keeps neither slice after it returned. Close ends it; calls under way
// fail.
type Caller interface {
	Call(ctx context.Context, req, dst []byte) ([]byte, error)
	Close() error
}

// Client asks one node. Its methods may be called from many goroutines, which share one connection
// and, in it, one write: many callers are what makes a client fast.
//
// The engine's errors come through as they are: lsm.ErrNotFound, *lsm.KeySizeError,
// *lsm.ValueSizeError, *lsm.CorruptError; lsm.ErrDiskFull, lsm.ErrReadOnly, lsm.ErrClosed,
// ErrOverloaded and ErrDraining inside a *RemoteError. A write whose answer did not arrive fails
// with ErrInDoubt.
type Client struct {
	caller  Caller
	inDoubt error
	buffer  sync.Pool // of *[]byte: requests under way
}

// NewClient returns a client on c, which it closes when it is closed. The failures of c that match
// inDoubt (by errors.Is) are those where the request may have been executed, the others those
// where it certainly was not. A nil inDoubt says that c cannot tell: all of them are in doubt.
func NewClient(c Caller, inDoubt error) *Client {
	return &Client{caller: c, inDoubt: inDoubt,
		buffer: sync.Pool{New: func() any { return new([]byte) }}}
}

// Close closes the connection.
func (c *Client) Close() error { return c.caller.Close() }

// Get appends the value of key to dst. A key without a value is lsm.ErrNotFound; dst is returned
// unchanged with every error.
func (c *Client) Get(ctx context.Context, key, dst []byte) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return dst, err
	}
	out, err := c.roundTrip(ctx, &request{kind: KindGet, key: key}, dst)
	if err != nil {
		return dst, err
	}
	// The body follows the status byte in out; the caller wants it in its place.
	copy(out[len(dst):], out[len(dst)+1:])
	return out[:len(out)-1], nil
}

// Put writes a pair. When it returns nil the pair is as durable as d says.
func (c *Client) Put(ctx context.Context, key, value []byte, d lsm.Durability) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > lsm.MaxValueBytes {
		return &lsm.ValueSizeError{Bytes: len(value)}
	}
	return c.write(ctx, &request{kind: KindPut, durability: d, key: key, value: value})
}

// Delete removes key, which need not exist.
func (c *Client) Delete(ctx context.Context, key []byte, d lsm.Durability) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return c.write(ctx, &request{kind: KindDelete, durability: d, key: key})
}

// Apply makes all writes of b or none of them, in one message of at most MaxApplyBytes
// (*ApplySizeError). It does not change b.
func (c *Client) Apply(ctx context.Context, b *lsm.Batch, d lsm.Durability) error {
	if err := b.Err(); err != nil {
		return err
	}
	buf := c.buffer.Get().(*[]byte)
	defer c.recycle(buf)
	*buf = appendOperations((*buf)[:0], b)
	if len(*buf) > MaxApplyBytes {
		return &ApplySizeError{Bytes: len(*buf)}
	}
	return c.write(ctx, &request{kind: KindApply, durability: d, ops: *buf})
}

// Ping asks the node for a sign of life.
func (c *Client) Ping(ctx context.Context) error {
	return c.command(ctx, &request{kind: KindPing})
}

// Flush writes the node's memtable out. When it returns nil, everything written before it was
// called is durable, whatever durability it was written with.
func (c *Client) Flush(ctx context.Context) error {
	return c.command(ctx, &request{kind: KindFlush})
}

// Compact rewrites the tables that hold keys of [lower, upper) to the bottom of the tree. An empty
// bound is open.
func (c *Client) Compact(ctx context.Context, lower, upper []byte) error {
	return c.command(ctx, &request{kind: KindCompact, lower: lower, upper: upper})
}

// Checkpoint makes the node write a consistent copy of its database to dir: an absolute path on
// the node's machine, not existing yet, on the file system of the database.
func (c *Client) Checkpoint(ctx context.Context, dir string) error {
	return c.command(ctx, &request{kind: KindCheckpoint, dir: []byte(dir)})
}

// Scrub makes the node read and check everything that it has on disk. Damage is in the report and
// no error.
func (c *Client) Scrub(ctx context.Context) (report lsm.ScrubReport, err error) {
	out, err := c.roundTrip(ctx, &request{kind: KindScrub}, nil)
	if err != nil {
		return report, err
	}
	if err := json.Unmarshal(out[1:], &report); err != nil {
		return report, fmt.Errorf("replication: report of a scrub: %w", err)
	}
	return report, nil
}

// ErrNoCluster says that a node is none of a cluster.
var ErrNoCluster = errors.New("replication: the node is not one of a cluster")

// Ring asks the node for the cluster as it sees it. A node by itself gives ErrNoCluster.
func (c *Client) Ring(ctx context.Context) (r Ring, err error) {
	op := Op{Kind: KindRing}
	answer, err := c.caller.Call(ctx, op.AppendTo(nil), nil)
	if err != nil {
		return r, err
	}
	if len(answer) > 0 && status(answer[0]) == statusBadRequest {
		return r, ErrNoCluster
	}
	body, err := decodeAnswer(answer)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(body, &r)
}

// Status asks the node for its account of itself, as JSON: see Status.
func (c *Client) Status(ctx context.Context) (json.RawMessage, error) {
	out, err := c.roundTrip(ctx, &request{kind: KindStatus}, nil)
	if err != nil {
		return nil, err
	}
	return out[1:], nil
}

// write sends a request that changes data. Failing to get an answer leaves it in doubt.
func (c *Client) write(ctx context.Context, r *request) error {
	buf := c.buffer.Get().(*[]byte)
	defer c.recycle(buf)
	*buf = r.appendTo((*buf)[:0])
	if err := ctx.Err(); err != nil {
		return err // nothing was sent
	}
	reply := c.buffer.Get().(*[]byte)
	defer c.recycle(reply)
	out, err := c.caller.Call(ctx, *buf, (*reply)[:0])
	*reply = out
	if err != nil {
		return c.callError(err)
	}
	_, err = decodeAnswer(out)
	if _, malformed := errors.AsType[*MessageError](err); malformed {
		return fmt.Errorf("%w: %w", ErrInDoubt, err) // the node has answered, but what?
	}
	return err
}

// callError marks a failed write as in doubt, unless the transport knows better.
func (c *Client) callError(err error) error {
	if c.inDoubt != nil && !errors.Is(err, c.inDoubt) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrInDoubt, err)
}

func (c *Client) command(ctx context.Context, r *request) error {
	_, err := c.roundTrip(ctx, r, nil)
	return err
}

// roundTrip appends the whole answer to dst, status byte first.
func (c *Client) roundTrip(ctx context.Context, r *request, dst []byte) ([]byte, error) {
	buf := c.buffer.Get().(*[]byte)
	defer c.recycle(buf)
	*buf = r.appendTo((*buf)[:0])
	out, err := c.caller.Call(ctx, *buf, dst)
	if err != nil {
		return dst, err
	}
	if _, err := decodeAnswer(out[len(dst):]); err != nil {
		return dst, err
	}
	return out, nil
}

// recycledBytes is the largest buffer kept for reuse, so that one large value does not stay in
// memory for ever.
const recycledBytes = 256 << 10

func (c *Client) recycle(buf *[]byte) {
	if cap(*buf) <= recycledBytes {
		c.buffer.Put(buf)
	}
}

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > lsm.MaxKeyBytes {
		return &lsm.KeySizeError{Bytes: len(key)}
	}
	return nil
}
