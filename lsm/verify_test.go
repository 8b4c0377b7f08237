package lsm

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kvd/lsm/vfs"
)

// damage changes one byte of a file.
func damage(t *testing.T, fsys vfs.FS, name string, off int64) {
	t.Helper()
	f, err := fsys.OpenReadWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyNamesEveryDamagedFile(t *testing.T) {
	fsys, dir := inspected(t)
	l, err := InspectLayout(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	table := l.TableName(l.Tables[0])
	damage(t, fsys, table, 100)
	damage(t, fsys, l.Logs[0], 4096+30) // the first frame; the second one vouches for it
	v, err := Verify(fsys, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, d := range v.Damages {
		e, ok := errors.AsType[*CorruptError](d)
		if !ok {
			t.Fatalf("damage %v is no *CorruptError", d)
		}
		found[e.File] = true
	}
	if !found[table] || !found[l.Logs[0]] || len(found) != 2 {
		t.Errorf("damaged %s and %s; Verify tells %v", table, l.Logs[0], v.Damages)
	}

	damage(t, fsys, l.Manifest, 4096+30)
	v, err = Verify(fsys, dir, nil)
	clear(found)
	for _, d := range v.Damages {
		if e, ok := errors.AsType[*CorruptError](d); ok {
			found[e.File] = true
		}
	}
	if err != nil || len(found) != 3 || len(v.Damages) != 3 { // the files are checked all the same
		t.Errorf("damaged manifest: %v, %v", v.Damages, err)
	}
}

func TestVerifyRefusesAnOpenDatabase(t *testing.T) {
	fsys := vfs.NewMem()
	db, err := Open("/db", Options{FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := Verify(fsys, "/db", nil); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}

// Verify stopped at what it could not read, or took it for the end.
func TestVerifyReadsOnAfterErrors(t *testing.T) {
	s := shaped(t, "killed")
	disk, err := s.disk(s.files)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]string{{currentName}, {manifestPrefix}, {tableSuffix}, {logSuffix},
		{manifestPrefix, tableSuffix, logSuffix}} {
		want := map[string]bool{}
		fsys := vfs.NewFault(disk, func(o vfs.Op) error {
			base := filepath.Base(o.Name)
			kind, num := parseName(base)
			live := kind != fileTable || s.layout.Table(o.Name) != nil
			if o.Kind != vfs.OpReadAt || !live || kind == fileLog && num < s.layout.LogSegment {
				return nil
			}
			for _, part := range bad {
				if strings.Contains(base, part) {
					want[o.Name] = true
					return errTestRead
				}
			}
			return nil
		})
		v, err := Verify(fsys, s.dir, nil)
		if err != nil || len(v.Damages) < len(want) || len(want) == 0 {
			t.Errorf("%v: %d files cannot be read; %v, %v", bad, len(want), v.Damages, err)
		}
		for name := range want {
			if !slices.ContainsFunc(v.Damages, func(err error) bool {
				return errors.Is(err, errTestRead) && strings.Contains(err.Error(), name)
			}) {
				t.Errorf("%v: nothing on %s: %v", bad, name, v.Damages)
			}
		}
	}
}

var errTestRead = errors.New("the disk does not say")

// Verify stopped at the first damage of a file, so that nobody knew how much was lost.
func TestVerifyNamesEveryDamagedPlace(t *testing.T) {
	s := shaped(t, "killed")
	files := maps.Clone(s.files)
	want := map[CorruptError]bool{}
	for i, u := range s.units {
		if n := len(s.units); i+1 < n && s.units[i+1].kind != u.kind || i%2 > 0 {
			continue // the last frame of a segment: the next one might be taken for the place
		}
		if u.kind == unitData || u.kind == unitFrame && len(want) < 40 {
			data := slices.Clone(files[u.file])
			data[u.from+9] ^= 0x11
			files[u.file] = data
			want[CorruptError{File: u.file, Offset: int64(u.from)}] = true
		}
	}
	disk, err := s.disk(files)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Verify(disk, s.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	perFile := map[string]int{}
	for _, d := range v.Damages {
		if e, ok := errors.AsType[*CorruptError](d); ok {
			delete(want, CorruptError{File: e.File, Offset: e.Offset})
			perFile[e.File]++
		}
	}
	for place := range want {
		if perFile[place.File] < damagesMax {
			t.Errorf("nothing on %s at offset %d", place.File, place.Offset)
		}
	}
	for name, n := range perFile {
		if n > damagesMax+1 {
			t.Errorf("%d damages of %s", n, name)
		}
	}
	if len(v.Damages) < 10 {
		t.Errorf("%d damages: not a test", len(v.Damages))
	}
}

// Verify lists what nothing needs, and takes none of it for damage.
func TestVerifyListsLeftovers(t *testing.T) {
	s := shaped(t, "reopened")
	disk, err := s.disk(s.files)
	if err != nil {
		t.Fatal(err)
	}
	extra := []string{tableName(s.dir, 900), manifestName(s.dir, 901), logName(s.dir, 902) + tempSuffix}
	for _, name := range extra {
		if err := disk.WriteFile(name, []byte("half")); err != nil {
			t.Fatal(err)
		}
	}
	v, err := Verify(disk, s.dir, nil)
	if err != nil || len(v.Damages) > 0 {
		t.Fatal(v.Damages, err)
	}
	extra = append(extra, s.layout.OldLogs...)
	for _, name := range extra {
		if !slices.Contains(v.Leftovers, name) {
			t.Errorf("%s is not listed in %v", name, v.Leftovers)
		}
	}
	for _, name := range v.Leftovers {
		if s.layout.Table(name) != nil || slices.Contains(s.layout.Logs, name) ||
			name == s.layout.Manifest {
			t.Errorf("%s is needed", name)
		}
	}
}

// Without CURRENT or a manifest every file is looked at by itself, and what is sound is counted.
func TestVerifyWithoutManifest(t *testing.T) {
	s := shaped(t, "closed")
	undamaged := Verification{}
	for _, lost := range []string{"", "CURRENT", "manifest", "both"} {
		files := maps.Clone(s.files)
		if lost == "CURRENT" || lost == "both" {
			delete(files, filepath.Join(s.dir, currentName))
		}
		if lost == "manifest" || lost == "both" {
			files[s.layout.Manifest] = make([]byte, len(files[s.layout.Manifest]))
		}
		disk, err := s.disk(files)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Verify(disk, s.dir, nil)
		if err != nil || (len(v.Damages) > 0) != (lost != "") {
			t.Fatalf("without %s: %v, %v", lost, v.Damages, err)
		}
		if lost == "" {
			undamaged = v
		}
		if v.Tables < undamaged.Tables || v.Entries < undamaged.Entries {
			t.Errorf("without %s: %+v, with it %+v", lost, v, undamaged)
		}
	}
}
