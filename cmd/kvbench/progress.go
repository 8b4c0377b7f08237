package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"kvd/bench"
)

// progress shows each second of a run on stderr: in one line that is written over on a terminal,
// as a line of its own elsewhere. interval may be called from any goroutine.
type progress struct {
	w        io.Writer
	terminal bool

	mu   sync.Mutex
	name string // guarded by mu
	open bool   // guarded by mu: the line has no end yet
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

func (p *progress) begin(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.name = name
}

func (p *progress) interval(v bench.Interval) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("%-17s %5.0f s  %10.0f ops/s  p50 %9.1f µs  p99 %9.1f µs  max %10.1f µs",
		p.name, v.StartSeconds+v.Seconds, v.OpsPerSecond, v.P50Micros, v.P99Micros, v.MaxMicros)
	if v.Errors > 0 {
		line += fmt.Sprintf("  %d errors", v.Errors)
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r\033[K%s", line)
		p.open = true
		return
	}
	fmt.Fprintln(p.w, line)
}

// end clears the line that was written over.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		fmt.Fprint(p.w, "\r\033[K")
		p.open = false
	}
}
