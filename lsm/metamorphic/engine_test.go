package metamorphic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

// database is what a list can do to a database: lsm.DB, or one of those that are wrong on purpose.
type database interface {
	Put(key, value []byte, d lsm.Durability) error
	Delete(key []byte, d lsm.Durability) error
	Apply(b *lsm.Batch, d lsm.Durability) error
	Get(key []byte) ([]byte, error)
	GetTo(dst, key []byte) ([]byte, error)
	NewIter(o lsm.IterOptions) *lsm.Iter
	NewSnapshot() *lsm.Snapshot
	Flush() error
	Compact(ctx context.Context, lo, hi []byte) error
	Checkpoint(dir string) error
	Check() error
	Scrub(ctx context.Context) (lsm.ScrubReport, error)
	Metrics() lsm.Metrics
	Close() error
}

// opened is the database or an open checkpoint.
type opened struct {
	database
	dir      string
	readOnly bool
	sequence uint64 // of the last Metrics

	compacting sync.WaitGroup
	compactErr atomic.Pointer[error] // of one of them
}

type openIter struct {
	*lsm.Iter
	of string
}

// figures count what replays did.
type figures struct {
	operations, recoveries, crashes, lost int64

	levels map[string]int // by plan: a bit for each level that had tables
}

func (f *figures) add(g *figures) {
	f.operations += g.operations
	f.recoveries += g.recoveries
	f.crashes += g.crashes
	f.lost += g.lost
	if f.levels == nil {
		f.levels = map[string]int{}
	}
	for name, mask := range g.levels {
		f.levels[name] |= mask
	}
}

// engine replays a list against a database under one plan.
type engine struct {
	plan  plan
	wrap  func(*lsm.DB) database // nil leaves it as it is
	trace *trace
	mem   *vfs.Mem
	opens int
	step  int

	targets map[string]*opened
	snaps   map[string]*lsm.Snapshot
	iters   map[string]*openIter

	heldBack bool // a snapshot may have made a compaction keep what is not live

	// How many ops are safe: from a loss of power, from the death of the process.
	durable, written int

	figures
}

// mismatch is where a database differs from the model.
type mismatch struct {
	plan      plan
	at        int // index of the op; behind the last when it shows at the end
	op        op
	got, want string
}

func (m *mismatch) String() string {
	return fmt.Sprintf("op %d, %s\n\t%s gives  %s\n\tthe model says  %s", m.at+1, m.op, m.plan.name,
		m.got, m.want)
}

// replay runs a list under a plan and returns the first difference to the model, nil if there is
// none.
func replay(ops []op, t *trace, p plan, wrap func(*lsm.DB) database, f *figures) *mismatch {
	e := &engine{plan: p, wrap: wrap, trace: t, mem: vfs.NewMem()}
	e.targets = map[string]*opened{}
	e.snaps = map[string]*lsm.Snapshot{}
	e.iters = map[string]*openIter{}
	e.levels = map[string]int{}
	defer func() { f.add(&e.figures) }()
	end := op{"the end"}
	if err := e.open("db", "data", false); err != nil {
		return &mismatch{p, -1, op{"open"}, err.Error(), "ok"}
	}
	for i, o := range ops {
		e.step = i
		if got := e.guarded(o); got != t.history[i] {
			if !strings.HasPrefix(got, "panic") {
				_ = e.closeAll() // the mismatch is the one to tell
			}
			return &mismatch{p, i, o, got, t.history[i]}
		}
		e.operations++
	}
	e.step = len(ops)
	if err := e.finish(); err != nil {
		return &mismatch{p, len(ops), end, err.Error(), "ok"}
	}
	return nil
}

// guarded turns a panic into a result, so that the list that leads to it can be shrunk.
func (e *engine) guarded(o op) (result string) {
	defer func() {
		if r := recover(); r != nil {
			result = fmt.Sprintf("panic: %v", r)
		}
	}()
	result = e.do(o)
	if e.checks(o) {
		if err := e.check(); err != nil {
			return fmt.Sprintf("%s, but check finds: %v", result, err)
		}
	}
	return result
}

// checks says whether the tree is looked at after an op: always when the op is about the tree, now
// and then when it is a write that may have started something.
func (e *engine) checks(o op) bool {
	switch o[0] {
	case "flush", "compact", "checkpoint", "reopen", "crash":
		return true
	case "put", "delete", "batch", "close", "drop":
		return e.step%checkEvery == 0
	}
	return false
}

const checkEvery = 4

func (e *engine) check() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(e.targets)) {
		t := e.targets[name]
		if err := t.Check(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		for level, l := range t.Metrics().Levels {
			if l.Tables > 0 {
				e.levels[e.plan.name] |= 1 << level
			}
		}
	}
	return errors.Join(errs...)
}

func (e *engine) open(name, dir string, readOnly bool) error {
	o := e.plan.at(e.opens).options(e.mem)
	o.ReadOnly = readOnly
	e.opens++
	db, err := lsm.Open(dir, o)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	e.recoveries++
	t := &opened{database: db, dir: dir, readOnly: readOnly}
	if e.wrap != nil {
		t.database = e.wrap(db)
	}
	e.targets[name] = t
	return nil
}

// close closes a target and all that hangs on it.
func (e *engine) close(name string) error {
	var errs []error
	for slot, it := range e.iters {
		if it.of == name {
			errs = append(errs, it.Close())
			delete(e.iters, slot)
		}
	}
	if name == "db" {
		for slot, s := range e.snaps {
			errs = append(errs, s.Close())
			delete(e.snaps, slot)
		}
	}
	t := e.targets[name]
	delete(e.targets, name)
	errs = append(errs, t.Close())
	t.compacting.Wait()
	if err := t.compactErr.Load(); err != nil {
		errs = append(errs, *err)
	}
	return errors.Join(errs...)
}

func (e *engine) closeAll() error {
	var errs []error
	for _, name := range slices.Collect(maps.Keys(e.targets)) {
		errs = append(errs, e.close(name))
	}
	if n := e.mem.OpenFiles(); n != 0 {
		errs = append(errs, fmt.Errorf("%d files are left open", n))
	}
	return errors.Join(errs...)
}

// finish is the end of a list: a close, an open that finds everything, a close.
func (e *engine) finish() error {
	if err := e.closeAll(); err != nil {
		return err
	}
	if err := e.open("db", "data", false); err != nil {
		return err
	}
	got, err := pairsOf(e.targets["db"].NewIter(lsm.IterOptions{}), "forward")
	if err == nil && !samePairs(got, e.trace.after[e.step]) {
		err = fmt.Errorf("opened at the end %s, want %s", listing(got),
			listing(e.trace.after[e.step]))
	}
	return errors.Join(err, e.check(), e.closeAll())
}

func (e *engine) safe() { e.durable, e.written = e.step+1, e.step+1 }

// result is what an op without an answer gives.
func result(err error) string {
	if err == nil {
		return "ok"
	}
	if k, ok := errors.AsType[*lsm.KeySizeError](err); ok {
		return fmt.Sprintf("key of %d bytes refused", k.Bytes)
	}
	if v, ok := errors.AsType[*lsm.ValueSizeError](err); ok {
		return fmt.Sprintf("value of %d bytes refused", v.Bytes)
	}
	if errors.Is(err, lsm.ErrNotFound) {
		return "not found"
	}
	if errors.Is(err, lsm.ErrReadOnly) {
		return "read only"
	}
	return err.Error()
}

func (e *engine) do(o op) string {
	switch o[0] {
	case "put", "delete", "batch":
		return e.write(o)
	case "get":
		return e.get(o)
	case "snapshot":
		if s := e.snaps[o[1]]; s != nil {
			_ = s.Close()
		}
		e.snaps[o[1]] = e.targets["db"].NewSnapshot()
		e.heldBack = true
		return "ok"
	case "drop":
		s := e.snaps[o[1]]
		if s == nil {
			return skipped
		}
		delete(e.snaps, o[1])
		err := s.Close()
		if again := s.Close(); !errors.Is(again, lsm.ErrClosed) {
			return fmt.Sprintf("a second close: %v", again)
		}
		return result(err)
	case "iter", "first", "last", "seekge", "seeklt", "next", "prev", "close":
		return e.iterate(o)
	case "scan":
		it := e.newIter(o[1], o[2], o[3])
		if it == nil {
			return skipped
		}
		pairs, err := pairsOf(it, o[4])
		if err != nil {
			return err.Error()
		}
		return listing(pairs)
	case "flush":
		e.safe()
		return result(e.targets["db"].Flush())
	case "compact":
		return e.compact(o)
	case "compacting":
		e.compacting(o)
		return "ok"
	case "checkpoint":
		return e.checkpoint(o)
	case "leave":
		return e.leave(o[1])
	case "reopen":
		e.safe()
		if err := e.close("db"); err != nil {
			return err.Error()
		}
		return e.openAndList("db", "data", false)
	case "readonly":
		return e.lookReadOnly()
	case "crash":
		return e.crash(o)
	case "metrics":
		return e.metrics()
	case "scrub":
		report, err := e.targets["db"].Scrub(context.Background())
		if err == nil && report.Found > 0 {
			return fmt.Sprintf("damage: %+v", report)
		}
		return result(err)
	}
	return "no such verb"
}

func (e *engine) write(o op) string {
	t := e.targets[o[1]]
	if t == nil {
		return skipped
	}
	at := 2
	if o[0] != "batch" {
		at = len(o) - 1
	}
	d := durabilities[o[at]]
	if forced := e.plan.at(e.opens - 1).durability; forced >= 0 {
		d = lsm.Durability(forced)
	}
	if o[1] != "db" {
		d = lsm.Sync // so that what a crash leaves of a checkpoint is known
	}
	var err error
	switch o[0] {
	case "put":
		err = t.Put(keyOf(o[2]), valueOf(o[3]), d)
	case "delete":
		err = t.Delete(keyOf(o[2]), d)
	default:
		var b lsm.Batch
		for _, w := range writesOf(o) {
			if w.put {
				b.Put(keyOf(w.key), valueOf(w.value))
			} else {
				b.Delete(keyOf(w.key))
			}
		}
		err = t.Apply(&b, d)
	}
	if err == nil && o[1] == "db" {
		if d == lsm.Sync {
			e.durable = e.step + 1
		}
		if d != lsm.NoSync {
			e.written = e.step + 1
		}
	}
	return result(err)
}

func (e *engine) get(o op) string {
	key := keyOf(o[2])
	if s := e.snaps[o[1]]; s != nil {
		v, err := s.Get(key)
		if err != nil {
			return result(err)
		}
		return digest(v)
	}
	t := e.targets[o[1]]
	if t == nil {
		return skipped
	}
	v, err := t.Get(key)
	to, errTo := t.GetTo([]byte("to"), key)
	switch {
	case result(err) != result(errTo) || string(to) != "to"+string(v):
		return fmt.Sprintf("get: %s, %v; to: %s, %v", digest(v), err, digest(to), errTo)
	case err != nil:
		return result(err)
	case v == nil:
		return "nil"
	}
	return digest(v)
}

func (e *engine) newIter(of, lo, hi string) *lsm.Iter {
	bounds := lsm.IterOptions{Lower: boundOf(lo), Upper: boundOf(hi)}
	if s := e.snaps[of]; s != nil {
		return s.NewIter(bounds)
	}
	if t := e.targets[of]; t != nil {
		return t.NewIter(bounds)
	}
	return nil
}

// pairsOf drains an iterator.
func pairsOf(it *lsm.Iter, way string) (pairs []pair, err error) {
	add := func(k, v []byte) { pairs = append(pairs, pair{string(k), digest(v), ""}) }
	switch way {
	case "all":
		for k, v := range it.All() {
			add(k, v)
		}
	case "reverse":
		for ok := it.Last(); ok; ok = it.Prev() {
			add(it.Key(), it.Value())
		}
	default:
		for ok := it.First(); ok; ok = it.Next() {
			add(it.Key(), it.Value())
		}
	}
	return pairs, it.Close()
}

func (e *engine) iterate(o op) string {
	it := e.iters[o[1]]
	if o[0] == "iter" {
		opened := e.newIter(o[2], o[3], o[4])
		if opened == nil {
			return skipped
		}
		e.iters[o[1]] = &openIter{opened, ownerOf(o[2])}
		if it != nil {
			return result(it.Close())
		}
		return "ok"
	}
	if it == nil {
		return skipped
	}
	n, move := 1, it.Next
	switch o[0] {
	case "close":
		delete(e.iters, o[1])
		return result(it.Close())
	case "first":
		move = it.First
	case "last":
		move = it.Last
	case "seekge":
		move = func() bool { return it.SeekGE(keyOf(o[2])) }
	case "seeklt":
		move = func() bool { return it.SeekLT(keyOf(o[2])) }
	case "prev":
		move = it.Prev
		fallthrough
	default:
		n, _ = strconv.Atoi(o[2])
	}
	var b strings.Builder
	for range n {
		if !move() {
			if err := it.Err(); err != nil {
				return err.Error()
			}
			b.WriteString(" end")
			break
		}
		b.WriteString(" " + shortKey(string(it.Key())) + "=" + digest(it.Value()))
	}
	return "on" + b.String()
}

// compact also knows what a whole compaction leaves: one level, and in it one version of each live
// key. Older versions that a snapshot held back stay until their table is merged again.
func (e *engine) compact(o op) string {
	e.safe()
	t := e.targets["db"]
	err := t.Compact(context.Background(), boundOf(o[1]), boundOf(o[2]))
	if err != nil || o[1] != "-" || o[2] != "-" {
		return result(err)
	}
	return e.compacted(t, true)
}

// compacted checks what a whole compaction has left. The engine's own may have begun a deeper level
// when it was at its end: then another one finds nobody beside it.
func (e *engine) compacted(t *opened, again bool) string {
	levels, entries, m := 0, uint64(0), t.Metrics()
	for _, l := range m.Levels {
		entries += l.Entries
		if l.Tables > 0 {
			levels++
		}
	}
	if levels > 1 && again {
		if err := t.Compact(context.Background(), nil, nil); err != nil {
			return result(err)
		}
		return e.compacted(t, false)
	}
	live := len(e.trace.after[e.step+1])
	if levels > 1 || entries < uint64(live) || entries > uint64(live) && !e.heldBack {
		return fmt.Sprintf("%d entries in %d levels of %d live keys\n%v", entries, levels, live, m)
	}
	return "ok"
}

// compacting compacts while the list goes on, until the database is closed if need be.
func (e *engine) compacting(o op) {
	t := e.targets["db"]
	t.compacting.Go(func() {
		err := t.Compact(context.Background(), boundOf(o[1]), boundOf(o[2]))
		if err != nil && !errors.Is(err, lsm.ErrClosed) && !errors.Is(err, context.Canceled) {
			err = fmt.Errorf("compact beside the list: %w", err)
			t.compactErr.Store(&err)
		}
	})
}

// openAndList opens a target and says what it holds.
func (e *engine) openAndList(name, dir string, readOnly bool) string {
	if err := e.open(name, dir, readOnly); err != nil {
		return err.Error()
	}
	pairs, err := pairsOf(e.targets[name].NewIter(lsm.IterOptions{}), "forward")
	if err != nil {
		return err.Error()
	}
	return listing(pairs)
}

func (e *engine) checkpoint(o op) string {
	e.leave(o[1])
	e.safe()
	dir := fmt.Sprintf("copies/%s-%d", o[1], e.step)
	if err := e.targets["db"].Checkpoint(dir); err != nil {
		return err.Error()
	}
	return e.openAndList(o[1], dir, o[2] == "readonly")
}

// leave closes a checkpoint and removes it.
func (e *engine) leave(name string) string {
	t := e.targets[name]
	if t == nil {
		return skipped
	}
	err := e.close(name)
	names, listErr := e.mem.List(t.dir)
	err = errors.Join(err, listErr)
	for _, base := range names {
		err = errors.Join(err, e.mem.Remove(path.Join(t.dir, base)))
	}
	return result(err)
}

// lookReadOnly opens the database read only in between.
func (e *engine) lookReadOnly() string {
	e.safe()
	if err := e.close("db"); err != nil {
		return err.Error()
	}
	looked := e.openAndList("db", "data", true)
	if e.targets["db"] == nil {
		return looked
	}
	err := e.targets["db"].Put([]byte("k"), nil, lsm.Sync)
	if !errors.Is(err, lsm.ErrReadOnly) {
		return fmt.Sprintf("a put read only: %v", err)
	}
	if err := errors.Join(e.check(), e.close("db")); err != nil {
		return err.Error()
	}
	if opened := e.openAndList("db", "data", false); opened != looked {
		return fmt.Sprintf("read only %s, opened %s", looked, opened)
	}
	return looked
}

func (e *engine) metrics() string {
	for name, t := range e.targets {
		m := t.Metrics()
		wrong := ""
		switch snaps := len(e.snaps); {
		case !t.readOnly && m.State != "healthy":
			wrong = "state"
		case name == "db" && m.Snapshots != snaps || name != "db" && m.Snapshots != 0:
			wrong = fmt.Sprintf("snapshots, there are %d", snaps)
		case m.Corruptions != 0:
			wrong = "corruptions"
		case m.MemtablesFrozen > 2 && !t.readOnly || m.MemtableBytes < 0:
			wrong = "memtables"
		case m.Sequence < t.sequence:
			wrong = fmt.Sprintf("sequence, it was %d", t.sequence)
		case m.CompactionMoves > m.Compactions:
			wrong = "moves"
		case m.WriteAmplification() != 0 && m.WriteAmplification() < 1:
			wrong = "write amplification"
		}
		t.sequence = m.Sequence
		for _, l := range m.Levels {
			if (l.Tables == 0) != (l.Bytes == 0) || l.Entries < uint64(l.Tables) {
				wrong = "levels"
			}
		}
		if wrong != "" {
			return fmt.Sprintf("%s: metrics: %s\n%+v\n%v", name, wrong, m, m)
		}
	}
	return "ok"
}

// crash goes on with the disk that a loss of power leaves. What is recovered must be the contents
// after some op, and no safe one may be missing. What was lost is written again, so that the
// history goes on as under the other plans.
func (e *engine) crash(o op) string {
	seed, _ := strconv.ParseUint(o[2], 10, 64)
	r := rand.New(rand.NewPCG(seed, 1))
	db := e.targets["db"]
	var err error
	switch o[3] {
	case "sync":
		err = db.Apply(new(lsm.Batch), lsm.Sync)
		e.durable, e.written = e.step, e.step
	case "flush":
		err = db.Flush()
		e.durable, e.written = e.step, e.step
	}
	if err != nil {
		return err.Error()
	}
	lo := e.durable
	if mode := crashModes[o[1]]; mode == vfs.KeepAll {
		lo = e.written
	}
	copied := map[string]*opened{}
	for _, c := range copies {
		if t := e.targets[c]; t != nil {
			copied[c] = t
		}
	}
	if err := e.losePower(r, crashModes[o[1]]); err != nil {
		return err.Error()
	}
	got, err := e.recoverAll(o[4:], r)
	if err != nil {
		return err.Error()
	}
	text, err := e.restore(got, lo)
	if err != nil {
		return err.Error()
	}
	for _, c := range copies {
		if t := copied[c]; t != nil {
			text += "; " + e.openAndList(c, t.dir, t.readOnly)
		}
	}
	return text
}

func (e *engine) losePower(r *rand.Rand, mode vfs.CrashMode) error {
	e.crashes++
	image := e.mem.Crash(r, mode)
	err := e.closeAll()
	e.mem = image
	return err
}

// recoverAll opens what the loss of power left, first read only if flags ask for it, and again
// after a second loss.
func (e *engine) recoverAll(flags []string, r *rand.Rand) (got []pair, err error) {
	look := func(readOnly bool) ([]pair, error) {
		if err := e.open("db", "data", readOnly); err != nil {
			return nil, err
		}
		return pairsOf(e.targets["db"].NewIter(lsm.IterOptions{}), "forward")
	}
	var peeked []pair
	if slices.Contains(flags, "peek") {
		if peeked, err = look(true); err != nil {
			return nil, err
		}
		if err := e.close("db"); err != nil {
			return nil, err
		}
	}
	if got, err = look(false); err != nil {
		return nil, err
	}
	if slices.Contains(flags, "peek") && !samePairs(got, peeked) {
		return nil, fmt.Errorf("read only %s, then %s", listing(peeked), listing(got))
	}
	if slices.Contains(flags, "again") {
		if err := e.losePower(r, vfs.Random); err != nil {
			return nil, err
		}
		first := got
		if got, err = look(false); err != nil {
			return nil, err
		}
		if !samePairs(got, first) {
			return nil, fmt.Errorf("recovered %s, then %s", listing(first), listing(got))
		}
	}
	return got, nil
}

// restore brings back what was lost. got must be the contents after op lo or a later one.
func (e *engine) restore(got []pair, lo int) (string, error) {
	want := e.trace.after[e.step]
	at := e.step
	for !samePairs(got, e.trace.after[at]) {
		if at--; at < lo {
			return "", fmt.Errorf("recovered %s\nwhich is the contents after none of the ops %d to %d: "+
				"against the last: %s", listing(got), lo, e.step, difference(got, want))
		}
	}
	db := e.targets["db"]
	if at < e.step {
		e.lost++
	}
	for _, p := range got {
		if _, ok := search(want, p.key); !ok {
			if err := db.Delete([]byte(p.key), lsm.NoSync); err != nil {
				return "", err
			}
		}
	}
	for _, p := range want {
		if i, ok := search(got, p.key); ok && got[i].value == p.value {
			continue
		}
		if err := db.Put([]byte(p.key), valueOf(p.text), lsm.NoSync); err != nil {
			return "", err
		}
	}
	if err := db.Apply(new(lsm.Batch), lsm.Sync); err != nil {
		return "", err
	}
	e.safe()
	pairs, err := pairsOf(db.NewIter(lsm.IterOptions{}), "reverse")
	slices.Reverse(pairs)
	return listing(pairs), err
}

// difference says where two contents differ.
func difference(got, want []pair) string {
	var b strings.Builder
	for _, p := range want {
		if i, ok := search(got, p.key); !ok {
			fmt.Fprintf(&b, " %s is missing", shortKey(p.key))
		} else if got[i].value != p.value {
			fmt.Fprintf(&b, " %s is %s, not %s", shortKey(p.key), got[i].value, p.value)
		}
	}
	for _, p := range got {
		if _, ok := search(want, p.key); !ok {
			fmt.Fprintf(&b, " %s is there", shortKey(p.key))
		}
	}
	return b.String()
}
