package main

import (
	"fmt"
	"strings"
	"time"

	"kvd/bench"
	"kvd/lsm"
)

// counters tell what an engine did during one run. They are read between runs, by one goroutine.
type counters struct {
	last lsm.Metrics
}

// since lists what was counted since it was last called, and the shape of the tree now.
func (c *counters) since(now lsm.Metrics) []bench.Stat {
	was := c.last
	c.last = now
	var list []bench.Stat
	add := func(name, format string, args ...any) {
		list = append(list, bench.Stat{Name: name, Value: fmt.Sprintf(format, args...)})
	}
	if records := now.Log.Records - was.Log.Records; records > 0 {
		frames, syncs := now.Log.Frames-was.Log.Frames, now.Log.Syncs-was.Log.Syncs
		add("log", "%d records, %d writes, %d syncs", records, frames, syncs)
		if syncs > 0 {
			add("records per sync", "%.1f", float64(records)/float64(syncs))
		}
	}
	hits := now.Cache.Hits - was.Cache.Hits
	if reads := hits + now.Cache.Misses - was.Cache.Misses; reads > 0 {
		add("block cache", "%.1f %% of %d found", 100*float64(hits)/float64(reads), reads)
	}
	if flushed := now.FlushedBytes - was.FlushedBytes; flushed > 0 {
		written := now.CompactedWrittenBytes - was.CompactedWrittenBytes
		add("tables written", "%s by flushes, %s by %d compactions", mebibytes(flushed),
			mebibytes(written), now.Compactions-was.Compactions)
	}
	if stalls := now.Stalls - was.Stalls; stalls > 0 {
		add("write stalls", "%d, %v", stalls,
			(now.StallTime - was.StallTime).Round(time.Microsecond))
	}
	if paced := now.PaceTime - was.PaceTime; paced > 0 {
		add("writes paced", "%v", paced.Round(time.Microsecond))
	}
	if tree := shape(now); tree != "" {
		add("tables", "%s", tree)
	}
	if now.State != "healthy" {
		add("state", "%s", now.State)
	}
	return list
}

// shape lists the levels that hold tables.
func shape(m lsm.Metrics) string {
	var parts []string
	for level, l := range m.Levels {
		if l.Tables > 0 {
			parts = append(parts, fmt.Sprintf("L%d %s in %d", level, mebibytes(l.Bytes), l.Tables))
		}
	}
	return strings.Join(parts, ", ")
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
