package lsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"kvd/wal"
)

// unitKind is a kind of place where damage can be. The kinds that end in "file" are files as a
// whole.
type unitKind string

const (
	unitData       unitKind = "table data"
	unitPadding    unitKind = "table padding"
	unitFilter     unitKind = "table filter"
	unitIndex      unitKind = "table index"
	unitProperties unitKind = "table properties"
	unitFooter     unitKind = "table footer"
	unitTable      unitKind = "table file"
	unitLogHeader  unitKind = "log header"
	unitFrame      unitKind = "log frame"
	unitEnd        unitKind = "log END"
	unitLogTail    unitKind = "log tail"
	unitLog        unitKind = "log file"
	unitOldLog     unitKind = "old log file"
	unitEditHeader unitKind = "manifest header"
	unitEdit       unitKind = "manifest edit"
	unitEditEnd    unitKind = "manifest END"
	unitEditTail   unitKind = "manifest tail"
	unitManifest   unitKind = "manifest file"
	unitCurrent    unitKind = "CURRENT file"
	unitLock       unitKind = "LOCK file"
	unitStray      unitKind = "stray file"
)

// unit is one place: bytes [from, to) of a file.
type unit struct {
	kind     unitKind
	file     string
	from, to int
}

func (u unit) String() string { return fmt.Sprintf("%s %s [%d,%d)", u.kind, u.file, u.from, u.to) }

func (u unit) whole() bool {
	switch u.kind {
	case unitTable, unitLog, unitOldLog, unitManifest, unitCurrent, unitLock, unitStray:
		return true
	}
	return false
}

// logFrame is a frame of a log or manifest.
type logFrame struct {
	file     string
	from, to int
	pos, end wal.Pos
	durable  wal.Pos
}

// mapUnits lists the units of the specimen.
func (s *specimen) mapUnits(t testing.TB) {
	t.Helper()
	disk, err := s.disk(s.files)
	if err != nil {
		t.Fatal(err)
	}
	if s.layout, err = InspectLayout(disk, s.dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range s.names() {
		data := s.files[name]
		kind, num := parseName(filepath.Base(name))
		add := func(kind unitKind, from, to int) {
			if from < to || kind == unitLock {
				s.units = append(s.units, unit{kind, name, from, to})
			}
		}
		switch {
		case kind == fileTable && s.layout.Table(name) != nil:
			s.mapTable(name, add)
			add(unitTable, 0, len(data))
		case kind == fileLog && slices.Contains(s.layout.OldLogs, name):
			add(unitOldLog, 0, len(data))
		case kind == fileLog:
			s.logs = append(s.logs,
				mapLog(t, name, num, data, add, unitLogHeader, unitFrame, unitEnd, unitLogTail)...)
			add(unitLog, 0, len(data))
		case name == s.layout.Manifest:
			s.edits = mapLog(t, name, num, data, add,
				unitEditHeader, unitEdit, unitEditEnd, unitEditTail)
			add(unitManifest, 0, len(data))
		case filepath.Base(name) == currentName:
			add(unitCurrent, 0, len(data))
		case filepath.Base(name) == lockName:
			add(unitLock, 0, len(data))
		default:
			add(unitStray, 0, len(data))
		}
	}
}

// mapTable reads the layout of a table off its footer and index; see the format of the package.
func (s *specimen) mapTable(name string, add func(kind unitKind, from, to int)) {
	data, le := s.files[name], binary.LittleEndian
	foot := len(data) - 128
	at := func(i int) int { return int(le.Uint64(data[foot+16+8*i:])) }
	filter, index, properties := at(0), at(3), at(6)
	p := data[index:]
	blocks, prefix := int(le.Uint32(p)), int(le.Uint32(p[4:]))
	from := 0
	for i := range blocks {
		to := from + int(le.Uint32(p[8+prefix+4*i:]))
		add(unitData, from, to)
		from = to
	}
	add(unitPadding, from, filter)
	add(unitFilter, filter, index)
	add(unitIndex, index, properties)
	add(unitProperties, properties, foot)
	add(unitFooter, foot, len(data))
}

func mapLog(
	t testing.TB, name string, num uint64, data []byte,
	add func(kind unitKind, from, to int), header, frame, end, tail unitKind,
) (frames []logFrame) {
	r, err := wal.NewReader(wal.Segment{Number: num, R: bytes.NewReader(data), Size: int64(len(data))})
	if err != nil {
		t.Fatal(err)
	}
	add(header, 0, wal.HeaderBytes)
	for r.Next() {
		f := r.Frame()
		from, to := int(f.Offset), int(r.Offset())
		frames = append(frames, logFrame{name, from, to, f.Pos, f.End(), f.Durable})
		if len(f.Payload) > 0 {
			add(frame, from, to)
		} else {
			add(end, from, to)
		}
	}
	add(tail, int(r.Offset()), len(data))
	return frames
}

// standing returns the frames that files still hold in their place, behind a sound header.
func (s *specimen) standing(frames []logFrame, files map[string][]byte) (intact []logFrame) {
	for _, f := range frames {
		data, was := files[f.file], s.files[f.file]
		if f.to <= len(data) && bytes.Equal(data[f.from:f.to], was[f.from:f.to]) &&
			headerServes(data, was) {
			intact = append(intact, f)
		}
	}
	return intact
}

// headerServes reports whether one copy of the header is left.
func headerServes(data, was []byte) bool {
	const twin, size = 2048, 48
	for at := 0; at <= twin; at += twin {
		if at+size <= len(data) && bytes.Equal(data[at:at+size], was[at:at+size]) {
			return true
		}
	}
	return false
}

// lost says whether frames are missing that others, or floor, vouch for.
func (s *specimen) lost(frames []logFrame, files map[string][]byte, floor wal.Pos) bool {
	intact := s.standing(frames, files)
	for _, f := range intact {
		floor = max(floor, f.durable)
	}
	for _, f := range frames {
		if f.pos < f.end && f.pos < floor && !slices.Contains(intact, f) {
			return true
		}
	}
	return false
}

// demand is what Verify and Open must make of a damaged specimen.
type demand struct {
	find    bool // Verify must tell of it
	silent  bool // Verify must not tell of it, and Open not mind
	harmful bool // and Open, or the reads, must not be content
	why     string
}

// demands works out what files that differ from those of the specimen mean, by what is needed.
func (s *specimen) demands(files map[string][]byte) demand {
	find := func(why string) demand { return demand{find: true, why: why} }
	for _, t := range s.layout.Tables {
		name := s.layout.TableName(t)
		if !bytes.Equal(files[name], s.files[name]) {
			return find("table")
		}
	}
	current := filepath.Join(s.dir, currentName)
	if !bytes.Equal(files[current], s.files[current]) {
		return demand{find: true, harmful: true}
	}
	for name := range files {
		kind, num := parseName(filepath.Base(name))
		if _, there := s.files[name]; !there && kind == fileLog && num >= s.layout.LogSegment &&
			s.layout.LogSegment != 0 {
			return demand{find: true, harmful: true} // a segment under a name that is not its own
		}
	}
	if s.lost(s.logs, files, s.layout.LogEnd) || s.lost(s.edits, files, 0) {
		return demand{find: true, harmful: true}
	}
	for _, name := range append([]string{s.layout.Manifest}, s.layout.Logs...) {
		data, there := files[name]
		first := name == s.layout.Manifest || name == s.layout.Logs[0]
		switch {
		case !there && first:
			return demand{find: true, harmful: true}
		case !there: // it had nothing that anybody vouches for
		case !headerServes(data, s.files[name]):
			return demand{find: true, harmful: true}
		case !bytes.Equal(data[:min(len(data), wal.HeaderBytes)], s.files[name][:wal.HeaderBytes]):
			return find("the other copy of the header serves")
		case name == s.layout.Manifest && len(s.standing(s.edits, files)) == 0:
			return demand{find: true, harmful: true}
		}
	}
	gone := func(frames []logFrame) bool {
		intact := s.standing(frames, files)
		return slices.ContainsFunc(frames, func(f logFrame) bool {
			return f.pos < f.end && !slices.Contains(intact, f)
		})
	}
	switch {
	case gone(s.logs):
		return demand{silent: true, why: "end of the log that nothing vouches for"}
	case gone(s.edits):
		// What the manifest said last is often seen by what it needs and is not there any more;
		// else what it says without is as good.
		return demand{why: "end of the manifest that nothing vouches for"}
	}
	return demand{silent: true, why: "not needed"}
}
