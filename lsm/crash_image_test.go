package lsm

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"kvd/lsm/vfs"
	"kvd/sstable"
)

// crashWay is one way in which the power fails.
type crashWay struct {
	mode vfs.CrashMode
	draw uint64
}

func (w crashWay) String() string { return fmt.Sprintf("%v/%d", w.mode, w.draw) }

// crashWays is the ways that every operation is tried in: those of chance several times.
var crashWays = []crashWay{
	{vfs.KeepNone, 0}, {vfs.KeepAll, 0}, {vfs.Random, 0}, {vfs.Torn, 0}, {vfs.Garbage, 0},
	{vfs.LoseRemovals, 0}, {vfs.LoseNames, 0}, {vfs.LoseFiles, 0}, {vfs.LoseContent, 0},
	{vfs.LoseSizes, 0}, {vfs.LoseNewest, 0}, {vfs.LoseEarly, 0}, {vfs.LoseLate, 0},
	{vfs.LoseOne, 0}, {vfs.KeepOne, 0},
	{vfs.Random, 1}, {vfs.Random, 2}, {vfs.Torn, 1}, {vfs.Garbage, 1}, {vfs.LoseEarly, 1},
}

// crashDemand is what must be true of an image.
type crashDemand struct {
	Durable sstable.Seq // must be there after a loss of power
	Written sstable.Seq // must be there after the death of the process
	Ticket  uint64      // commits with a higher one had not begun
	Copy    string      // the directory of a checkpoint that must be there, or ""
}

// crashImage is a disk after a loss of power.
type crashImage struct {
	disk *vfs.Mem
	hash uint64
	way  crashWay
}

// crashPoint is the images of one moment.
type crashPoint struct {
	at      string // what led to it, for a point of a recovery
	op      vfs.Op // before which the power fails
	demand  crashDemand
	images  []crashImage
	version uint64
	steady  bool // the disk did not change while the images were taken
}

func (p *crashPoint) String() string { return p.at + p.op.String() }

// crashSeed makes hashes of disks.
var crashSeed = maphash.MakeSeed()

// crashCapture takes images of a disk at every operation.
type crashCapture struct {
	seed uint64
	at   string
	mem  *vfs.Mem
	h    *crashHistory
	ways func(n uint64) []crashWay
	fs   *vfs.Fault

	mu     sync.Mutex
	off    bool
	last   *crashPoint
	points []*crashPoint
	ops    int64 // seen
	cells  int64 // operations times ways, those of a disk that had not changed too
	same   int64 // operations before which the disk had not changed
}

// start returns the disk of which images are taken.
func (c *crashCapture) start() *crashCapture {
	c.fs = vfs.NewFault(c.mem, func(o vfs.Op) error { c.take(o); return nil })
	return c
}

// take takes the images of the moment before an operation. What was acknowledged is read first, and
// what has begun last: whatever goes on beside it, the one must be there and only the other may.
func (c *crashCapture) take(o vfs.Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return
	}
	c.ops++
	demand := crashDemand{
		Durable: sstable.Seq(c.h.durable.Load()),
		Written: sstable.Seq(c.h.written.Load()),
	}
	copied := c.h.copy.Load()
	if copied != nil && copied.done.Load() {
		demand.Copy = copied.Dir
	}
	version := c.mem.Version()
	ways := c.ways(o.N)
	c.cells += int64(len(ways))
	if p := c.last; p != nil && p.steady && p.version == version {
		// The same disk, so the same images; but more may have been promised since.
		p.demand.Durable, p.demand.Written = demand.Durable, demand.Written
		if demand.Copy != "" && c.h.copy.Load() == copied {
			p.demand.Copy = demand.Copy
		}
		c.same++
		return
	}
	p := &crashPoint{at: c.at, op: o, version: version}
	for _, way := range ways {
		r := rand.New(rand.NewPCG(c.seed+o.N, uint64(way.mode)<<8|way.draw))
		image := crashImage{disk: c.mem.Crash(r, way.mode), way: way}
		p.images = append(p.images, image)
	}
	p.steady = c.mem.Version() == version
	demand.Ticket = c.h.tickets.Load()
	if c.h.copy.Load() != copied {
		demand.Copy = "" // it is being removed
	}
	p.demand = demand
	c.last = p
	c.points = append(c.points, p)
}

// begun tells that the history now says with what the database was opened. Nothing of that may be
// lost by a crash while it was being opened, and no more can be there.
func (c *crashCapture) begun() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.points {
		p.demand.Durable = max(p.demand.Durable, sstable.Seq(c.h.durable.Load()))
		p.demand.Written = max(p.demand.Written, p.demand.Durable)
		p.demand.Ticket = max(p.demand.Ticket, c.h.tickets.Load())
	}
}

// drain hands over the points so far.
func (c *crashCapture) drain() []*crashPoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	points := c.points
	c.points, c.last = nil, nil
	return points
}

func (c *crashCapture) pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.points)
}

func (c *crashCapture) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
}

// crashRecord is what is kept of an image that fails, beside its files.
type crashRecord struct {
	Failure string
	Point   string
	Way     string
	KeepAll bool
	Demand  crashDemand
	Options crashOptions
	Copies  map[string]sstable.Seq
	Commits []*crashCommit
	Trace   []string
}

const crashRecordName = "crash.json"

// save writes an image and what is expected of it to a new directory.
func (r *crashRecord) save(disk *vfs.Mem) (dir string, err error) {
	dir, err = os.MkdirTemp("", "kvd-crash-")
	if err != nil {
		return "", err
	}
	data, err := json.MarshalIndent(r, "", "\t")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, crashRecordName), data, 0o600)
	}
	if err == nil {
		err = saveFolder(disk, "/", filepath.Join(dir, "disk"))
	}
	return dir, err
}

func saveFolder(disk *vfs.Mem, from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	names, err := disk.List(from)
	for _, base := range names {
		if err != nil {
			return err
		}
		name, target := filepath.Join(from, base), filepath.Join(to, base)
		if data, readErr := disk.ReadFile(name); readErr == nil {
			err = os.WriteFile(target, data, 0o600)
		} else {
			err = saveFolder(disk, name, target)
		}
	}
	return err
}

// load is the inverse of save. What was one file under two names is two.
func (r *crashRecord) load(dir string) (*vfs.Mem, error) {
	data, err := os.ReadFile(filepath.Join(dir, crashRecordName))
	if err == nil {
		err = json.Unmarshal(data, r)
	}
	if err != nil {
		return nil, err
	}
	disk := vfs.NewMem()
	root := filepath.Join(dir, "disk")
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() {
			return disk.MkdirAll(name)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return disk.WriteFile(name, data)
	})
	return disk.Crash(nil, vfs.KeepAll), err
}
