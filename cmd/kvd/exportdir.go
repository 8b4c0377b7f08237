package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// directorySink writes a file per key. A file appears under its name whole or not at all. Nothing
// is ever written outside the directory: its root refuses that, symbolic links included.
type directorySink struct {
	root   *os.Root
	resume bool
	report *bulkReport
	temp   string          // where each file is prepared; the first element of no key so far
	made   map[string]bool // directories that are known to exist; bounded by madeMax
}

const (
	madeMax      = 10_000
	nameMaxBytes = 255 // of one element of a path, on every file system of note
)

func newDirectorySink(dir string, resume bool, report *bulkReport) (*directorySink, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if !resume {
		if err := mustBeEmpty(dir); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &directorySink{root: root, resume: resume, report: report, temp: tempName(),
		made: map[string]bool{}}, nil
}

func tempName() string { return ".kvd-export-" + rand.Text() }

func mustBeEmpty(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("%s is not empty: give a new directory, or --resume to go on there", dir)
	}
	return errors.Join(err, f.Close())
}

// write writes one file. What is wrong with this key only is reported and the export goes on; a
// full disk ends it.
func (s *directorySink) write(key, value []byte) error {
	name := string(key)
	if reason := notAPath(name); reason != "" {
		s.report.leaveOut(name, reason, true)
		return nil
	}
	if first, _, _ := strings.Cut(name, "/"); strings.EqualFold(first, s.temp) {
		s.temp = tempName()
	}
	if s.resume && s.holds(name, value) {
		s.report.found(key, value)
		return nil
	}
	err := s.writeFile(name, value)
	switch {
	case err == nil:
		s.report.wrote(key, value)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT),
		errors.Is(err, fs.ErrPermission):
		return err
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR),
		errors.Is(err, fs.ErrExist):
		s.report.leaveOut(name, "another key needs a file where this one needs a "+
			"directory, or the reverse: "+err.Error(), true)
	default:
		s.report.leaveOut(name, err.Error(), true)
	}
	return nil
}

// holds reports whether the file has this value already. Only a regular file is opened: a named
// pipe would keep its reader waiting.
func (s *directorySink) holds(name string, value []byte) bool {
	info, err := s.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(value)) {
		return false
	}
	there, err := s.root.ReadFile(name)
	return err == nil && bytes.Equal(there, value)
}

// notAPath says why a key names no file below a directory; empty when it does.
func notAPath(key string) string {
	if strings.ContainsRune(key, 0) {
		return "a file name cannot hold a zero byte"
	}
	for element := range strings.SplitSeq(key, "/") {
		switch {
		case element == "", element == ".", element == "..":
			return "not a path below the directory"
		case len(element) > nameMaxBytes:
			return fmt.Sprintf("a file name of more than %d bytes", nameMaxBytes)
		}
	}
	return ""
}

func (s *directorySink) writeFile(name string, value []byte) error {
	if !s.resume {
		// A file system that ignores case would make one file of two keys.
		if _, err := s.root.Lstat(name); err == nil {
			return fs.ErrExist
		}
	}
	if dir := path.Dir(name); dir != "." && !s.made[dir] {
		if err := s.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if len(s.made) > madeMax {
			clear(s.made)
		}
		s.made[dir] = true
	}
	f, err := s.createTemp()
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.root.Rename(s.temp, name)
	}
	if err != nil {
		return errors.Join(err, s.root.Remove(s.temp))
	}
	return nil
}

// createTemp makes the file at s.temp, which must not overwrite anything.
func (s *directorySink) createTemp() (*os.File, error) {
	const attempts = 10
	for n := 1; ; n++ {
		f, err := s.root.OpenFile(s.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if !errors.Is(err, fs.ErrExist) || n == attempts {
			return f, err
		}
		s.temp = tempName()
	}
}

func (s *directorySink) finish(bool) error { return s.root.Close() }
