package netquic

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// call is one call in flight on a client lane: a slot that is used again and again. Its id is new
// with every use, so that an answer to an earlier use finds nobody.
//
// The caller owns all fields, except that whoever changes state from id to callTaken (the lane's
// reader with an answer, or fail) owns them until it signals done. A caller that gives up changes
// state from id to callFree; when that fails somebody else is about to signal, and it waits.
type call struct {
	index uint64        // of the slot, fixed
	done  chan struct{} // one token per taken call

	state atomic.Uint64 // the id while an answer is awaited, else callFree or callTaken
	timer *time.Timer   // stopped between uses

	id     uint64
	batch  uint64 // groupWriter.taken when the request was queued
	offset int    // of the request's frame in that batch

	dst     []byte // the answer is appended here
	status  uint8
	err     error // instead of a status
	retry   bool  // the call certainly had no effect and may be sent again elsewhere
	inDoubt bool
}

const (
	callFree  = 0
	callTaken = math.MaxUint64

	slotBits = 20 // of an id; the rest counts the uses of the slot
	maxSlots = 1 << slotBits
)

// take makes the taker the owner of the call if it still waits under this id.
func (k *call) take(id uint64) bool { return k.state.CompareAndSwap(id, callTaken) }

// abandon is the caller's taking: after it nobody touches the call any more.
func (k *call) abandon() bool { return k.state.CompareAndSwap(k.id, callFree) }

// wait waits for the answer. It returns nil when the call was answered or failed, and the reason
// when the caller gave up before. timed says that ctx has no deadline, so that ours counts.
func (k *call) wait(ctx context.Context, deadline time.Time, timed bool) error {
	var expired <-chan time.Time
	if timed {
		if k.timer == nil {
			k.timer = time.NewTimer(time.Until(deadline))
		} else {
			k.timer.Reset(time.Until(deadline))
		}
		defer k.timer.Stop()
		expired = k.timer.C
	}
	var err error
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-expired:
		err = ErrTimeout
	}
	if k.abandon() {
		return err
	}
	<-k.done // the answer is being handed over at this moment
	return nil
}

// millisLeft is what a request says about its deadline: at least 1, for 0 means expired.
func millisLeft(deadline time.Time) uint32 {
	left := (time.Until(deadline) + time.Millisecond - 1) / time.Millisecond
	return uint32(min(max(left, 1), math.MaxUint32))
}
