package replication

import (
	"errors"

	"kvd/lsm"
)

// errWouldWait is the outcome of work that must not wait and would have to.
var errWouldWait = errors.New("replication: the work would have to wait")

// TryDo is Do for what is done in microseconds on the goroutine of whoever wants it: reads of what
// is in memory, and writes of no great size while neither the partition nor the engine makes them
// wait. Everything else it leaves as it is: done is false.
func (r *Replica) TryDo(w *Work) (sync, done bool) {
	switch w.Kind {
	case WorkRead:
	case WorkUpdate, WorkMerge:
		if len(w.Targets) > 0 || w.bytes() > tryBytesMax {
			return false, false // hints are read and written with it
		}
	default:
		return false, false
	}
	w.hurried = true
	sync = r.Do(w)
	w.hurried = false
	return sync, w.Result.Err != errWouldWait
}

// lockFor locks the partition, unless the work must not wait and would have to.
func (p *partition) lockFor(w *Work) bool {
	if w.hurried {
		return p.mu.TryLock()
	}
	p.mu.Lock()
	return true
}

// readFor reads what the work is about.
func (r *Replica) readFor(w *Work) (Object, []byte, error) {
	if !w.hurried {
		return r.read(w.Part, w.Key)
	}
	o, data, done, err := r.tryRead(w.Part, w.Key)
	if !done {
		return Object{}, nil, errWouldWait
	}
	return o, data, err
}

// applyFor writes what has become of it.
func (r *Replica) applyFor(w *Work, b *lsm.Batch) error {
	if !w.hurried {
		return r.store.Apply(b)
	}
	if len(w.Result.Encoded) > tryBytesMax {
		return errWouldWait
	}
	done, err := r.store.TryApply(b)
	if !done {
		return errWouldWait
	}
	return err
}
