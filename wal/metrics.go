package wal

import "math/bits"

// GroupBuckets is the number of buckets of Metrics.Groups.
const GroupBuckets = 16

// Metrics is a snapshot of a writer's counters, all since NewWriter.
type Metrics struct {
	Records uint64 // appended
	Frames  uint64 // written, the END frame included
	Bytes   uint64 // written as frames, padding included
	Padding uint64 // written ahead of the frames, in zeros, bytes
	Syncs   uint64 // of segment files

	// Groups counts syncs by the number of records each made durable:
	// bucket i has those of [2^(i-1), 2^i) records, bucket 0 those of none, the last all above.
	Groups [GroupBuckets]uint64
}

func (m *Metrics) countGroup(records uint64) {
	m.Groups[min(bits.Len64(records), GroupBuckets-1)]++
}

// Metrics returns a snapshot of the counters. Safe for concurrent use.
func (w *Writer) Metrics() Metrics {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.metrics
	m.Records = w.records
	return m
}
