package replication

import (
	"encoding/binary"
	"errors"
	"fmt"

	"kvd/lsm"
)

// ErrOverloaded refuses a request because too many are under way, or because the engine, which
// slows writes down, would not come to it by its deadline. Nothing was executed.
var ErrOverloaded = errors.New("replication: overloaded")

// UnavailableError says that too few replicas answered, or can be reached at all. A write that
// fails with it has not been begun.
type UnavailableError struct{ Need, Got int }

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("replication: unavailable: %d of %d replicas", e.Got, e.Need)
}

// InDoubtError says that a write was begun and that fewer nodes than asked for are known to hold
// it. It may yet come to all of them, or be lost with those that do. It matches ErrInDoubt.
type InDoubtError struct{ Need, Got int }

func (e *InDoubtError) Error() string {
	return fmt.Sprintf("replication: outcome unknown: %d of %d replicas are known to hold the "+
		"write", e.Got, e.Need)
}

func (e *InDoubtError) Unwrap() error { return ErrInDoubt }

// EpochError refuses a request that was made for another placement.
type EpochError struct{ Have, Want uint64 }

func (e *EpochError) Error() string {
	return fmt.Sprintf("replication: the request is of placement %d, the cluster is at %d",
		e.Have, e.Want)
}

// appendOpError appends the answer that says err.
func appendOpError(dst []byte, err error, write bool) []byte {
	two := func(s status, a, b uint64) []byte {
		return binary.AppendUvarint(binary.AppendUvarint(append(dst, byte(s)), a), b)
	}
	if e, ok := errors.AsType[*UnavailableError](err); ok {
		return two(statusUnavailable, uint64(e.Need), uint64(e.Got))
	}
	if e, ok := errors.AsType[*InDoubtError](err); ok {
		return two(statusInDoubtOf, uint64(e.Need), uint64(e.Got))
	}
	if e, ok := errors.AsType[*EpochError](err); ok {
		return two(statusEpoch, e.Have, e.Want)
	}
	_, level := errors.AsType[*LevelError](err)
	_, context := errors.AsType[*ContextError](err)
	if level || context {
		return appendText(dst, statusBadRequest, err)
	}
	return appendError(dst, err, write)
}

// ackOf is what a peer is told of the outcome of its request.
func ackOf(err error) ack {
	if err == nil {
		return ackOK
	}
	if errors.Is(err, lsm.ErrDiskFull) || errors.Is(err, lsm.ErrSuspended) ||
		errors.Is(err, ErrHintsFull) {
		return ackFull
	}
	_, file := errors.AsType[*lsm.CorruptError](err)
	_, object := errors.AsType[*ObjectError](err)
	if file || object {
		return ackCorrupt
	}
	return ackFailed
}
