package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

// load is what clients do to a node in one life of its process. It notes every outcome in the
// record, and has the record judge every read at once.
type load struct {
	t       *testing.T
	rec     *record
	clients []*replication.Client
	choose  func(r *rand.Rand, w *writerRecord) (lsm.Durability, []change)
	patient bool          // calls have no deadlines of their own, only the one of ctx
	fullFor time.Duration // how long a writer pauses when the disk is full; 0: it may not be

	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup // all but the writers
	writing sync.WaitGroup
	acked   atomic.Int64
	doubts  atomic.Int64
	reads   atomic.Int64
	full    []atomic.Int64 // by writer: refused because the disk is full
}

// groupKeys is how many of a writer's keys, the first ones, are only ever written together.
const groupKeys = 5

func (l *load) start(r *rand.Rand, readers int) {
	l.ctx, l.stop = context.WithCancel(l.t.Context())
	l.full = make([]atomic.Int64, len(l.rec.writers))
	for i, w := range l.rec.writers {
		r := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		l.writing.Go(func() { l.write(r, w) })
	}
	for i := range readers {
		r := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		l.wg.Go(func() { l.read(r, l.clients[i%len(l.clients)]) })
	}
}

// end stops the clients and waits for them.
func (l *load) end() {
	l.stop()
	l.writing.Wait()
	l.wg.Wait()
}

// callContext gives a call some time: sometimes less than it needs.
func (l *load) callContext(r *rand.Rand) (context.Context, context.CancelFunc) {
	if l.patient {
		return context.WithCancel(l.ctx)
	}
	if r.IntN(20) == 0 {
		return context.WithTimeout(l.ctx, time.Duration(r.IntN(5000))*time.Microsecond)
	}
	return context.WithTimeout(l.ctx, time.Duration(100+r.IntN(900))*time.Millisecond)
}

// write makes one operation after the other.
func (l *load) write(r *rand.Rand, w *writerRecord) {
	client := l.clients[w.id%len(l.clients)]
	for l.ctx.Err() == nil {
		class, changes := l.choose(r, w)
		if len(changes) == 0 {
			return // all keys are in doubt, or there is nothing left to do
		}
		op := w.begin(class, changes)
		ctx, cancel := l.callContext(r)
		began := time.Now()
		err := send(ctx, client, op)
		cancel()
		full := errors.Is(err, lsm.ErrDiskFull)
		switch {
		case err == nil:
			w.finish(op, outcomeAcked)
			l.acked.Add(1)
			continue
		case errors.Is(err, replication.ErrInDoubt):
			w.finish(op, outcomeDoubt)
			l.doubts.Add(1)
			// The node itself is only in doubt when it could not write its log.
			if _, remote := errors.AsType[*replication.RemoteError](err); remote && l.fullFor == 0 {
				l.t.Errorf("writer %d: %v", w.id, err)
			}
			continue
		case full && l.fullFor > 0:
			l.full[w.id].Add(1)
			if took := time.Since(began); took > 5*time.Second {
				l.t.Errorf("writer %d: it took %v to say that the disk is full", w.id, took)
			}
		case !endOfNode(err):
			l.t.Errorf("writer %d: %v", w.id, err)
		}
		w.finish(op, outcomeRefused)
		pause := time.Millisecond
		if full {
			pause = l.fullFor
		}
		select {
		case <-l.ctx.Done():
		case <-time.After(pause):
		}
	}
}

// endOfNode tells the errors that a client gets because the node ends, is stopped or slow.
func endOfNode(err error) bool {
	_, call := errors.AsType[*netquic.CallError](err)
	return call || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, replication.ErrDraining) || errors.Is(err, replication.ErrOverloaded)
}

// send makes the call of an operation.
func send(ctx context.Context, c *replication.Client, op *operation) error {
	first := op.changes[0]
	if len(op.changes) == 1 && first.size < 0 {
		return c.Delete(ctx, []byte(first.key), op.class)
	}
	if len(op.changes) == 1 {
		return c.Put(ctx, []byte(first.key), appendValue(nil, first.key, op.n, first.size), op.class)
	}
	var b lsm.Batch
	for _, ch := range op.changes {
		if ch.size < 0 {
			b.Delete([]byte(ch.key))
		} else {
			b.Put([]byte(ch.key), appendValue(nil, ch.key, op.n, ch.size))
		}
	}
	return c.Apply(ctx, &b, op.class)
}

// free returns a key behind the group that is not in doubt, and empty when it finds none.
func (w *writerRecord) free(r *rand.Rand) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range 20 {
		name := w.names[groupKeys+r.IntN(len(w.names)-groupKeys)]
		if !w.keys[name].inDoubt() {
			return name
		}
	}
	return ""
}

func (w *writerRecord) groupInDoubt() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys[w.names[0]].inDoubt() // all or none of them
}

// chooseMixed chooses an operation of any kind. Half of the writers keep to one durability class.
func chooseMixed(r *rand.Rand, w *writerRecord) (lsm.Durability, []change) {
	class := lsm.Durability(w.id % 6)
	if class > lsm.NoSync {
		class = lsm.Durability(r.IntN(3))
	}
	switch pick := r.IntN(100); {
	case pick < 10 && !w.groupInDoubt():
		// The group has one fate: all of it deleted, or all of it written.
		size := 20 + r.IntN(300)
		if r.IntN(8) == 0 {
			size = -1
		}
		var changes []change
		for _, name := range w.names[:groupKeys] {
			changes = append(changes, change{name, size})
		}
		return class, changes
	case pick < 25:
		var changes []change
		for range 2 + r.IntN(10) {
			name := w.free(r)
			taken := slices.ContainsFunc(changes, func(c change) bool { return c.key == name })
			if name != "" && !taken {
				changes = append(changes, change{name, mixedSize(r)})
			}
		}
		return class, changes
	default:
		name := w.free(r)
		if name == "" {
			return class, nil
		}
		return class, []change{{name, mixedSize(r)}}
	}
}

// mixedSize is mostly small, sometimes more than a memtable; one in seven deletes.
func mixedSize(r *rand.Rand) int {
	switch pick := r.IntN(1000); {
	case pick < 140:
		return -1
	case pick < 150:
		return 0
	case pick < 950:
		return r.IntN(900)
	case pick < 995:
		return 4000 + r.IntN(12000)
	case pick < 999:
		return 50000 + r.IntN(150000)
	default:
		return 300000 + r.IntN(500000)
	}
}

// read reads single keys, groups and ranges, and never sees an older state than before.
func (l *load) read(r *rand.Rand, client *replication.Client) {
	low := map[string]int{}
	for l.ctx.Err() == nil {
		w := l.rec.writers[r.IntN(len(l.rec.writers))]
		ctx, cancel := l.callContext(r)
		var err error
		switch pick := r.IntN(10); {
		case pick < 7:
			err = l.readKey(ctx, client, w, w.names[r.IntN(len(w.names))], low)
		case pick < 9:
			err = l.readRange(ctx, client, w, 0, groupKeys, low)
		default:
			from := r.IntN(len(w.names))
			err = l.readRange(ctx, client, w, from, min(from+1+r.IntN(20), len(w.names)), low)
		}
		cancel()
		if err == nil {
			l.reads.Add(1)
			continue
		}
		if !endOfNode(err) {
			l.t.Errorf("reader: %v", err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (l *load) readKey(ctx context.Context, client *replication.Client, w *writerRecord, key string,
	low map[string]int) error {
	floor := max(low[key], w.floor(key))
	value, err := client.Get(ctx, []byte(key), nil)
	if err != nil && !errors.Is(err, lsm.ErrNotFound) {
		return err
	}
	low[key], err = w.seen(key, value, err == nil, floor)
	return err
}

// readRange scans the keys [from, to) of a writer. The keys of its group must be of one operation.
func (l *load) readRange(ctx context.Context, client *replication.Client, w *writerRecord,
	from, to int, low map[string]int) error {
	floors := map[string]int{}
	for _, key := range w.names[from:to] {
		floors[key] = max(low[key], w.floor(key))
	}
	there := map[string][]byte{}
	upper := append([]byte(w.names[to-1]), 0)
	previous := ""
	err := client.Scan(ctx, []byte(w.names[from]), upper, 0, func(key, value []byte) error {
		if string(key) <= previous {
			return fmt.Errorf("scan: %q after %q", key, previous)
		}
		previous = string(key)
		if _, ok := floors[previous]; !ok {
			return fmt.Errorf("scan: %q, which nobody wrote", key)
		}
		there[previous] = bytes.Clone(value)
		return nil
	})
	if err != nil {
		return err
	}
	for key, floor := range floors {
		value, ok := there[key]
		if low[key], err = w.seen(key, value, ok, floor); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	if from == 0 && to == groupKeys {
		return oneOperation(w, there)
	}
	return nil
}

// oneOperation checks that a group of keys was read as one operation wrote it: with its number, or
// not at all.
func oneOperation(w *writerRecord, there map[string][]byte) error {
	var first []byte
	for i, name := range w.names[:groupKeys] {
		number := []byte("absent")
		if value, ok := there[name]; ok {
			number = value[len(name) : len(name)+bytes.IndexByte(value[len(name)+1:], '#')+1]
		}
		if i == 0 {
			first = number
		} else if !bytes.Equal(number, first) {
			return fmt.Errorf("batch in part: %s is of %s, %s of %s", w.names[0], first, name, number)
		}
	}
	return nil
}

// scanned reads everything by a scan. A machine that was suspended may make it run out of time.
func scanned(ctx context.Context, client *replication.Client) (map[string][]byte, error) {
	for tries := 1; ; tries++ {
		there := map[string][]byte{}
		err := client.Scan(ctx, nil, nil, 0, func(key, value []byte) error {
			there[string(key)] = bytes.Clone(value)
			return nil
		})
		if err == nil || !endOfNode(err) || tries == 5 {
			return there, err
		}
	}
}

// contents reads everything of a node that nobody writes to by a scan, and some of it again by
// gets, which must agree.
func contents(ctx context.Context, r *rand.Rand, client *replication.Client, rec *record) (
	map[string][]byte, error) {
	there, err := scanned(ctx, client)
	if err != nil {
		return nil, err
	}
	count := 0
	err = client.ScanKeys(ctx, nil, nil, 0, func(key []byte) error {
		count++
		if _, ok := there[string(key)]; !ok {
			return fmt.Errorf("a scan of the keys finds %q, one of the pairs does not", key)
		}
		return nil
	})
	if err == nil && count != len(there) {
		err = fmt.Errorf("a scan of the keys finds %d, one of the pairs %d", count, len(there))
	}
	if err != nil {
		return nil, err
	}
	var gets errgroup.Group
	for range 24 {
		w := rec.writers[r.IntN(len(rec.writers))]
		key := w.names[r.IntN(len(w.names))]
		gets.Go(func() error {
			value, err := client.Get(ctx, []byte(key), nil)
			want, ok := there[key]
			if errors.Is(err, lsm.ErrNotFound) && !ok {
				return nil
			}
			if err != nil || !ok || !bytes.Equal(value, want) {
				return fmt.Errorf("get of %s: %s, %w; the scan has %s", key,
					shortValue(value, err == nil), err, shortValue(want, ok))
			}
			return nil
		})
	}
	return there, gets.Wait()
}

// checkpoint takes a checkpoint under load and looks into it: it is sound, and each key is in a
// state that it had meanwhile.
func (l *load) checkpoint(client *replication.Client, dir string) error {
	floors := map[string]int{}
	for _, w := range l.rec.writers {
		for _, name := range w.names {
			floors[name] = w.floor(name)
		}
	}
	defer os.RemoveAll(dir)
	if err := client.Checkpoint(l.ctx, dir); err != nil {
		return err
	}
	db, err := lsm.Open(dir, lsm.Options{ReadOnly: true, CacheBytes: -1})
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", filepath.Base(dir), err)
	}
	for key, floor := range floors {
		value, err := db.Get([]byte(key))
		if err == nil || errors.Is(err, lsm.ErrNotFound) {
			_, err = l.rec.writerOf(key).seen(key, value, err == nil, floor)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("checkpoint: %w", err), db.Close())
		}
	}
	return db.Close()
}
