package lsm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"kvd/compaction"
	"kvd/lsm/procs"
	"kvd/sstable"
)

// compactionInput reads a table from front to back without pushing others out of the cache.
var compactionInput = sstable.IterOptions{NoFill: true, ReadaheadBytes: 256 << 10}

// compactRetryMin and compactRetryMax bound the pause after a compaction that failed; it doubles as
// long as they fail. One that the disk is too small for takes all the room that is left before it
// fails, and for that time commits and flushes are refused: not too often, therefore. But until it
// succeeds the pacer holds writers back: not too seldom either.
const (
	compactRetryMin = time.Second
	compactRetryMax = 10 * time.Second
)

// merge is a compaction that runs.
type merge struct {
	compaction.Job
	offered int           // goroutines it may use
	workers int           // those it has use for
	looped  bool          // run by a compactLoop
	read    atomic.Uint64 // entries
}

// compactLoop runs what the picker finds, one job at a time. There are compaction.WorkersMax loops;
// compaction.Workers says how many goroutines may be at work.
func (db *DB) compactLoop() {
	defer db.loops.Done()
	for {
		m := db.awaitJob()
		if m == nil {
			return
		}
		db.endJob(m, db.runJob(db.ctx, m))
	}
}

// awaitJob begins the next job. It returns nil when the DB is closing.
func (db *DB) awaitJob() *merge {
	db.mu.Lock()
	defer db.mu.Unlock()
	for {
		if db.closing {
			return nil
		}
		f := db.failure.Load()
		free := db.workersMax - db.workers
		may := (f == nil || f.passes) && free > 0
		if may && !time.Now().Before(db.retryAfter) {
			levels := &db.state.Load().version.levels
			job, ok := db.picker.Pick(levels, db.isBusyLocked)
			if !ok && db.takeCalmLocked(db.published.seq()) {
				job, ok = db.picker.PickIdle(levels, db.isBusyLocked)
			}
			if ok {
				m := &merge{Job: job, offered: free, looped: true}
				if job.Level == 0 { // what others use now comes free long before it ends
					m.offered = max(free, db.workersMax/2)
				}
				m.workers = job.Workers(m.offered)
				db.workers += m.workers
				db.beginJobLocked(m)
				return m
			}
		}
		db.work.Wait()
	}
}

// isBusyLocked reports whether a compaction must leave the table alone.
func (db *DB) isBusyLocked(num uint64) bool { return db.busy[num] || db.damaged[num] != "" }

func (db *DB) beginJobLocked(m *merge) {
	db.jobs++
	db.merges[m] = struct{}{}
	for _, tables := range m.Inputs {
		for _, t := range tables {
			db.busy[t.Num] = true
		}
	}
}

// endJob gives the tables of a job free again. After a failure it decides what follows: damaged
// tables stay out of further compactions, so that damage is neither copied nor tried for ever;
// anything else is tried again a little later.
func (db *DB) endJob(m *merge, err error) {
	job := &m.Job
	damaged := damagedInputs(job, err)
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, ErrClosed)
	switch {
	case len(damaged) > 0:
		db.counters.corruptions.Add(1)
		db.log.Error("compaction found damage; it leaves these tables as they are",
			"job", job.String(), "tables", damaged, "error", err)
	case err != nil && !ended && job.Idle:
		db.log.Error("compaction failed; it can wait", "job", job.String(), "error", err)
	case err != nil && !ended:
		db.log.Error("compaction failed; trying again", "job", job.String(), "error", err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.jobs--
	delete(db.merges, m)
	if m.looped {
		db.workers -= m.workers
	}
	for _, tables := range job.Inputs {
		for _, m := range tables {
			delete(db.busy, m.Num)
		}
	}
	for _, num := range damaged {
		db.damaged[num] = tableName(db.dir, num)
	}
	switch {
	case err == nil:
		db.retryPause = 0
	case len(damaged) == 0 && !ended:
		db.retryPause = min(max(2*db.retryPause, compactRetryMin), compactRetryMax)
		db.retryAfter = time.Now().Add(db.retryPause)
		time.AfterFunc(db.retryPause, db.wake)
	}
	if err != nil {
		db.repaceLocked() // what it had read does not count any more
	}
	if db.idle != nil && !db.closing {
		db.idle.Reset(idleAfter)
	}
	db.work.Broadcast()
}

// damagedInputs returns the numbers of the inputs that made a job fail by being damaged: the one
// that the error names, or all if they do not hold as many entries as they should. An output that
// does not read back says nothing of them.
func damagedInputs(job *compaction.Job, err error) (nums []uint64) {
	corrupt, isCorrupt := errors.AsType[*CorruptError](err)
	if _, isCount := errors.AsType[*compaction.CountError](err); !isCorrupt && !isCount {
		return nil
	}
	for _, tables := range job.Inputs {
		for _, m := range tables {
			if isCorrupt && corrupt.File == tableName(filepath.Dir(corrupt.File), m.Num) {
				return []uint64{m.Num}
			}
			nums = append(nums, m.Num)
		}
	}
	if isCorrupt {
		return nil
	}
	return nums
}

func (db *DB) wake() {
	db.mu.Lock()
	db.work.Broadcast()
	db.mu.Unlock()
}

// runJob does one compaction and installs its result.
func (db *DB) runJob(ctx context.Context, m *merge) error {
	if !m.Move {
		procs.Begin()
		defer procs.End()
	}
	job := &m.Job
	s := db.acquireState() // keeps the inputs open
	if s == nil {
		return ErrClosed
	}
	defer db.releaseState(s)
	inputs := make(map[uint64]*table)
	for _, level := range []int{job.Level, job.Target} {
		for _, t := range s.version.tables[level] {
			inputs[t.meta.Num] = t
		}
	}
	db.mu.Lock()
	snapshots := db.snapshotSeqsLocked()
	db.mu.Unlock()

	began, mark := time.Now(), db.names.mark()
	result, err := compaction.Run(ctx, *job, db.opts.Compaction, compaction.Env{
		Workers: m.offered,
		Read:    &m.read,
		Open: func(meta *sstable.Meta) (sstable.Iterator, error) {
			t := inputs[meta.Num]
			it := &namedIter{name: t.name}
			it.Init(t.reader, compactionInput)
			return it, nil
		},
		Create:    func(level int) (compaction.Output, error) { return db.createTable(level) },
		Snapshots: snapshots,
	})
	if err != nil {
		return err
	}
	e := &edit{}
	for i := range result.Added {
		e.added = append(e.added, leveledTable{job.Target, &result.Added[i]})
	}
	if !job.Move && len(result.Added) > 0 {
		if err := db.names.sync(mark); err != nil {
			db.removeTables(e.added)
			return err
		}
	}
	for i, level := range []int{job.Level, job.Target} {
		for _, m := range job.Inputs[i] {
			e.removed = append(e.removed, removedTable{level, m.Num})
		}
	}
	if err := db.install(e, nil); err != nil {
		return err
	}
	db.countJob(m, &result, time.Since(began))
	return nil
}

func (db *DB) countJob(m *merge, r *compaction.Result, took time.Duration) {
	db.log.Debug("compacted", "job", m.String(), "read", r.Stats.BytesRead,
		"written", r.Stats.BytesWritten, "took", took)
	c := &db.counters
	c.compactions.Add(1)
	if m.Move {
		c.moves.Add(1)
	}
	c.compactedRead.Add(r.Stats.BytesRead)
	c.compactedWritten.Add(r.Stats.BytesWritten)
	db.mu.Lock()
	if !m.Idle { // which may absorb little for what it rewrites
		db.pace.drain.Observe(&m.Job, took*time.Duration(m.workers))
	}
	delete(db.merges, m) // its inputs are gone
	db.repaceLocked()
	db.mu.Unlock()
}

// install makes e durable in the manifest and its version current. flushed, if not nil, is the
// memtable whose contents e adds: the oldest frozen one.
func (db *DB) install(e *edit, flushed *memtable) error {
	added, err := db.openAdded(e)
	if added == nil {
		return err
	}
	db.installing.Lock()
	defer db.installing.Unlock()
	if f := db.failure.Load(); f != nil && !f.passes {
		db.dropOpened(&version{}, added)
		return f.err // nobody knows what the manifest holds: nothing is removed any more
	}
	base := db.state.Load().version // changed only by holders of installing
	opened := added
	for _, level := range base.tables {
		for _, t := range level {
			opened[t.meta.Num] = t
		}
	}
	var next *version
	if err == nil {
		next, err = base.with(e, opened)
	}
	if err != nil {
		db.dropOpened(base, opened)
		db.removeTables(base.lacks(e.added))
		return fmt.Errorf("lsm: edit of %d tables: %w", len(e.added)+len(e.removed), err)
	}
	e.nextFile = db.fileNum.Load()
	if err := db.manifest.append(e, func() *edit { return db.wholeEdit(next, e) },
		db.newFileNum); err != nil {
		next.unref()
		db.dropOpened(base, opened)
		if !db.manifest.named { // the old one is in force: whoever wants the edit tries again
			db.removeTables(base.lacks(e.added))
			return fmt.Errorf("lsm: start a manifest: %w", err)
		}
		db.unsettled = append(db.unsettled, base.lacks(e.added)...)
		return db.fail("write the manifest", err)
	}
	db.removeTables(next.lacks(db.unsettled)) // after a failure an edit restates everything
	db.unsettled = nil
	// Not before the edit is durable: the next one may be a compaction's, and restate all this.
	if e.logSegment != 0 {
		db.logSegment, db.logStart = e.logSegment, e.logStart
	}
	db.lastSeq = max(db.lastSeq, e.lastSeq)
	db.mu.Lock()
	defer db.mu.Unlock()
	if flushed != nil {
		db.frozen = db.frozen[1:]
	}
	for _, a := range e.added {
		delete(db.making, a.meta.Num)
	}
	db.setStateLocked(db.state.Load().mem, db.frozen, next)
	return nil
}

// openAdded opens the new tables of an edit, without a lock: a large compaction makes hundreds, and
// a flush that waited for 500 of them held up writers for 100 ms. On an error it returns those that
// are open by then.
func (db *DB) openAdded(e *edit) (map[uint64]*table, error) {
	s := db.acquireState()
	if s == nil {
		return nil, ErrClosed
	}
	defer db.releaseState(s)
	opened := make(map[uint64]*table)
	return opened, db.openTables(s.version.lacks(e.added), opened) // one that is moved is open
}

// dropOpened closes the tables among opened that base does not list.
func (db *DB) dropOpened(base *version, opened map[uint64]*table) {
	for _, level := range base.tables {
		for _, t := range level {
			delete(opened, t.meta.Num)
		}
	}
	for _, t := range opened {
		if err := t.close(); err != nil {
			db.log.Warn("cannot close a table", "file", t.name, "error", err)
		}
	}
}

// removeTables removes the files of new tables that no edit in force names.
func (db *DB) removeTables(added []leveledTable) {
	for _, a := range added {
		db.removeMade(a.meta.Num)
	}
}

// wholeEdit states everything that the manifest has to say of v, the version after e.
func (db *DB) wholeEdit(v *version, e *edit) *edit {
	whole := &edit{
		databaseID: db.databaseID,
		logSegment: db.logSegment,
		logStart:   db.logStart,
		lastSeq:    max(db.lastSeq, e.lastSeq),
		nextFile:   db.fileNum.Load(),
		logEnd:     e.logEnd,
		added:      v.all(),
	}
	if e.logSegment != 0 {
		whole.logSegment, whole.logStart = e.logSegment, e.logStart
	}
	return whole
}

// Compact merges everything between lo and hi, both inclusive and nil meaning open, down to the
// deepest level that has data. It returns when that is done, ctx ends or a job fails. The flush
// that it begins with does not end with ctx. Writes that come meanwhile are not waited for.
func (db *DB) Compact(ctx context.Context, lo, hi []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := db.Flush(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, db.wake)
	defer stop()
	db.mu.Lock()
	defer db.mu.Unlock()
	db.held++
	defer func() { db.held--; db.work.Broadcast() }()
	if db.closing {
		return ErrClosed
	}
	plan := compaction.NewManual(&db.state.Load().version.levels, lo, hi)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if db.closing {
			return ErrClosed
		}
		levels := &db.state.Load().version.levels
		job, step := plan.Next(levels, db.opts.Compaction, db.isBusyLocked)
		switch step {
		case compaction.Done:
			return nil
		case compaction.Blocked:
			if db.jobs == 0 {
				return fmt.Errorf("lsm: compact: %w", errQuarantined)
			}
			db.work.Wait()
			continue
		}
		m := &merge{Job: job, offered: 1, workers: 1}
		db.beginJobLocked(m)
		db.mu.Unlock()
		err := db.runJobWithin(ctx, m)
		db.endJob(m, err)
		db.mu.Lock()
		if err != nil {
			return err
		}
	}
}

var errQuarantined = errors.New("tables in the range are damaged and left as they are")

// runJobWithin is runJob until ctx ends or the DB closes, which is ErrClosed.
func (db *DB) runJobWithin(ctx context.Context, m *merge) error {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(db.ctx, cancel)()
	err := db.runJob(within, m)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return ErrClosed
	}
	return err
}
