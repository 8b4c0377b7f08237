package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	quietWindow  = 100 * time.Millisecond
	quietWindows = 3
	quietCPU     = 5 * time.Millisecond // per window
	quietMax     = 90 * time.Second     // of a tree that memory holds
)

// settle waits until the engine's background work is over and returns how long that took.
//
// The rule knows nothing of any engine, so that it is the same for all: the work is over when,
// for three windows of 100 ms in a row, the process used less than 5 % of a core and no file of
// the directory appeared, vanished or was written. The windows are not counted. The second
// result is false when the process was still busy after longest.
func settle(dir string, longest time.Duration) (time.Duration, bool) {
	start := time.Now()
	files, cpu, quiet := listing(dir), processCPU(), 0
	for {
		time.Sleep(quietWindow)
		nowFiles, nowCPU := listing(dir), processCPU()
		if nowFiles == files && nowCPU-cpu < quietCPU {
			quiet++
		} else {
			quiet = 0
		}
		files, cpu = nowFiles, nowCPU
		took := time.Since(start)
		if quiet == quietWindows {
			return max(took-quietWindows*quietWindow, 0), true
		}
		if took > longest {
			return took, false
		}
	}
}

// quiet is the directory of a store whose Settle follows the rule above.
type quiet string

// Settle returns when the background work is over, or after 90 s.
func (q quiet) Settle() error {
	if took, ok := settle(string(q), quietMax); !ok {
		return fmt.Errorf("peers: still busy after %v", took)
	}
	return nil
}

// listing is the names and times of change below dir as one comparable string.
func listing(dir string) string {
	var b strings.Builder
	walk(dir, func(path string, info os.FileInfo) {
		b.WriteString(path)
		b.WriteByte(' ')
		b.WriteString(info.ModTime().String())
		b.WriteByte('\n')
	})
	return b.String()
}

// diskBytes is what dir occupies: blocks, not lengths, since engines preallocate and truncate.
func diskBytes(dir string) int64 {
	total := int64(0)
	walk(dir, func(_ string, info os.FileInfo) {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			total += st.Blocks * 512
		}
	})
	return total
}

func walk(dir string, visit func(path string, info os.FileInfo)) {
	_ = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() { // a file may vanish under the walk
			visit(path, info)
		}
		return nil
	})
}
