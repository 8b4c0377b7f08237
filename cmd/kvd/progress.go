package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far a long command is: a bar on a terminal, elsewhere a line every few
// seconds, always on stderr. add may be called from many goroutines.
type progress struct {
	bar   *progressbar.ProgressBar // nil without a terminal
	items atomic.Int64
	bytes atomic.Int64
	keys  int64 // to come, when keys are counted and not bytes
	quit  chan struct{}
	ended chan struct{}
}

const progressInterval = 5 * time.Second

// startProgress begins to show. total is the number of bytes to come, -1 when nobody knows.
func (p *program) startProgress(doing string, total int64) *progress {
	return p.show(doing, total, &progress{})
}

// startCounting is startProgress for what is counted in keys: addKeys.
func (p *program) startCounting(doing string, keys int64) *progress {
	return p.show(doing, keys, &progress{keys: keys})
}

func (p *program) show(doing string, total int64, g *progress) *progress {
	g.quit, g.ended = make(chan struct{}), make(chan struct{})
	if isTerminal(p.stderr) {
		close(g.ended)
		g.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.stderr),
			progressbar.OptionSetDescription(doing),
			progressbar.OptionShowBytes(g.keys == 0),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
		return g
	}
	go g.lines(p.stderr, doing)
	return g
}

func (g *progress) add(bytes int) {
	g.items.Add(1)
	g.addBytes(int64(bytes))
}

// addBytes is for work that is not counted in pairs.
func (g *progress) addBytes(bytes int64) {
	g.bytes.Add(bytes)
	if g.bar != nil {
		_ = g.bar.Add64(bytes) // a terminal that goes away must not end the work
	}
}

func (g *progress) addKeys(n int64) { g.addBytes(n) }

func (g *progress) lines(w io.Writer, doing string) {
	defer close(g.ended)
	start := time.Now()
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n, pairs := g.bytes.Load(), ""
			if g.keys > 0 {
				fmt.Fprintf(w, "%s: %s of %s keys\n", doing, grouped(n), grouped(g.keys))
				continue
			}
			if items := g.items.Load(); items > 0 {
				pairs = fmt.Sprintf("%d pairs, ", items)
			}
			fmt.Fprintf(w, "%s: %s%s, %s\n", doing, pairs, megabytes(n),
				rate(n, time.Since(start)))
		case <-g.quit:
			return
		}
	}
}

// stop ends the display.
func (g *progress) stop() {
	if g.bar != nil {
		_ = g.bar.Finish()
		return
	}
	close(g.quit)
	<-g.ended
}
