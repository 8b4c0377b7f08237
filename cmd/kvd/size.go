package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a flag for a number of bytes: 65536, 64KiB, 64MiB, 1GiB, or decimal 64MB.
type byteSize int64

var byteUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

func (s *byteSize) Set(text string) error {
	number := strings.TrimRight(text, "KMGTkiB")
	unit := text[len(number):]
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	for _, u := range byteUnits {
		if err == nil && u.name == unit {
			if n < 0 || n > math.MaxInt64/u.bytes {
				break
			}
			*s = byteSize(n * u.bytes)
			return nil
		}
	}
	return fmt.Errorf("must be a size such as 64MiB")
}

func (s *byteSize) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if n := byteUnits[u].bytes; *s != 0 && int64(*s)%n == 0 {
			return strconv.FormatInt(int64(*s)/n, 10) + byteUnits[u].name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

func (s *byteSize) Type() string { return "size" }
