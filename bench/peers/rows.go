package main

import "strings"

// row is one line of the table.
type row struct {
	name  string
	title string
	// latency rows are in microseconds and better when lower; the others are operations per second.
	latency bool
}

// Names of rows, as --rows takes them and as JSON carries them.
const (
	rowFillSeq       = "fillseq"
	rowFillRandom    = "fillrandom"
	rowFillQuiet     = "fillrandom-quiet"
	rowFillSystem    = "fillrandom-system"
	rowOverwrite     = "overwrite"
	rowManyWriters   = "writers16"
	rowSyncOne       = "sync1"
	rowSyncSixteen   = "sync16"
	rowSyncMany      = "sync256"
	rowReadLeft      = "readrandom-left"
	rowReadCompact   = "readrandom-compacted"
	rowZipfLeft      = "readzipfian-left"
	rowZipfCompact   = "readzipfian-compacted"
	rowMissLeft      = "readmissing-left"
	rowMissCompact   = "readmissing-compacted"
	rowMissLastLevel = "readmissing-filtered"
	rowSeekLeft      = "seek10-left"
	rowSeekCompact   = "seek10-compacted"
	rowScan          = "scan-compacted"
	rowBesideReads   = "beside-reads"
	rowBesideWrites  = "beside-writes"
	rowBesideLatency = "beside-p99"
	rowBesideTail    = "beside-p99.9"
	rowPacedReads    = "paced-reads"
	rowPacedWrites   = "paced-writes"
	rowPacedLatency  = "paced-p99"
	rowPacedTail     = "paced-p99.9"

	// On request only, for it takes ten minutes.
	rowSustained = "sustained"

	rowLargeLoad      = "large-load"
	rowLargeRead1     = "large-read1"
	rowLargeRead16    = "large-read16"
	rowLargeRead64    = "large-read64"
	rowLargeOverwrite = "large-overwrite"

	rowScaleGet = "scale-get"
	rowScalePut = "scale-put"
)

// rows are the lines of the table that this run can have.
func (c *config) rows() []row {
	if c.Scale {
		return []row{
			{rowScaleGet, "nanoseconds of a Get", true},
			{rowScalePut, "nanoseconds of a Put", true},
		}
	}
	if c.Large {
		lines := []row{
			{rowLargeLoad, "large: fillrandom till compaction is quiet", false},
			{rowLargeRead1, "large: readrandom, 1 reader", false},
			{rowLargeRead16, "large: readrandom, 16 readers", false},
			{rowLargeRead64, "large: readrandom, 64 readers", false},
		}
		return append(lines, sustainedLines(rowLargeOverwrite, "large: overwrite")...)
	}
	lines := []row{
		{rowFillSeq, "fillseq, 1 writer", false},
		{rowFillRandom, "fillrandom, 1 writer", false},
		{rowFillQuiet, "fillrandom till compaction is quiet", false},
		{rowFillSystem, "fillrandom surviving kill -9", false},
		{rowManyWriters, "fillrandom, 16 writers", false},
		{rowOverwrite, "overwrite, 1 writer", false},
		{rowSyncOne, "synced, 1 writer", false},
		{rowSyncSixteen, "synced, 16 writers", false},
		{rowSyncMany, "synced, 256 writers", false},
		{rowReadLeft, "readrandom, left", false},
		{rowReadCompact, "readrandom, compacted", false},
		{rowZipfLeft, "readzipfian, left", false},
		{rowZipfCompact, "readzipfian, compacted", false},
		{rowMissLeft, "readmissing, left", false},
		{rowMissCompact, "readmissing, compacted", false},
		{rowMissLastLevel, "readmissing, every filter asked", false},
		{rowSeekLeft, "seek + 10 next, left", false},
		{rowSeekCompact, "seek + 10 next, compacted", false},
		{rowScan, "full scan, compacted (pairs)", false},
		{rowBesideReads, "1 reader beside 1 writer: reads", false},
		{rowBesideWrites, "1 reader beside 1 writer: writes", false},
		{rowBesideLatency, "1 reader beside 1 writer: p99", true},
		{rowBesideTail, "1 reader beside 1 writer: p99.9", true},
		{rowPacedReads, "1 reader beside 1 paced writer: reads", false},
		{rowPacedWrites, "1 reader beside 1 paced writer: writes", false},
		{rowPacedLatency, "1 reader beside 1 paced writer: p99", true},
		{rowPacedTail, "1 reader beside 1 paced writer: p99.9", true},
	}
	return append(lines, sustainedLines(rowSustained, "sustained overwrite")...)
}

// selection is the set of rows asked for: names or parts of names.
type selection []string

func (s selection) has(name string) bool {
	if len(s) == 0 {
		return !strings.HasPrefix(name, rowSustained)
	}
	for _, part := range s {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// Facts are figures beside the rows: sizes and times that explain them.
const (
	factSettle      = "settle s"
	factCompact     = "compact s"
	factRSS         = "RSS MB"
	factPeak        = "peak RSS MB"
	factDiskLeft    = "disk MB, left"
	factDiskCompact = "disk MB, compacted"
	factForeign     = "foreign CPU %"
	factCollector   = "GC % of CPU, all"
)

// Facts of loading and of overwriting a tree for long.
const (
	settleSuffix = " settle s"
	writeSuffix  = " write amplification"
	spaceSuffix  = " space amplification"
	factSteady   = "overwrite last/third minute %"
	factSlow     = "overwrites over 50 ms"
	factBlamed   = "of these, not for a pause of the machine"
	factPause    = "longest pause of a processor beside them, ms"
)

func facts() []string {
	return []string{
		factRSS, factPeak, factDiskLeft, factDiskCompact, factSettle, factCompact,
		"load" + settleSuffix, "load" + writeSuffix, "load" + spaceSuffix,
		"overwrite" + settleSuffix, "overwrite" + writeSuffix, "overwrite" + spaceSuffix,
		factSteady, factSlow, factBlamed, factPause,
		factCollector, factForeign,
	}
}
