package compaction

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"kvd/lsm/procs"
	"kvd/sstable"
)

// yieldBytes is how much input is merged between offers to run something else. The Go scheduler
// preempts a busy goroutine only after 10 ms, and with every processor merging that is what a
// foreground read then waits. 64 KiB is about 50 us of merging. Beside goroutines that do not yield
// it takes turns with them (procs.Yielder).
const yieldBytes = 64 << 10

// Output is a table being written. Add takes entries in ascending order and keeps neither slice.
// Finish makes the table complete, Sync, called after Finish, makes it durable. Abort removes it,
// whatever was called before.
//
// All outputs of a job are synced when the last is finished: each sync waits for the journal of the
// file system, and the first of many in a row waits for the others too. Tables synced one by one as
// they were made cost a job one eighth of its time.
type Output interface {
	Add(k sstable.Key, value []byte) error
	EstimatedBytes() uint64
	Finish() (sstable.Meta, error)
	Sync() error
	Abort()
}

// Env is what a job needs of the world. Its functions are called on several goroutines if there is
// more than one worker.
type Env struct {
	// Workers is how many goroutines may merge. 0 is 1.
	Workers int
	// Read, if not nil, is kept at about the number of entries that have been read.
	Read *atomic.Uint64
	// Open returns an iterator over an input table. Run closes it.
	Open func(*sstable.Meta) (sstable.Iterator, error)
	// Create starts an output table for a level.
	Create func(level int) (Output, error)
	// Snapshots are the sequence numbers of the live snapshots, ascending, taken after the
	// levels the job was picked from. Readers that are not in it must hold on to the inputs, or
	// read at a sequence number they took after they took the levels they read from.
	Snapshots []sstable.Seq
}

// Stats counts the work of one job. A move counts nothing.
type Stats struct {
	BytesRead, BytesWritten uint64
	EntriesIn, EntriesOut   uint64
	Shadowed, Dropped       uint64 // versions no reader can want; tombstones with nothing to hide
}

// Result is what a job made: tables for its target level, sorted by key, not yet installed.
type Result struct {
	Added []sstable.Meta
	Stats Stats
}

// CountError reports that entries were lost or invented between the inputs of a job and its
// outputs. The outputs have been removed; an input table or the memory of the machine is damaged.
type CountError struct {
	What      string
	Want, Got uint64
}

func (e *CountError) Error() string {
	return fmt.Sprintf("compaction: %s: want %d entries, got %d", e.What, e.Want, e.Got)
}

// Run merges the inputs of the job into new tables and returns them. It installs nothing. If it
// fails, or ctx ends, no output is left behind. For a move there is nothing to do: the result is
// the input itself.
func Run(ctx context.Context, j Job, c Config, e Env) (Result, error) {
	if j.Move {
		return Result{Added: []sstable.Meta{*j.Inputs[0][0]}}, nil
	}
	if j.TableBytes == 0 {
		j.TableBytes = c.WithDefaults().TableBytes
	}
	parts := j.split(e.Workers)
	runners := make([]*runner, len(parts))
	merging, within := errgroup.WithContext(ctx)
	for i, p := range parts {
		r := &runner{job: &j, part: p, env: &e, reduce: makeReducer(e.Snapshots, j.Below)}
		r.cut.tableBytes = j.TableBytes
		if len(j.Below) > 0 {
			r.cut.next = j.Below[0]
		}
		runners[i] = r
		merging.Go(func() error { return r.merge(within) })
	}
	err := merging.Wait()
	var all Result
	if err == nil {
		all, err = gather(&j, runners)
	}
	if err == nil {
		syncing, within := errgroup.WithContext(ctx)
		for _, r := range runners {
			syncing.Go(func() error { return r.sync(within) })
		}
		err = syncing.Wait()
	}
	if err != nil {
		for _, r := range runners {
			for _, out := range r.outputs {
				out.Abort()
			}
		}
		return Result{}, err
	}
	return all, nil
}

// gather puts together what the parts of a job have made, and checks it.
func gather(j *Job, runners []*runner) (all Result, err error) {
	all.Stats.BytesRead = j.InputBytes()
	for _, r := range runners {
		for _, m := range r.added {
			if n := len(all.Added); n > 0 &&
				bytes.Compare(all.Added[n-1].Largest.User, m.Smallest.User) >= 0 {
				return all, fmt.Errorf("compaction: output ends at %v, the next starts at %v",
					all.Added[n-1].Largest, m.Smallest)
			}
			all.Added = append(all.Added, m)
			all.Stats.BytesWritten += m.Bytes
		}
		all.Stats.EntriesIn += r.stats.EntriesIn
		all.Stats.EntriesOut += r.stats.EntriesOut
		all.Stats.Shadowed += r.stats.Shadowed
		all.Stats.Dropped += r.stats.Dropped
	}
	return all, all.Stats.check(j)
}

// check verifies that every entry of the inputs was read and accounted for.
func (s *Stats) check(j *Job) error {
	if want := j.inputEntries(); s.EntriesIn != want {
		return &CountError{What: "read from inputs", Want: want, Got: s.EntriesIn}
	}
	if got := s.EntriesOut + s.Shadowed + s.Dropped; got != s.EntriesIn {
		return &CountError{What: "written, shadowed and dropped", Want: s.EntriesIn, Got: got}
	}
	return nil
}

// runner merges one part of a job.
type runner struct {
	job  *Job
	part part
	env  *Env

	reduce  reducer
	cut     cutter
	out     Output // being written, or nil
	first   sstable.Key
	written uint64 // entries given to out
	outputs []Output
	added   []sstable.Meta
	stats   Stats
}

// sources returns the inputs of the part as sorted runs: each level-0 table alone, other levels as
// a whole.
func (r *runner) sources() []sstable.Iterator {
	var its []sstable.Iterator
	add := func(tables []*sstable.Meta) {
		if len(tables) > 0 {
			its = append(its, &source{open: r.env.Open, tables: tables})
		}
	}
	upper := r.job.Inputs[0]
	if r.job.Level > 0 {
		add(r.part.among(upper))
	} else {
		for i := range upper {
			add(r.part.among(upper[i : i+1]))
		}
	}
	add(r.part.among(r.job.Inputs[1]))
	return its
}

// merge reads all of the part once, in order, and writes what the reducer keeps.
func (r *runner) merge(ctx context.Context) (err error) {
	m := sstable.NewMerge(r.sources()...)
	defer func() {
		err = errors.Join(err, m.Close()) // and with it the sources
	}()
	if err := r.copy(ctx, m); err != nil {
		return err
	}
	return r.finish()
}

// copy is the loop over the entries of a merged iterator. It leaves the last output open.
func (r *runner) copy(ctx context.Context, m sstable.Iterator) error {
	credit, told := 0, uint64(0)
	var yielder procs.Yielder
	for ok := r.part.begin(m); ok; ok = m.Next() {
		k := m.Key()
		if !r.part.holds(k.User) {
			break
		}
		credit -= len(k.User) + 8
		if credit < 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if r.env.Read != nil {
				r.env.Read.Add(r.stats.EntriesIn - told)
				told = r.stats.EntriesIn
			}
			yielder.Yield()
			credit += yieldBytes
		}
		r.stats.EntriesIn++
		trailer, v, fresh, err := r.reduce.step(k)
		if err != nil {
			return err
		}
		switch v {
		case shadowed:
			r.stats.Shadowed++
			continue
		case dropped:
			r.stats.Dropped++
			continue
		}
		k.Trailer = trailer
		value := m.Value()
		credit -= len(value)
		if fresh {
			if err := r.place(k); err != nil {
				return err
			}
		}
		if err := r.out.Add(k, value); err != nil {
			return err
		}
		r.written++
		r.stats.EntriesOut++
	}
	return m.Err()
}

// place makes sure that an output is open that a new user key may be added to.
func (r *runner) place(k sstable.Key) error {
	if r.out != nil {
		if !r.cut.before(k.User, r.out.EstimatedBytes()) {
			return nil
		}
		if err := r.finish(); err != nil {
			return err
		}
	}
	out, err := r.env.Create(r.job.Target)
	if err != nil {
		return err
	}
	r.out = out
	r.outputs = append(r.outputs, out)
	r.first = k.Clone()
	r.written = 0
	r.cut.opened(k.User)
	return nil
}

// finish completes the open output, if any, and holds its description against what was written.
func (r *runner) finish() error {
	if r.out == nil {
		return nil
	}
	m, err := r.out.Finish()
	r.out = nil
	if err != nil {
		return err
	}
	if m.Entries != r.written {
		return &CountError{What: "finished table", Want: r.written, Got: m.Entries}
	}
	if sstable.Compare(m.Smallest, r.first) != 0 {
		return fmt.Errorf("compaction: output starts at %v, written from %v", m.Smallest, r.first)
	}
	r.added = append(r.added, m)
	return nil
}

// sync makes all outputs durable.
func (r *runner) sync(ctx context.Context) error {
	for _, out := range r.outputs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := out.Sync(); err != nil {
			return err
		}
	}
	return nil
}
