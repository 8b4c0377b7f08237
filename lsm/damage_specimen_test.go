package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"kvd/lsm/vfs"
	"kvd/wal"
)

// specimen is a database that nobody has open, and all that a test of damage needs to know of it.
type specimen struct {
	name    string
	seed    uint64
	dir     string
	files   map[string][]byte   // path -> content
	older   map[string][][]byte // what the same paths held at earlier times
	alien   map[string][]byte   // those of another database that was built in the same way
	history []commit
	kept    int // commits it opens with; all of them but after a loss of power
	closed  bool
	layout  *Layout
	units   []unit
	logs    []logFrame // frames that recovery replays
	edits   []logFrame // of the manifest in force
}

// commit is one write in the history of a specimen.
type commit struct {
	key, value string // no value: deleted
	end        wal.Pos
}

// state is what the first n commits amount to.
func (s *specimen) state(n int) map[string]string {
	state := map[string]string{}
	for _, c := range s.history[:n] {
		c.apply(state)
	}
	return state
}

func (c commit) apply(state map[string]string) {
	if c.value == "" {
		delete(state, c.key)
	} else {
		state[c.key] = c.value
	}
}

const specimenKeys = 70

func specimenKey(i int) string { return fmt.Sprintf("key%03d", i) }

// specimenMaker builds one. What it draws depends on the seed alone, so that the alien database has
// the same layout; salt makes the values differ.
type specimenMaker struct {
	t     testing.TB
	r     *rand.Rand
	salt  string
	mem   *vfs.Mem
	fsys  vfs.FS
	db    *DB
	s     *specimen
	died  bool                          // the disk was taken
	block atomic.Pointer[chan struct{}] // what the making of tables waits for
}

func (m *specimenMaker) put(n int, d Durability) {
	for range n {
		c := commit{key: specimenKey(m.r.IntN(specimenKeys))}
		size := m.r.IntN(60)
		if m.r.IntN(8) > 0 {
			c.value = fmt.Sprintf("%s%05d%s", m.salt, len(m.s.history), strings.Repeat("v", size))
		}
		var err error
		if c.value == "" {
			err = m.db.Delete([]byte(c.key), d)
		} else {
			err = m.db.Put([]byte(c.key), []byte(c.value), d)
		}
		if err != nil {
			m.t.Fatal(err)
		}
		c.end = m.db.wal.Load().End()
		m.s.history = append(m.s.history, c)
	}
}

func (m *specimenMaker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
	m.remember()
}

// remember notes the present contents of all files.
func (m *specimenMaker) remember() {
	if m.died {
		return
	}
	names, err := m.mem.List(m.s.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, base := range names {
		name := filepath.Join(m.s.dir, base)
		data, err := m.mem.ReadFile(name)
		if err != nil {
			continue // removed meanwhile
		}
		old := m.s.older[name]
		if len(old) == 0 || !bytes.Equal(old[len(old)-1], data) {
			m.s.older[name] = append(old, data)
		}
	}
}

func (m *specimenMaker) flush()   { m.must(m.db.Flush()) }
func (m *specimenMaker) compact() { m.must(m.db.Compact(m.t.Context(), nil, nil)) }

// tree makes tables on several levels.
func (m *specimenMaker) tree() {
	for range 2 {
		m.put(40+m.r.IntN(20), Async)
		m.flush()
	}
	m.compact()
	m.put(15, Async)
	m.flush()
}

// several fills memtables that cannot be flushed.
func (m *specimenMaker) several() {
	gate := make(chan struct{})
	m.block.Store(&gate)
	for frozen := 0; frozen < frozenMax; {
		m.put(1, Durability(m.r.IntN(2)))
		m.db.mu.Lock()
		frozen = len(m.db.frozen)
		m.db.mu.Unlock()
	}
	m.put(4, Sync)
	m.put(3, Async)
	m.remember()
}

// specimenShapes are the ways in which a database can lie there. Each takes the disk at its end.
var specimenShapes = []struct {
	name string
	make func(m *specimenMaker) *vfs.Mem
}{
	{"fresh", func(m *specimenMaker) *vfs.Mem {
		return m.close()
	}},
	{"log only", func(m *specimenMaker) *vfs.Mem {
		m.put(10, Sync)
		m.put(5, NoSync)
		return m.close()
	}},
	{"closed", func(m *specimenMaker) *vfs.Mem {
		m.tree()
		m.put(8, Sync)
		m.put(4, Async)
		return m.close()
	}},
	{"empty log", func(m *specimenMaker) *vfs.Mem {
		m.tree()
		return m.close()
	}},
	{"reopened", func(m *specimenMaker) *vfs.Mem {
		m.tree()
		m.put(12, Async)
		m.close()
		m.open()
		m.tree()
		m.put(6, Sync)
		return m.close()
	}},
	{"killed", func(m *specimenMaker) *vfs.Mem {
		m.tree()
		m.several()
		return m.die(vfs.KeepAll)
	}},
	{"power loss", func(m *specimenMaker) *vfs.Mem {
		m.tree()
		m.several()
		return m.die(vfs.KeepNone)
	}},
	{"checkpoint", func(m *specimenMaker) *vfs.Mem {
		m.tree()
		m.put(9, Async)
		m.must(m.db.Checkpoint("copy"))
		m.close()
		m.s.dir = "copy"
		return m.mem
	}},
}

func (m *specimenMaker) die(mode vfs.CrashMode) *vfs.Mem {
	disk := m.mem.Crash(nil, mode)
	m.died = true
	if gate := m.block.Swap(nil); gate != nil {
		close(*gate)
	}
	m.close()
	return disk
}

func (m *specimenMaker) open() { m.db = mustOpen(m.t, m.s.dir, tinyOptions(m.fsys)) }

func (m *specimenMaker) close() *vfs.Mem {
	m.must(m.db.Close())
	return m.mem
}

// makeSpecimen builds the specimen of a shape; the alien one has no alien of its own.
func makeSpecimen(t testing.TB, shape int, seed uint64, salt string) *specimen {
	t.Helper()
	m := &specimenMaker{
		t: t, r: rand.New(rand.NewPCG(seed, uint64(shape))), salt: salt, mem: vfs.NewMem(),
		s: &specimen{seed: seed, dir: damageDir, older: map[string][][]byte{}},
	}
	m.fsys = vfs.NewFault(m.mem, func(o vfs.Op) error {
		if o.Kind == vfs.OpCreate && strings.HasSuffix(o.Name, tableSuffix) {
			if gate := m.block.Load(); gate != nil {
				<-*gate
			}
		}
		return nil
	})
	s := m.s
	s.name = fmt.Sprintf("%s, seed %d", specimenShapes[shape].name, seed)
	m.open()
	s.read(t, specimenShapes[shape].make(m))
	s.closed = !m.died
	s.litter(m.r)
	if salt == "" {
		s.alien = makeSpecimen(t, shape, seed, "~").files
		s.check(t)
		s.mapUnits(t)
	}
	return s
}

// read takes the files off a disk.
func (s *specimen) read(t testing.TB, disk *vfs.Mem) {
	s.files = map[string][]byte{}
	names, err := disk.List(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range names {
		name := filepath.Join(s.dir, base)
		if s.files[name], err = disk.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
}

// litter adds what does not belong to the database, or no longer: a table that was compacted away.
func (s *specimen) litter(r *rand.Rand) {
	junk := make([]byte, 300)
	for i := range junk {
		junk[i] = byte(r.Uint32())
	}
	for _, name := range slices.Sorted(maps.Keys(s.older)) {
		kind, num := parseName(filepath.Base(name))
		here := tableName(s.dir, num)
		if _, there := s.files[here]; kind == fileTable && !there {
			s.files[here] = s.older[name][0]
			break
		}
	}
	s.files[filepath.Join(s.dir, "000999.wal.tmp")] = junk[:200]
	s.files[filepath.Join(s.dir, "notes.txt")] = junk[:100]
}

// disk returns a file system with those files.
func (s *specimen) disk(files map[string][]byte) (*vfs.Mem, error) {
	disk := vfs.NewMem()
	err := disk.MkdirAll(s.dir)
	for name, data := range files {
		err = errors.Join(err, disk.WriteFile(name, data))
	}
	return disk, err
}

// check opens the undamaged specimen, finds out what it keeps, and demands that Verify is content.
func (s *specimen) check(t testing.TB) {
	t.Helper()
	disk, err := s.disk(s.files)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Verify(disk, s.dir, nil)
	if err != nil || len(v.Damages) > 0 {
		t.Fatalf("%s: undamaged, Verify: %v, %v", s.name, v.Damages, err)
	}
	o := tinyOptions(disk)
	o.ReadOnly = true
	db := mustOpen(t, s.dir, o)
	got := pairsOf(t, db)
	mustClose(t, db)
	s.kept = len(s.history)
	for s.kept > 0 && !maps.Equal(got, s.state(s.kept)) {
		s.kept--
	}
	if lost := len(s.history) - s.kept; s.kept == 0 && len(got) > 0 || s.closed && lost > 0 ||
		lost > 3 { // of those, none was synced
		t.Fatalf("%s: undamaged, it has lost %d of %d commits", s.name, lost, len(s.history))
	}
}

func pairsOf(t testing.TB, db *DB) map[string]string {
	t.Helper()
	got := map[string]string{}
	it := db.NewIter(IterOptions{})
	for key, value := range it.All() {
		got[string(key)] = string(value)
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return got
}

func (s *specimen) names() []string { return slices.Sorted(maps.Keys(s.files)) }
