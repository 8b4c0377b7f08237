package lsm

import (
	"cmp"
	"slices"
	"time"
)

// scrubMinShare bounds how far the plan of a scrub may be behind: it is made anew at least so many
// times in a period, and a file that is overdue is read as if it had that part of a period left.
const scrubMinShare = 64

// scrubItem is one file that the database needs, as the scrub sees it: a table, the log segment of
// a memtable, or the manifest with CURRENT, when it is neither.
type scrubItem struct {
	table *table
	mem   *memtable
	mark  *scrubMark
	bytes int64         // of the file, about
	read  time.Duration // when it was read last, or made; since the epoch of the DB
	turn  uint64        // decides among files read at the same moment
}

// sortScrub puts the files in the order in which they are due. All of them have the same period,
// so that is the order in which they were read last.
func sortScrub(items []scrubItem) {
	slices.SortFunc(items, func(a, b scrubItem) int {
		return cmp.Or(cmp.Compare(a.read, b.read), cmp.Compare(a.turn, b.turn))
	})
}

// scrubRate returns the bytes per second to read at so that each file, read in the order of the
// list, is read whole before it is due: a period after it was read last. It is the steepest of the
// lines from now to the due times (earliest deadline first; Liu and Layland, 1973). A plain
// total/period would be too slow for a file whose neighbours have been removed. more is what has to
// be read besides, negative for what has been read of the first file.
func scrubRate(items []scrubItem, more int64, now, period time.Duration) float64 {
	rate, sum := 0.0, more
	for i := range items {
		sum += items[i].bytes
		left := max(items[i].read+period-now, period/scrubMinShare, 1)
		rate = max(rate, float64(max(sum, 1))/left.Seconds())
	}
	return rate
}

// scrubPause returns how long so many bytes take at the rate; nothing if there are none.
func scrubPause(bytes, rate float64) time.Duration {
	return time.Duration(min(bytes/max(rate, 1e-9), float64(1<<32)) * float64(time.Second))
}

// scrubRest is how long a scrub rests at least for each time that it works: three quarters of the
// disk and of a processor are left to others, however far behind it is.
const scrubRest = 3
