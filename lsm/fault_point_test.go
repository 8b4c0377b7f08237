package lsm

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"

	"kvd/lsm/vfs"
)

// faultKind is a way in which operations fail.
type faultKind uint8

const (
	faultIO        faultKind = iota // EIO, of a sync too: then what is dirty stays dirty
	faultDead                       // EIO of everything from then on
	faultFull                       // ENOSPC of what writes
	faultShort                      // a WriteAt writes half, then EIO
	faultShortFull                  // a WriteAt writes half, then ENOSPC
	faultShortRead                  // a ReadAt reads half, then EIO
	faultLost                       // a sync fails with EIO and loses what it was to cover
	faultEvicted                    // and reads see the old content again
	faultLostFull                   // a sync fails with ENOSPC and loses what it was to cover
	faultKinds
)

var faultKindNames = [faultKinds]string{"EIO", "dead", "ENOSPC", "short", "shortfull", "shortread",
	"lost", "evicted", "lostfull"}

func (k faultKind) String() string { return faultKindNames[k] }

// applies reports whether an operation can fail in this way.
func (k faultKind) applies(o vfs.OpKind) bool {
	switch k {
	case faultFull:
		return o.Writes()
	case faultShort, faultShortFull:
		return o == vfs.OpWriteAt
	case faultShortRead:
		return o == vfs.OpReadAt
	case faultLost, faultEvicted, faultLostFull:
		return o == vfs.OpSync || o == vfs.OpSyncDir
	}
	return true
}

func (k faultKind) err() error {
	switch k {
	case faultFull, faultShortFull, faultLostFull:
		return syscall.ENOSPC
	}
	return syscall.EIO
}

// full reports whether this looks like a full disk, which is never final.
func (k faultKind) full() bool { return k.err() == syscall.ENOSPC }

// inject returns what a vfs.Fault wants to hear to fail o so.
func (k faultKind) inject(o vfs.Op) error {
	switch k {
	case faultShort, faultShortFull, faultShortRead:
		return vfs.ShortWrite(int(o.Len/2), k.err())
	case faultLost, faultLostFull:
		return vfs.LostSync(k.err())
	case faultEvicted:
		return vfs.EvictedSync(k.err())
	}
	return k.err()
}

// persists reports whether o fails too after first has, in a fault that is for ever. What fails
// with EIO is one direction of the disk: that of the reads, or that of the writes.
func (k faultKind) persists(first, o vfs.OpKind) bool {
	if k == faultIO {
		return first.Writes() == o.Writes()
	}
	return k.applies(o)
}

// faultClass is what a file is for. Operations are numbered by kind and class, because what runs
// beside one another, a flush and a compaction say, makes the order of all of them a matter of
// chance.
type faultClass uint8

const (
	classOther faultClass = iota // parents of the directories
	classDir
	classLock
	classCurrent
	classManifest
	classTable
	classLog
	classTemp // a log or CURRENT being prepared
	classCopy // anything in a checkpoint
	faultClasses
)

var faultClassNames = [faultClasses]string{"other", "dir", "lock", "current", "manifest", "table",
	"log", "temp", "copy"}

func (c faultClass) String() string { return faultClassNames[c] }

func faultClassOf(name string) faultClass {
	dir, base := path.Split(name)
	if strings.HasPrefix(name, "copy") {
		return classCopy
	}
	kind, _ := parseName(base)
	switch {
	case name == "data":
		return classDir
	case dir != "data/":
		return classOther
	case base == lockName:
		return classLock
	case base == currentName:
		return classCurrent
	case kind == fileManifest:
		return classManifest
	case kind == fileTable:
		return classTable
	case kind == fileLog:
		return classLog
	case kind == fileTemp:
		return classTemp
	}
	return classOther
}

const opKindCount = int(vfs.OpClose) + 1

// faultPoint is one operation of a workload: the nth of its kind on a class of files, from 1.
type faultPoint struct {
	op    vfs.OpKind
	class faultClass
	nth   int
}

// faultCase is a workload and what fails in it.
type faultCase struct {
	seed    uint64
	point   faultPoint // nth 0: nothing
	kind    faultKind
	forever bool

	// A second operation that fails once: so many after the first, counting those to which its
	// kind applies; 0 is none.
	later     int
	laterKind faultKind

	capacity int64 // instead of all that: so many bytes fit on the disk; 0 is no limit
}

// String prints the case as -fault.case takes it, as in 1:Sync:log:5:lost:once.
func (c faultCase) String() string {
	if c.capacity > 0 {
		return fmt.Sprintf("%d:capacity:%d", c.seed, c.capacity)
	}
	mode := "once"
	if c.forever {
		mode = "forever"
	}
	s := fmt.Sprintf("%d:%v:%v:%d:%v:%s", c.seed, c.point.op, c.point.class, c.point.nth, c.kind, mode)
	if c.later > 0 {
		s += fmt.Sprintf(":%d:%v", c.later, c.laterKind)
	}
	return s
}

func parseFaultCase(s string) (c faultCase, err error) {
	parts := strings.Split(s, ":")
	number := func(s string) int {
		n, e := strconv.Atoi(s)
		if e != nil {
			err = e
		}
		return n
	}
	kind := func(s string) faultKind {
		for k := range faultKinds {
			if k.String() == s {
				return k
			}
		}
		err = fmt.Errorf("no kind %q", s)
		return 0
	}
	c.seed = uint64(number(parts[0]))
	switch len(parts) {
	case 1: // the workload without a fault
		return c, err
	case 3:
		c.capacity = int64(number(parts[2]))
		return c, err
	case 8:
		c.later, c.laterKind = number(parts[6]), kind(parts[7])
	case 6:
	default:
		return c, fmt.Errorf("%q has %d parts", s, len(parts))
	}
	for op := range vfs.OpKind(opKindCount) {
		if op.String() == parts[1] {
			c.point.op = op
		}
	}
	for class := range faultClasses {
		if class.String() == parts[2] {
			c.point.class = class
		}
	}
	c.point.nth, c.kind, c.forever = number(parts[3]), kind(parts[4]), parts[5] == "forever"
	return c, err
}
