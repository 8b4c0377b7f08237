package lsm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kvd/lsm/vfs"
)

const damageDir = "data"

// check damages the specimen and demands: Verify tells of what is needed and of nothing else; Open,
// read only or not, serves what was written or says with a typed error that it cannot; a refused
// Open changes nothing; one that succeeds goes on to work. It returns "" when there was nothing to
// damage.
func (c *damageCell) check() (what string, err error) {
	if !c.prepare() {
		return "", nil
	}
	disk, err := c.s.disk(c.files)
	if err != nil {
		return "", err
	}
	fsys := vfs.NewFault(disk, c.inject)
	want := c.demands()
	found, err := c.verify(fsys, want)
	if err != nil {
		return "", err
	}
	readOnly, err := c.open(fsys, disk, true)
	if err != nil {
		return "", fmt.Errorf("read only: %w", err)
	}
	if err := c.unchanged(disk); err != nil {
		return "", fmt.Errorf("read only: %w", err)
	}
	result, err := c.open(fsys, disk, false)
	if err != nil {
		return "", err
	}
	if n := disk.OpenFiles(); n != 0 {
		return "", fmt.Errorf("%d files left open", n)
	}
	hurt := readOnly != "" || result != ""
	switch {
	case hurt && want.silent:
		return "", fmt.Errorf("%s, %s, although it is %s", readOnly, result, want.why)
	case hurt && !found:
		return "", fmt.Errorf("%s, %s, but Verify says that all is sound", readOnly, result)
	case !hurt && want.harmful:
		return "", errors.New("what must be refused is not")
	case hurt:
		return cmp.Or(readOnly, result), nil
	case found:
		return "only Verify tells: " + cmp.Or(want.why, string(c.u.kind)), nil
	}
	return "harmless: " + want.why, nil
}

// verify demands of Verify what it must find, and where.
func (c *damageCell) verify(fsys vfs.FS, want demand) (found bool, err error) {
	v, err := Verify(fsys, c.s.dir, nil)
	if err != nil {
		return false, fmt.Errorf("Verify: %w", err)
	}
	changed, named, placed := c.changed(), false, false
	for _, d := range v.Damages {
		if err := c.typed(d); err != nil {
			return false, fmt.Errorf("Verify: %w", err)
		}
		for _, name := range changed {
			named = named || strings.Contains(d.Error(), filepath.Base(name))
		}
		e, ok := errors.AsType[*CorruptError](d)
		placed = placed || !ok || e.File == c.u.file && e.Offset >= int64(c.u.from) &&
			e.Offset < int64(c.u.to)
	}
	found = len(v.Damages) > 0
	inPlace := slices.Contains([]string{"bit flip", "zeroed", "random bytes"}, c.fault.name)
	switch {
	case want.silent && found:
		return found, fmt.Errorf("Verify tells of what is %s: %v", want.why, v.Damages)
	case want.find && !found:
		return found, errors.New("Verify says that all is sound")
	case want.find && !named && c.fault.name != "missing" &&
		!(c.u.kind == unitManifest && c.fault.name == "of another database"): // who is the alien?
		return found, fmt.Errorf("Verify does not name the file: %v", v.Damages)
	case want.find && inPlace && onPlace(c.u) && !placed:
		return found, fmt.Errorf("Verify does not name the place: %v", v.Damages)
	}
	return found, nil
}

// typed demands that an error is one that callers are promised.
func (c *damageCell) typed(err error) error {
	corrupt, ok := errors.AsType[*CorruptError](err)
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("damage reads as not found: %w", err)
	case c.inject != nil && c.fault.name == "read error":
		if ok || !errors.Is(err, syscall.EIO) {
			return fmt.Errorf("not the error of the read: %w", err)
		}
		return nil
	case c.inject != nil && errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, ErrFormat):
		return nil
	case !ok:
		return fmt.Errorf("no *CorruptError: %w", err)
	}
	if strings.HasPrefix(string(c.u.kind), "table ") && !slices.Contains(c.changed(), corrupt.File) {
		return fmt.Errorf("accuses another file: %w", err)
	}
	if filepath.Dir(corrupt.File) != c.s.dir || corrupt.Reason == "" || corrupt.Offset < -1 {
		return fmt.Errorf("which place is that? %+v", corrupt)
	}
	return nil
}

// open opens the damaged database and demands right answers or typed errors of everything. A
// result that is not empty says how the damage showed.
func (c *damageCell) open(fsys vfs.FS, disk *vfs.Mem, readOnly bool) (result string, err error) {
	o := tinyOptions(fsys)
	o.ReadOnly = readOnly
	db, err := Open(c.s.dir, o)
	if err != nil {
		if err := c.typed(err); err != nil {
			return "", fmt.Errorf("Open: %w", err)
		}
		if err := c.unchanged(disk); err != nil {
			return "", fmt.Errorf("a refused Open: %w", err)
		}
		return "refused", nil
	}
	d := &damagedDB{c: c, db: db}
	err = d.readAll(nil)
	if err == nil && !readOnly {
		err = d.goOn(disk)
	}
	if closeErr := d.db.Close(); err == nil {
		err = closeErr
	}
	if err == nil && !readOnly {
		err = d.again(o, disk)
	}
	if err == nil && d.failed > 0 {
		result = "read error"
	}
	return result, err
}

// unchanged demands that the files on disk are those of the cell.
func (c *damageCell) unchanged(disk *vfs.Mem) error {
	names, err := disk.List(c.s.dir)
	if err != nil {
		return err
	}
	for _, base := range names {
		name := filepath.Join(c.s.dir, base)
		data, err := disk.ReadFile(name)
		was, ok := c.files[name]
		if err != nil || !bytes.Equal(data, was) || !ok && base != lockName {
			return fmt.Errorf("%s has changed, %w", name, err)
		}
	}
	for name := range c.files {
		if !slices.Contains(names, filepath.Base(name)) {
			return fmt.Errorf("%s is gone", name)
		}
	}
	return nil
}

// damagedDB is a database that opened in spite of damage.
type damagedDB struct {
	c      *damageCell
	db     *DB
	want   map[string]string
	failed int // reads that failed with an error that they may fail with
}

// may takes in the error of a read.
func (d *damagedDB) may(err error) error {
	d.failed++
	return d.c.typed(err)
}

// readAll reads everything in every way. want is nil when it is not known how much of the log there
// is: then the first scan says so, and must have found one of the states that are allowed.
func (d *damagedDB) readAll(want map[string]string) error {
	it := d.db.NewIter(IterOptions{})
	var keys, values []string
	for key, value := range it.All() {
		keys, values = append(keys, string(key)), append(values, string(value))
	}
	scanErr := it.Close()
	if d.want = want; want == nil {
		d.want = d.c.s.state(d.c.s.kept)
		if scanErr == nil {
			got := map[string]string{}
			for i, key := range keys {
				got[key] = values[i]
			}
			if err := d.choose(got); err != nil {
				return err
			}
		}
	}
	all := slices.Sorted(maps.Keys(d.want))
	if err := d.walked("scan", all, keys, values, scanErr); err != nil {
		return err
	}
	snap := d.db.NewSnapshot()
	defer snap.Close()
	it = snap.NewIter(IterOptions{})
	keys, values = nil, nil
	for ok := it.Last(); ok; ok = it.Prev() {
		keys, values = append(keys, string(it.Key())), append(values, string(it.Value()))
	}
	slices.Reverse(all)
	if err := d.walked("scan backward", all, keys, values, it.Close()); err != nil {
		return err
	}
	for i := range specimenKeys {
		key := specimenKey(i)
		for _, get := range []func([]byte) ([]byte, error){d.db.Get, snap.Get} {
			value, err := get([]byte(key))
			right, ok := d.want[key]
			switch {
			case ok && err == nil && string(value) == right:
			case !ok && errors.Is(err, ErrNotFound):
			case err == nil || errors.Is(err, ErrNotFound):
				return fmt.Errorf("Get(%s) = %q, %w, want %q", key, value, err, right)
			default:
				if err := d.may(err); err != nil {
					return fmt.Errorf("Get(%s): %w", key, err)
				}
			}
		}
	}
	return nil
}

// choose accepts any prefix of the commits that reaches as far as somebody vouches for: all of
// them if the database was closed.
func (d *damagedDB) choose(got map[string]string) error {
	s := d.c.s
	for n := len(s.history); n >= 0; n-- { // a stale copy may bring back what was lost unsynced
		state := s.state(n)
		if !maps.Equal(got, state) {
			continue
		}
		if n < s.kept {
			if s.closed || d.c.fault.read {
				break
			}
			for _, f := range s.standing(s.logs, d.c.files) {
				if f.durable > s.history[n].end-1 {
					return fmt.Errorf("ends before commit %d, but all below %d was synced", n, f.durable)
				}
			}
		}
		d.want = state
		return nil
	}
	return fmt.Errorf("silently wrong:%s", difference(got, s.state(s.kept)))
}

// walked demands that a scan went through all, or failed on the way with the right pairs so far.
func (d *damagedDB) walked(what string, all, keys, values []string, err error) error {
	for i, key := range keys {
		if i >= len(all) || key != all[i] || values[i] != d.want[key] {
			return fmt.Errorf("%s: pair %d is %s=%q", what, i, key, values[i])
		}
	}
	if err != nil {
		err = d.may(err)
	} else if len(keys) != len(all) {
		err = fmt.Errorf("ends after %d pairs of %d", len(keys), len(all))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// goOn writes to the database, compacts it, and demands that the rest works, that what is damaged
// stays where it is, and that nothing else is left behind.
func (d *damagedDB) goOn(disk *vfs.Mem) error {
	for round := range 2 {
		for i := range 12 {
			key := specimenKey(i*5 + round)
			value := fmt.Sprintf("after %d %d", round, i)
			if err := d.db.Put([]byte(key), []byte(value), Async); err != nil {
				return fmt.Errorf("Put: %w", err)
			}
			d.want[key] = value
		}
		if err := d.db.Flush(); err != nil {
			return fmt.Errorf("Flush: %w", err)
		}
	}
	err := d.db.Compact(context.Background(), nil, nil)
	if err != nil && !errors.Is(err, errQuarantined) {
		if err := d.may(err); err != nil {
			return fmt.Errorf("Compact: %w", err)
		}
	}
	if err := d.readAll(d.want); err != nil {
		return fmt.Errorf("after writes and a compaction: %w", err)
	}
	if n := d.db.counters.corruptions.Load(); n > 20 {
		return fmt.Errorf("compactions met damage %d times", n)
	}
	s := d.db.acquireState()
	defer d.db.releaseState(s)
	if err := d.db.checkFiles(s.version); err != nil {
		return err
	}
	return d.kept(disk)
}

// kept demands that the files of tables with unreadable blocks are there.
func (d *damagedDB) kept(disk *vfs.Mem) error {
	c := d.c
	if d.failed == 0 {
		return nil
	}
	for _, name := range c.changed() {
		if data, err := disk.ReadFile(name); err != nil || !bytes.Equal(data, c.files[name]) {
			return fmt.Errorf("%s is damaged and was touched: %w", name, err)
		}
	}
	return nil
}

// again opens the database once more.
func (d *damagedDB) again(o Options, disk *vfs.Mem) error {
	db, err := Open(d.c.s.dir, o)
	if err != nil {
		return fmt.Errorf("opened, closed, but not opened again: %w", err)
	}
	d.db = db
	err = d.readAll(d.want)
	if closeErr := db.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	v, err := Verify(disk, d.c.s.dir, nil)
	if err != nil {
		return fmt.Errorf("afterwards, Verify: %w", err)
	}
	for _, damage := range v.Damages {
		if e, ok := errors.AsType[*CorruptError](damage); !ok || !slices.Contains(d.c.changed(), e.File) {
			return fmt.Errorf("afterwards there is %w", damage)
		}
	}
	return nil
}

// damageTally counts outcomes.
type damageTally struct {
	mu    sync.Mutex
	cells int64
	rows  map[[2]string]map[string]int
}

func (y *damageTally) add(u unit, f damageFault, what string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.rows == nil {
		y.rows = map[[2]string]map[string]int{}
	}
	at := [2]string{string(u.kind), f.name}
	if y.rows[at] == nil {
		y.rows[at] = map[string]int{}
	}
	y.rows[at][what]++
	y.cells++
}

func (y *damageTally) print(t *testing.T) {
	var b strings.Builder
	for _, at := range slices.SortedFunc(maps.Keys(y.rows), func(a, b [2]string) int {
		return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]))
	}) {
		total := 0
		for _, n := range y.rows[at] {
			total += n
		}
		fmt.Fprintf(&b, "\n%-20s %-26s %6d", at[0], at[1], total)
		for _, what := range slices.Sorted(maps.Keys(y.rows[at])) {
			fmt.Fprintf(&b, "  %s %d", what, y.rows[at][what])
		}
	}
	t.Logf("damages by kind and fault, with what became of them:%s", b.String())
	count(t, "damages", y.cells)
}

// TestDamageMatrix damages databases of many shapes: every kind of place in every kind of file, in
// every way. The short form takes one place of each kind for each shape and way, in a few layouts;
// with -budget it is all places of those, then samples of further ones.
func TestDamageMatrix(t *testing.T) {
	var tally damageTally
	defer func() { tally.print(t) }()
	if *damageSeed > 0 {
		damageAll(t, &tally, damageCells(t, *damageSeed, false), nil)
		return
	}
	end := time.Now().Add(*budget)
	late := func() bool { return *budget > 0 && time.Now().After(end) }
	for seed := uint64(1); !t.Failed(); seed++ {
		// All of the first layouts, then as many as there is time for.
		damageAll(t, &tally, damageCells(t, seed, *budget == 0 || seed > damageLayouts), late)
		if *budget == 0 && seed == damageSamples || late() {
			return
		}
	}
}

var damageSeed = flag.Uint64("damageseed", 0, "repeat all cells of that layout of TestDamageMatrix")

// damageStep is the share of the cells that is checked: all, but every tenth under the race detector.
const damageStep = 2000 / defaultModelSeeds

// damageSamples is of how many layouts the short form takes a sample.
const damageSamples = 3

// damageLayouts is how many layouts have all of their places damaged in the long form.
const damageLayouts = 3

// damageCells lists the cells of all shapes: of each kind and fault those of all units, or of one.
func damageCells(t *testing.T, seed uint64, sample bool) (cells []*damageCell) {
	for shape := range specimenShapes {
		s := makeSpecimen(t, shape, seed, "")
		r := rand.New(rand.NewPCG(seed, 1<<32|uint64(shape)))
		byKind := map[unitKind][]unit{}
		for _, u := range s.units {
			byKind[u.kind] = append(byKind[u.kind], u)
		}
		for _, kind := range slices.Sorted(maps.Keys(byKind)) {
			units := byKind[kind]
			for _, f := range damageFaults {
				if !f.on(units[0]) {
					continue
				}
				chosen := units
				if sample {
					i := r.IntN(len(units))
					chosen = units[i : i+1]
				}
				for _, u := range chosen {
					turns := 1
					if !sample && f.name == "bit flip" && !u.whole() {
						turns = min(u.to-u.from, 160)
					}
					for turn := range turns {
						own := rand.New(rand.NewPCG(seed, r.Uint64()))
						cells = append(cells, &damageCell{s: s, u: u, fault: f, r: own, turn: turn})
					}
				}
			}
		}
	}
	return cells
}

// damageAll checks cells on all processors.
func damageAll(t *testing.T, tally *damageTally, cells []*damageCell, late func() bool) {
	var wg sync.WaitGroup
	var failures atomic.Int64
	work := make(chan *damageCell)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for c := range work {
				what, err := c.check()
				if err != nil {
					failures.Add(1)
					t.Errorf("%v: %v\nrepeat it with -run TestDamageMatrix -damageseed %d", c, err, c.s.seed)
				} else if what != "" {
					tally.add(c.u, c.fault, what)
				}
			}
		})
	}
	for i, c := range cells {
		if late != nil && i%damageStep > 0 {
			continue
		}
		if failures.Load() > 20 || late != nil && late() {
			break
		}
		work <- c
	}
	close(work)
	wg.Wait()
}
