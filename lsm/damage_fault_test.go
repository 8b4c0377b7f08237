package lsm

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"

	"kvd/lsm/vfs"
)

// damageCell is one damage of one specimen.
type damageCell struct {
	s     *specimen
	u     unit
	fault damageFault
	r     *rand.Rand
	turn  int // counts the variants of a fault that goes through all of them

	files  map[string][]byte // as they are now
	inject func(vfs.Op) error
	what   string // for people
}

func (c *damageCell) String() string {
	return fmt.Sprintf("%s: %v: %s%s", c.s.name, c.u, c.fault.name, c.what)
}

// damageFault is a way to damage a unit. do reports whether there was anything to do.
type damageFault struct {
	name string
	on   func(u unit) bool
	do   func(c *damageCell) bool
	read bool // reading fails, the files are as they were
}

func onPlace(u unit) bool { return !u.whole() }
func onFile(u unit) bool  { return u.whole() }
func onAny(unit) bool     { return true }

var damageFaults = []damageFault{
	{name: "bit flip", on: onAny, do: (*damageCell).flip},
	{name: "zeroed", on: onAny, do: func(c *damageCell) bool {
		return c.overwrite(make([]byte, c.u.to-c.u.from))
	}},
	{name: "random bytes", on: onAny, do: func(c *damageCell) bool {
		return c.overwrite(c.random(c.u.to - c.u.from))
	}},
	{name: "stale copy", on: onAny, do: (*damageCell).stale},
	{name: "of another database", on: onAny, do: (*damageCell).foreign},
	{name: "swapped in the file", on: onPlace, do: func(c *damageCell) bool {
		return c.swap(func(u unit) bool { return u.file == c.u.file && u.kind == c.u.kind })
	}},
	{name: "swapped with another file", on: onPlace, do: func(c *damageCell) bool {
		return c.swap(func(u unit) bool { return u.file != c.u.file && u.kind == c.u.kind })
	}},
	{name: "files swapped", on: onFile, do: (*damageCell).swapFiles},
	{name: "cut at its start", on: onAny, do: func(c *damageCell) bool { return c.cut(c.u.from) }},
	{name: "cut in its middle", on: onAny, do: func(c *damageCell) bool {
		return c.u.to-c.u.from > 1 && c.cut(c.u.from+1+c.r.IntN(c.u.to-c.u.from-1))
	}},
	{name: "cut at its end", on: onAny, do: func(c *damageCell) bool { return c.cut(c.u.to) }},
	{name: "missing", on: onFile, do: func(c *damageCell) bool {
		delete(c.files, c.u.file)
		return true
	}},
	{name: "empty", on: onFile, do: func(c *damageCell) bool { return c.cut(0) }},
	{name: "longer", on: onFile, do: func(c *damageCell) bool {
		c.files[c.u.file] = append(slices.Clone(c.files[c.u.file]), c.random(1+c.r.IntN(5000))...)
		return true
	}},
	{name: "under two names", on: onFile, do: (*damageCell).duplicate},
	{name: "read error", on: onAny, read: true, do: func(c *damageCell) bool {
		return c.failReads(syscall.EIO, false)
	}},
	{name: "short read", on: onAny, read: true, do: func(c *damageCell) bool {
		return c.failReads(io.EOF, true)
	}},
}

func (c *damageCell) random(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(c.r.Uint32())
	}
	return p
}

// overwrite puts p at the start of the unit.
func (c *damageCell) overwrite(p []byte) bool {
	data := slices.Clone(c.files[c.u.file])
	copy(data[c.u.from:c.u.to], p)
	c.files[c.u.file] = data
	return true
}

// flip changes one bit: of a small unit the next byte at each turn.
func (c *damageCell) flip() bool {
	size := c.u.to - c.u.from
	if size == 0 {
		return false
	}
	at := c.u.from + (c.turn+c.r.IntN(size))%size
	c.what = fmt.Sprintf(", byte %d", at)
	data := slices.Clone(c.files[c.u.file])
	data[at] ^= 1 << c.r.IntN(8)
	c.files[c.u.file] = data
	return true
}

// stale puts back what the place has held before.
func (c *damageCell) stale() bool {
	old := c.s.older[c.u.file]
	if len(old) == 0 {
		return false
	}
	was := old[c.r.IntN(len(old))]
	if c.u.whole() {
		c.files[c.u.file] = was
		return true
	}
	return c.u.from < len(was) && c.overwrite(was[c.u.from:min(c.u.to, len(was))])
}

func (c *damageCell) foreign() bool {
	theirs, ok := c.s.alien[c.u.file]
	if c.u.whole() {
		c.files[c.u.file] = theirs
		return ok
	}
	return c.u.from < len(theirs) && c.overwrite(theirs[c.u.from:min(c.u.to, len(theirs))])
}

// swap exchanges the unit with another one, as far as the shorter one goes.
func (c *damageCell) swap(match func(unit) bool) bool {
	var others []unit
	for _, u := range c.s.units {
		if u != c.u && match(u) {
			others = append(others, u)
		}
	}
	if len(others) == 0 {
		return false
	}
	o := others[c.r.IntN(len(others))]
	c.what = fmt.Sprintf(": %v", o)
	n := min(c.u.to-c.u.from, o.to-o.from)
	ours := slices.Clone(c.files[c.u.file][c.u.from:][:n])
	theirs := slices.Clone(c.files[o.file][o.from:][:n])
	c.overwrite(theirs)
	data := slices.Clone(c.files[o.file])
	copy(data[o.from:], ours)
	c.files[o.file] = data
	return true
}

func (c *damageCell) swapFiles() bool {
	names := c.s.names()
	other := names[c.r.IntN(len(names))]
	c.what = ": " + other
	c.files[c.u.file], c.files[other] = c.files[other], c.files[c.u.file]
	return true
}

func (c *damageCell) cut(size int) bool {
	c.what = fmt.Sprintf(", %d bytes left", size)
	c.files[c.u.file] = c.files[c.u.file][:min(size, len(c.files[c.u.file]))]
	return true
}

// duplicate copies the file to a name that nobody has.
func (c *damageCell) duplicate() bool {
	kind, num := parseName(filepath.Base(c.u.file))
	num += 500
	name := c.u.file + "~"
	switch kind {
	case fileTable:
		name = tableName(c.s.dir, num)
	case fileLog:
		name = logName(c.s.dir, num)
	case fileManifest:
		name = manifestName(c.s.dir, num)
	}
	c.what = ": " + name
	c.files[name] = c.files[c.u.file]
	return true
}

// failReads has every read of the unit fail: at once, or after the bytes before its middle.
func (c *damageCell) failReads(err error, short bool) bool {
	u := c.u
	if u.from == u.to {
		return false
	}
	c.inject = func(o vfs.Op) error {
		from, to := int64(u.from), int64(u.to)
		if o.Kind != vfs.OpReadAt || o.Name != u.file || o.Off >= to || o.Off+o.Len <= from {
			return nil
		}
		if short {
			return vfs.ShortWrite(int(max((from+to)/2-o.Off, 0)), err)
		}
		return err
	}
	return true
}

// changed returns the files that are not what they were.
func (c *damageCell) changed() []string {
	if c.fault.read {
		return []string{c.u.file}
	}
	var names []string
	for name := range c.files {
		if was, ok := c.s.files[name]; !ok || !bytes.Equal(was, c.files[name]) {
			names = append(names, name)
		}
	}
	for name := range c.s.files {
		if _, ok := c.files[name]; !ok {
			names = append(names, name)
		}
	}
	return names
}

// prepare does the damage. It reports false when there is none to do, or it changes nothing.
func (c *damageCell) prepare() bool {
	c.files = maps.Clone(c.s.files)
	return c.fault.do(c) && len(c.changed()) > 0
}

// demands is what must be made of the damage.
func (c *damageCell) demands() demand {
	if !c.fault.read {
		return c.s.demands(c.files)
	}
	switch c.u.kind {
	case unitOldLog, unitLock, unitStray:
		return demand{silent: true, why: "not needed"}
	case unitLogTail, unitEditTail, unitEnd, unitEditEnd:
		return demand{why: "not needed, but read"}
	case unitPadding:
		return demand{find: true, why: "padding, not read"}
	case unitTable:
		return demand{find: true}
	}
	return demand{find: true, harmful: true}
}
