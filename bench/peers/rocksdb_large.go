package main

import (
	"fmt"
	"os"
	"path/filepath"
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
	if !s.wants(rowLargeOverwrite) {
		return nil
	}
	return s.rocksOverwriteLarge(dir, rowLargeOverwrite)
}

// rocksLoadLarge counts the time of the whole process, since db_bench does not time background
// work. db_bench holds the order of the keys in memory, eight bytes for each, which are no memory
// of the engine's: the limit is higher by so much until the load is over.
func (s *session) rocksLoadLarge(dir, row string) error {
	all, err := s.amplify(dir, "load", func() (o outcome, err error) {
		if s.Group != nil {
			if err := s.Group.set(s.Limit + 8*int64(s.Keys)); err != nil {
				return o, err
			}
		}
		start := time.Now()
		_, err = s.dbBench(dir, "filluniquerandom,waitforcompaction", "--manual_wal_flush=1")
		if err == nil && s.Group != nil {
			err = s.Group.set(s.Limit)
		}
		return outcome{ops: s.keys, took: time.Since(start)}, err
	})
	if err == nil {
		s.show(row, all.rate())
	}
	return err
}

func (s *session) rocksOverwriteLarge(dir, row string) error {
	_, err := s.amplify(dir, "overwrite", func() (outcome, error) {
		cells, err := s.dbBench(dir, "overwrite,waitforcompaction", "--manual_wal_flush=1",
			"--use_existing_db=1", s.seconds(s.Sustain))
		if err != nil {
			return outcome{}, err
		}
		s.show(row, cells[0].rate)
		return outcome{ops: uint64(cells[0].rate * cells[0].seconds)}, nil
	})
	return err
}
