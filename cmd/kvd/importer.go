package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"kvd/lsm"
)

const (
	importWorkers    = 8
	importBatchBytes = 512 << 10
	importBatchPairs = 256
	importPairBytes  = 16       // what a batch needs for a pair besides key and value, at most
	importQueueBytes = 64 << 20 // of values that wait for a worker
)

// importer moves pairs from a source into a store. A key always goes to the same worker, which
// writes one batch after the other: of two pairs with one key the later one wins, as in the
// source. Memory is bounded by the workers' batches and the items on their way.
type importer struct {
	store   store
	options importOptions
	report  *bulkReport
	show    *progress
	load    func(it item) ([]byte, error)
}

// run imports everything. When it returns nil all of it is durable.
func (im *importer) run(ctx context.Context,
	walk func(context.Context, func(item) error, *bulkReport) error) error {
	group, running := errgroup.WithContext(ctx)
	lanes := make([]chan item, importWorkers)
	waiting := semaphore.NewWeighted(importQueueBytes)
	for i := range lanes {
		lanes[i] = make(chan item, 16)
		group.Go(func() error { return im.work(running, lanes[i], waiting) })
	}
	group.Go(func() error {
		defer func() {
			for _, lane := range lanes {
				close(lane)
			}
		}()
		return walk(running, func(it item) error {
			if im.options.dir == "" {
				it.key = append([]byte(im.options.prefix), it.key...)
			}
			if err := waiting.Acquire(running, it.queued()); err != nil {
				return err
			}
			select {
			case lanes[xxhash.Sum64(it.key)%importWorkers] <- it:
				return nil
			case <-running.Done():
				return running.Err()
			}
		}, im.report)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return im.settle(ctx)
}

// settle makes durable what the batches were not: what is reported as imported survives power
// loss, also what an earlier import left and --resume found.
func (im *importer) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	if err := im.store.Flush(ctx); err != nil {
		return fmt.Errorf("make the import durable: %w", err)
	}
	return nil
}

// work writes the items of one lane in batches.
func (im *importer) work(ctx context.Context, lane <-chan item,
	waiting *semaphore.Weighted) error {
	var b importBatch
	for it := range lane {
		// Before it is written: its batch may wait for the items that wait for this.
		waiting.Release(it.queued())
		value, ok, err := im.fetch(ctx, it)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if b.pairs() > 0 && b.bytes+pairBytes(it.key, value) > importBatchBytes {
			if err := im.write(ctx, &b); err != nil {
				return err
			}
		}
		b.add(it.key, value)
		if b.pairs() >= importBatchPairs {
			if err := im.write(ctx, &b); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return im.write(ctx, &b)
}

// fetch returns the value of an item, and false for one that needs no writing.
func (im *importer) fetch(ctx context.Context, it item) ([]byte, bool, error) {
	name := it.file
	if name == "" {
		name = string(it.key)
	}
	keyMax, valueMax := limits(im.store)
	if it.size > int64(valueMax) { // told without reading it
		err := &lsm.ValueSizeError{Bytes: int(it.size), Max: valueMax}
		im.report.leaveOut(name, err.Error(), it.file == "" || !im.options.skipLarge)
		return nil, false, nil
	}
	value, err := im.load(it)
	if err == nil && len(value) > valueMax {
		err = &lsm.ValueSizeError{Bytes: len(value), Max: valueMax}
	}
	if err == nil && len(it.key) > keyMax {
		err = &lsm.KeySizeError{Bytes: len(it.key), Max: keyMax}
	}
	if err != nil {
		im.report.leaveOut(name, err.Error(), true)
		return nil, false, nil
	}
	if !im.options.resume {
		return value, true, nil
	}
	there, err := im.store.Get(ctx, it.key, nil)
	switch {
	case errors.Is(err, lsm.ErrNotFound):
		return value, true, nil
	case err != nil:
		return nil, false, err
	case !bytes.Equal(there, value):
		return value, true, nil
	}
	im.report.found(it.key, value)
	im.show.add(len(value))
	return nil, false, nil
}

// write applies the batch, reads it back and empties it.
func (im *importer) write(ctx context.Context, b *importBatch) error {
	if b.pairs() == 0 {
		return nil
	}
	b.batch.Reset()
	for i, key := range b.keys {
		b.batch.Put(key, b.values[i])
	}
	step, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	if err := im.store.Apply(step, &b.batch, lsm.Durability(im.options.durability)); err != nil {
		return fmt.Errorf("write: %w (continue with --resume)", err)
	}
	for i, key := range b.keys {
		if im.options.verify {
			var err error
			b.there, err = im.store.Get(step, key, b.there[:0])
			if err != nil {
				return fmt.Errorf("read %s back: %w", printable(key), err)
			}
			if !bytes.Equal(b.there, b.values[i]) {
				return fmt.Errorf("%s reads back different from what was written; "+
					"is somebody else writing it?", printable(key))
			}
		}
		im.report.wrote(key, b.values[i])
		im.show.add(len(b.values[i]))
	}
	if im.options.verify {
		im.report.verify(b.pairs())
	}
	b.reset()
	return nil
}

// importBatch is the pairs of a batch, each key once.
type importBatch struct {
	batch  lsm.Batch
	keys   [][]byte
	values [][]byte
	place  map[string]int // key -> index
	bytes  int            // of what was added, by pairBytes
	there  []byte         // read back
}

// pairBytes bounds the share of one pair in the encoded batch.
func pairBytes(key, value []byte) int { return len(key) + len(value) + importPairBytes }

func (b *importBatch) pairs() int { return len(b.keys) }

func (b *importBatch) add(key, value []byte) {
	if b.place == nil {
		b.place = map[string]int{}
	}
	b.bytes += pairBytes(key, value)
	if i, ok := b.place[string(key)]; ok {
		b.values[i] = value
		return
	}
	b.place[string(key)] = len(b.keys)
	b.keys = append(b.keys, key)
	b.values = append(b.values, value)
}

func (b *importBatch) reset() {
	clear(b.values) // let go of the memory
	b.keys, b.values, b.bytes = b.keys[:0], b.values[:0], 0
	clear(b.place)
}
