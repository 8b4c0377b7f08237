package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// rocksLarge is stageLarge. Each number of threads needs a process, which opens the directory anew
// and reads for a cell before the one that counts, since its cache begins empty.
func rocksLarge(s *session) error {
	dir := filepath.Join(s.Dir, "large")
	defer os.RemoveAll(dir)
	if err := s.rocksLoadLarge(dir, rowLargeLoad); err != nil {
		return err
	}
	for _, c := range largeReads {
		if !s.wants(c.row) {
			continue
		}
		cells, err := s.dbBench(dir, "readrandom,readrandom", "--use_existing_db=1",
			fmt.Sprintf("--threads=%d", c.readers), s.seconds(s.Cell))
		if err != nil {
			return err
		}
		s.show(c.row, cells[len(cells)-1].rate)
	}
	if !s.wants(sustainedRows(rowLargeOverwrite)...) {
		return nil
	}
	return s.rocksOverwriteLarge(dir, rowLargeOverwrite)
}

// rocksLoadLarge counts the time from the start of the process until the last table was written,
// since db_bench does not time background work and sleeps for five seconds to wait for it. It holds
// the order of the keys in memory, eight bytes for each, which are no memory of the engine's: the
// limit is higher by so much until the load is over.
func (s *session) rocksLoadLarge(dir, row string) error {
	all, err := s.amplify(dir, "load", func() (o outcome, err error) {
		if s.Group != nil {
			if err := s.Group.set(s.Limit + 8*int64(s.Keys)); err != nil {
				return o, err
			}
		}
		start := time.Now()
		cells, err := s.dbBench(dir, "filluniquerandom,waitforcompaction",
			"--manual_wal_flush=1")
		if err != nil {
			return o, err
		}
		if s.Group != nil {
			err = s.Group.set(s.Limit)
		}
		wrote := time.Duration(cells[0].seconds * float64(time.Second))
		return outcome{ops: s.keys, took: max(wrote, newestTable(dir).Sub(start))}, err
	})
	if err == nil && row != "" {
		s.show(row, all.rate())
	}
	return err
}

// rocksSustained is stageSustained.
func rocksSustained(s *session) error {
	if !s.wants(sustainedRows(rowSustained)...) {
		return nil
	}
	dir := filepath.Join(s.Dir, "sustained")
	defer os.RemoveAll(dir)
	if err := s.rocksLoadLarge(dir, ""); err != nil {
		return err
	}
	return s.rocksOverwriteLarge(dir, rowSustained)
}

func (s *session) rocksOverwriteLarge(dir, row string) error {
	seconds := filepath.Join(s.Dir, "seconds.csv")
	defer os.Remove(seconds)
	_, err := s.amplify(dir, "overwrite", func() (outcome, error) {
		unwatch := s.watch()
		cells, err := s.dbBench(dir, "overwrite,waitforcompaction", "--manual_wal_flush=1",
			"--use_existing_db=1", s.seconds(s.Sustain), "--histogram=1",
			"--report_interval_seconds=1", "--report_file="+seconds)
		unwatch()
		if err != nil {
			return outcome{}, err
		}
		c := cells[0]
		s.show(row, c.rate)
		s.showSteady(row, steady{
			windows: windowsOf(contents(seconds), sustainWindow(s.Sustain)),
			tail:    c.tail, longest: c.longest, slowWrites: c.slow,
		})
		return outcome{ops: uint64(c.rate * c.seconds)}, nil
	})
	return err
}

func newestTable(dir string) (newest time.Time) {
	walk(dir, func(path string, info os.FileInfo) {
		if filepath.Ext(path) == ".sst" && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	})
	return newest
}

// windowsOf gathers the lines "second,operations" of db_bench's report file into whole windows.
func windowsOf(report string, window time.Duration) []float64 {
	width := max(1, int(window.Seconds()))
	var out []float64
	sum, seen := 0.0, 0
	for line := range strings.Lines(report) {
		_, ops, ok := strings.Cut(strings.TrimSpace(line), ",")
		v, err := strconv.ParseFloat(ops, 64)
		if !ok || err != nil {
			continue // the head
		}
		sum += v
		if seen++; seen == width {
			out = append(out, sum/float64(width))
			sum, seen = 0, 0
		}
	}
	return out
}
