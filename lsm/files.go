package lsm

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"kvd/lsm/vfs"
)

// A data directory holds
//
//	LOCK             held by the process that has it open
//	CURRENT          one line: the format, the name of the manifest in force and their checksum
//	MANIFEST-NNNNNN  the list of tables, as a log of edits
//	NNNNNN.wal       segments of the commit log
//	NNNNNN.sst       tables
//	*.tmp            a file being prepared; removed when the directory is opened
//
// All numbers come from one counter and are never reused.
const (
	lockName       = "LOCK"
	currentName    = "CURRENT"
	manifestPrefix = "MANIFEST-"
	tableSuffix    = ".sst"
	logSuffix      = ".wal"
	tempSuffix     = ".tmp"
)

// formatName is the first word of CURRENT; another one is another format.
const (
	formatFamily = "kvd-"
	formatName   = formatFamily + "1"
)

func tableName(dir string, num uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%06d%s", num, tableSuffix))
}

func logName(dir string, num uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%06d%s", num, logSuffix))
}

func manifestName(dir string, num uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%06d", manifestPrefix, num))
}

// fileKind tells the files of a data directory apart.
type fileKind uint8

const (
	fileOther fileKind = iota
	fileTable
	fileLog
	fileManifest
	fileTemp
)

// parseName is the inverse of the names above; base has no directory.
func parseName(base string) (kind fileKind, num uint64) {
	digits := ""
	switch {
	case strings.HasSuffix(base, tempSuffix):
		return fileTemp, 0
	case strings.HasPrefix(base, manifestPrefix):
		kind, digits = fileManifest, strings.TrimPrefix(base, manifestPrefix)
	case strings.HasSuffix(base, tableSuffix):
		kind, digits = fileTable, strings.TrimSuffix(base, tableSuffix)
	case strings.HasSuffix(base, logSuffix):
		kind, digits = fileLog, strings.TrimSuffix(base, logSuffix)
	}
	num, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || digits != fmt.Sprintf("%06d", num) {
		return fileOther, 0 // one file, one name
	}
	return kind, num
}

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// currentText is what CURRENT says when that manifest is in force.
func currentText(manifest uint64) string {
	line := fmt.Sprintf("%s %s", formatName, manifestName("", manifest))
	return fmt.Sprintf("%s %08x\n", line, crc32.Checksum([]byte(line), crcTable))
}

// writeCurrent makes the manifest the one in force, atomically and durably. After an error tried
// tells whether it may be in force.
func writeCurrent(names *directory, manifest uint64) (tried bool, err error) {
	fs, dir, mark := names.fs, names.dir, names.mark()
	temp := filepath.Join(dir, currentName+tempSuffix)
	// Not written over: a crash amid the rename below can have left CURRENT under this name too.
	if err := fs.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	f, err := fs.Create(temp)
	if err != nil {
		return false, err
	}
	_, err = f.WriteAt([]byte(currentText(manifest)), 0)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = fs.Remove(temp) // a checkpoint that is tried again must find its directory empty
		return false, err
	}
	err = fs.Rename(temp, filepath.Join(dir, currentName))
	if err == nil {
		err = names.sync(mark)
	}
	return true, err
}

// dataAmong returns the first of names that only a database has, "" if there is none. A manifest
// may be what a crash left of the making of one.
func dataAmong(names []string) string {
	for _, base := range names {
		if kind, _ := parseName(base); kind == fileTable || kind == fileLog {
			return base
		}
	}
	return ""
}

// missingCurrent is the damage of a directory that has data but no CURRENT.
func missingCurrent(dir, data string) error {
	name := filepath.Join(dir, currentName)
	return &CorruptError{name, -1, fmt.Sprintf("missing, although there is %s", data)}
}

// errFamily says that CURRENT, whatever it is, was not written by any version of this.
var errFamily = fmt.Errorf("%w: not of this kind of database", ErrFormat)

// readCurrent returns the number of the manifest in force.
func readCurrent(fs vfs.FS, dir string) (manifest uint64, err error) {
	name := filepath.Join(dir, currentName)
	line, err := readSmall(fs, name)
	if err != nil {
		return 0, err
	}
	if !strings.HasPrefix(line, formatFamily) {
		return 0, fmt.Errorf("%w: %s", errFamily, name)
	}
	fields := strings.Fields(line)
	if len(fields) != 3 || line != strings.Join(fields, " ")+"\n" {
		return 0, &CorruptError{File: name, Reason: "not one line of three words"}
	}
	sum := fmt.Sprintf("%08x", crc32.Checksum([]byte(fields[0]+" "+fields[1]), crcTable))
	if sum != fields[2] {
		return 0, &CorruptError{File: name, Reason: "checksum does not match"}
	}
	if fields[0] != formatName {
		return 0, fmt.Errorf("%w: %s says %q, this version reads %q",
			ErrFormat, name, fields[0], formatName)
	}
	kind, num := parseName(fields[1])
	if kind != fileManifest {
		return 0, &CorruptError{File: name, Reason: "names no manifest"}
	}
	return num, nil
}

func readSmall(fs vfs.FS, name string) (string, error) {
	f, err := fs.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, 256)
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	return string(buf[:n]), nil
}
