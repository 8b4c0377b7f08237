package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"kvd/lsm"
)

// status is the first byte of an answer. The values are part of the wire format: never renumbered.
type status uint8

const (
	statusOK         status = 0
	statusNotFound   status = 1
	statusKeySize    status = 2  // uvarint: the size refused
	statusValueSize  status = 3  // uvarint
	statusBatchSize  status = 4  // uvarint
	statusDiskFull   status = 5  // text
	statusReadOnly   status = 6  // text
	statusCorrupt    status = 7  // field: file, zigzag varint: offset, field: reason
	statusClosed     status = 8  // text
	statusDraining   status = 9  // text
	statusInDoubt    status = 10 // text
	statusBadRequest status = 11 // text
	statusFailed     status = 12 // text
	statusSuspended  status = 13 // text
	statusExpired    status = 14 // text

	statusUnavailable status = 15 // uvarint: needed, uvarint: there
	statusInDoubtOf   status = 16 // uvarint: needed, uvarint: known to hold it
	statusEpoch       status = 17 // uvarint: of the request, uvarint: of the node
	statusOverloaded  status = 18 // text
	statusSiblings    status = 19 // text
)

var (
	// ErrDraining says that the node is shutting down and takes no new requests. Nothing was
	// executed.
	ErrDraining = errors.New("replication: node is shutting down")
	// ErrBadRequest refuses what no node of this cluster can do: a level of more replicas than
	// there are, a context of something else. Nothing was executed.
	ErrBadRequest = errors.New("replication: bad request")
	// ErrInDoubt says that a write may or may not have happened: the answer did not arrive, or the
	// node could not tell. Writing the same again is harmless if nobody else writes the key
	// meanwhile; else it replaces what they wrote. In a cluster a repetition with the context of a
	// read before the first try leaves that as a sibling, unless only the last write is kept.
	ErrInDoubt = errors.New("replication: outcome unknown")
)

// RemoteError is a failure that the node reports. Its text is the node's. It unwraps to the
// sentinel that the node named (lsm.ErrDiskFull, lsm.ErrReadOnly, lsm.ErrSuspended, lsm.ErrClosed,
// ErrDraining, ErrInDoubt, ErrOverloaded, ErrTooManySiblings, ErrBadRequest,
// context.DeadlineExceeded), or to nothing.
type RemoteError struct {
	Text     string
	Sentinel error
}

func (e *RemoteError) Error() string { return "node: " + e.Text }

func (e *RemoteError) Unwrap() error { return e.Sentinel }

// ApplySizeError is returned by Client.Apply for a batch that does not fit a message. Nothing of
// it was sent.
type ApplySizeError struct{ Bytes int }

func (e *ApplySizeError) Error() string {
	return fmt.Sprintf("replication: batch of %d bytes: at most %d in one call", e.Bytes,
		MaxApplyBytes)
}

// textStatuses are the failures that travel as a sentinel and a text.
var textStatuses = []struct {
	status   status
	sentinel error
}{
	{statusDiskFull, lsm.ErrDiskFull},
	{statusReadOnly, lsm.ErrReadOnly},
	{statusSuspended, lsm.ErrSuspended},
	{statusExpired, context.DeadlineExceeded},
	{statusClosed, lsm.ErrClosed},
	{statusDraining, ErrDraining},
	{statusInDoubt, ErrInDoubt},
	{statusOverloaded, ErrOverloaded},
	{statusSiblings, ErrTooManySiblings},
	{statusBadRequest, ErrBadRequest},
}

// appendError appends the answer that says err. A write whose error is none of the known ones is
// in doubt: the engine cannot say how far it came.
func appendError(dst []byte, err error, write bool) []byte {
	if errors.Is(err, lsm.ErrNotFound) {
		return append(dst, byte(statusNotFound))
	}
	if e, ok := errors.AsType[*lsm.KeySizeError](err); ok {
		return appendSize(dst, statusKeySize, e.Bytes)
	}
	if e, ok := errors.AsType[*lsm.ValueSizeError](err); ok {
		return appendSize(dst, statusValueSize, e.Bytes)
	}
	if e, ok := errors.AsType[*lsm.BatchSizeError](err); ok {
		return appendSize(dst, statusBatchSize, e.Bytes)
	}
	if write && (errors.Is(err, lsm.ErrInDoubt) || errors.Is(err, context.DeadlineExceeded)) {
		return appendText(dst, statusInDoubt, err)
	}
	for _, t := range textStatuses {
		if errors.Is(err, t.sentinel) {
			return appendText(dst, t.status, err)
		}
	}
	if e, ok := errors.AsType[*lsm.CorruptError](err); ok {
		dst = append(dst, byte(statusCorrupt))
		dst = appendField(dst, []byte(e.File))
		dst = binary.AppendVarint(dst, e.Offset)
		return appendField(dst, []byte(e.Reason))
	}
	if _, ok := errors.AsType[*MessageError](err); ok {
		return appendText(dst, statusBadRequest, err)
	}
	if write {
		return appendText(dst, statusInDoubt, fmt.Errorf("%w: %w", ErrInDoubt, err))
	}
	return appendText(dst, statusFailed, err)
}

func appendSize(dst []byte, s status, size int) []byte {
	return binary.AppendUvarint(append(dst, byte(s)), uint64(size))
}

func appendText(dst []byte, s status, err error) []byte {
	return appendField(append(dst, byte(s)), []byte(err.Error()))
}

// decodeAnswer splits an answer in its body, when the status is OK, and the error it tells.
func decodeAnswer(msg []byte) (body []byte, err error) {
	if len(msg) == 0 {
		return nil, &MessageError{Reason: "empty answer"}
	}
	if status(msg[0]) == statusOK {
		return msg[1:], nil
	}
	d := decoder{rest: msg[1:]}
	err = d.failure(status(msg[0]))
	if d.reason == "" && len(d.rest) > 0 {
		d.fail("trailing bytes")
	}
	if d.reason != "" {
		return nil, &MessageError{Reason: fmt.Sprintf("answer %d: %s", msg[0], d.reason)}
	}
	return nil, err
}

// failure reads what follows a status other than OK.
func (d *decoder) failure(s status) error {
	switch s {
	case statusNotFound:
		return lsm.ErrNotFound
	case statusKeySize:
		return &lsm.KeySizeError{Bytes: d.size()}
	case statusValueSize:
		return &lsm.ValueSizeError{Bytes: d.size()}
	case statusBatchSize:
		return &lsm.BatchSizeError{Bytes: d.size()}
	case statusCorrupt:
		file, offset, reason := d.field(), d.varint(), d.field()
		return &lsm.CorruptError{File: string(file), Offset: offset, Reason: string(reason)}
	case statusUnavailable:
		return &UnavailableError{Need: d.size(), Got: d.size()}
	case statusInDoubtOf:
		return &InDoubtError{Need: d.size(), Got: d.size()}
	case statusEpoch:
		return &EpochError{Have: d.uvarint(), Want: d.uvarint()}
	case statusFailed:
		return &RemoteError{Text: string(d.field())}
	}
	for _, t := range textStatuses {
		if s == t.status {
			return &RemoteError{Text: string(d.field()), Sentinel: t.sentinel}
		}
	}
	d.fail("unknown status")
	return nil
}

func (d *decoder) size() int {
	n := d.uvarint()
	if n > 1<<40 {
		d.fail("size out of range")
		return 0
	}
	return int(n)
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}
