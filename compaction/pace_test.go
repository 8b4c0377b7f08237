package compaction

import (
	"math/rand/v2"
	"testing"
	"time"

	"kvd/sstable"
)

func TestDelay(t *testing.T) {
	const drain = 10 << 20
	for _, c := range []struct {
		pressure float64
		bytes    int
		want     time.Duration
	}{
		{0, 1 << 20, 0},
		{0.5, 1 << 20, 0},
		{0.75, 1 << 20, 25 * time.Millisecond},
		{1, 1 << 20, 100 * time.Millisecond},
		{1.5, 1 << 20, 400 * time.Millisecond},
		{1, 0, 0},
		{1000, 1 << 20, maxDelay},
	} {
		if got := Delay(c.pressure, c.bytes, drain); got != c.want {
			t.Errorf("Delay(%v, %d) = %v, want %v", c.pressure, c.bytes, got, c.want)
		}
	}
	if got := Delay(1, 1<<20, 0); got != time.Second {
		t.Errorf("with no drain measured the delay is %v", got)
	}
}

// TestDelayContinuous: never less for more pressure or more bytes, and no step larger than the
// step in pressure explains.
func TestDelayContinuous(t *testing.T) {
	const drain, step = 10 << 20, 1.0 / 1024
	for _, size := range []int{100, 10_000, 1 << 20} {
		prev := time.Duration(0)
		for p := 0.0; p < 3; p += step {
			d := Delay(p, size, drain)
			slope := 2 * (p + step - freePressure) / (1 - freePressure) / (1 - freePressure)
			limit := max(slope, 0) * step * float64(size) / drain * float64(time.Second)
			if d < prev || float64(d-prev) > limit+1 {
				t.Fatalf("%d bytes at pressure %.4f: %v after %v", size, p, d, prev)
			}
			if d > Delay(p, size+1, drain) {
				t.Fatalf("pressure %v: %d bytes wait longer than one more", p, size)
			}
			prev = d
		}
	}
}

// loop is a database in simulated time: one writer, one compaction worker of a fixed
// speed, and between them nothing but Pressure, Drain and Delay.
type loop struct {
	*simTree
	t         testing.TB
	rand      *rand.Rand
	now       float64 // seconds
	buffered  uint64
	running   Job
	added     []*sstable.Meta
	busyUntil float64 // 0: no job
	took      float64
	drain     Drain
	pressure  float64
	worst     float64       // pressure
	longest   time.Duration // delay of one write
}

const (
	loopSpeed      = 100 << 20 // bytes per second read and written by the worker
	loopWriteBytes = 16 << 10
	loopSpace      = 128 * simFlushEntries
)

// write runs the loop for some seconds with writes offered at rate bytes per second and returns
// what was taken in each second.
func (l *loop) write(seconds int, rate func(second float64) float64) []float64 {
	taken := make([]float64, seconds)
	start := l.now
	due := l.now
	for {
		r := max(rate(l.now-start), 1)
		due = max(due, l.now-0.1) + loopWriteBytes/r
		delay := Delay(l.pressure, loopWriteBytes, l.drain.Rate())
		l.longest = max(l.longest, delay)
		l.advance(max(due, l.now+delay.Seconds()))
		if int(l.now-start) >= seconds {
			return taken
		}
		taken[int(l.now-start)] += loopWriteBytes
		l.buffered += loopWriteBytes
		if l.buffered >= simFlushBytes {
			l.buffered = 0
			l.flush(simShapes[0].flush(l.rand, 0, loopSpace))
			l.advance(l.now)
		}
	}
}

// advance lets the worker go on until the given time.
func (l *loop) advance(to float64) {
	for {
		if l.busyUntil > to {
			break
		}
		if l.busyUntil > 0 {
			l.now = l.busyUntil
			l.drain.Observe(&l.running, time.Duration(l.took*float64(time.Second)))
			l.install(&l.running, l.added)
			l.busyUntil = 0
		}
		j, ok := l.picker.Pick(&l.levels, nil)
		if !ok {
			break
		}
		l.running, l.added = j, l.merge(&j)
		l.took = 1e-4
		if !j.Move {
			l.took += float64(j.InputBytes()+tablesBytes(l.added)) / loopSpeed
		}
		l.busyUntil = l.now + l.took
	}
	l.now = max(l.now, to)
	var running []Progress
	if l.busyUntil > 0 {
		share := 1 - (l.busyUntil-l.now)/l.took
		running = []Progress{{&l.running, uint64(share * float64(l.running.inputEntries()))}}
	}
	l.pressure = Pressure(&l.levels, l.config, running)
	l.worst = max(l.worst, l.pressure)
}

func startLoop(t testing.TB) *loop {
	l := &loop{simTree: makeSimTree(simConfig), t: t, rand: rand.New(rand.NewPCG(7, 7))}
	for range 2000 {
		l.flush(simShapes[0].flush(l.rand, 0, loopSpace))
		l.settle(t)
	}
	l.write(60, steady(2<<20))
	l.worst, l.longest = 0, 0
	return l
}

func steady(rate float64) func(float64) float64 {
	return func(float64) float64 { return rate }
}

// TestPacingLoop offers a step, a ramp and a burst to a tree that can absorb 14 to 18 MiB/s of
// random writes. What is taken must follow what can be absorbed without swinging or stopping, the
// tree must not get out of hand, and writes must be free again as soon as the load is gone.
func TestPacingLoop(t *testing.T) {
	const low, capacity = 2 << 20, 15 * (1 << 20)
	for _, load := range []struct {
		name    string
		seconds int
		settled int // seconds after which the taken rate must be steady
		rate    func(second float64) float64
	}{
		{"low", 60, 0, steady(low)},
		{"step", 200, 10, steady(4 * capacity)},
		{"ramp", 200, 100, func(s float64) float64 { return (s + 1) / 50 * capacity }},
		{"burst", 4, 2, steady(8 * capacity)},
		{"flood", 60, 10, steady(50 * capacity)},
	} {
		t.Run(load.name, func(t *testing.T) {
			l := startLoop(t)
			taken := l.write(load.seconds, load.rate)
			t.Logf("worst pressure %.2f, longest delay %v, drain %.1f MiB/s", l.worst,
				l.longest, l.drain.Rate()/(1<<20))
			if l.worst > 1.25 || l.longest > 5*time.Millisecond {
				t.Errorf("pressure up to %.2f, delays up to %v", l.worst, l.longest)
			}
			if load.name == "low" {
				if l.longest > 0 {
					t.Errorf("an easy load is delayed by up to %v", l.longest)
				}
				return
			}
			for i, bytes := range taken[load.settled:] {
				if bytes < 0.7*capacity || bytes > 1.5*capacity {
					t.Errorf("%.1f MiB taken in second %d", bytes/(1<<20), load.settled+i)
				}
			}
			// Afterwards: three seconds later all of an easy load is taken, next to undelayed.
			l.write(3, steady(low))
			l.longest = 0
			for i, bytes := range l.write(20, steady(low)) {
				if bytes < 0.98*low {
					t.Errorf("second %d after: %.2f MiB taken", i+3, bytes/(1<<20))
				}
			}
			if l.longest > 200*time.Microsecond {
				t.Errorf("writes still delayed by up to %v afterwards", l.longest)
			}
		})
	}
}

func TestWorkers(t *testing.T) {
	for _, c := range []struct {
		pressure         float64
		processors, want int
	}{
		{0, 1, 1}, {0, 2, 1}, {0, 3, 1}, {0, 8, 4}, {freePressure, 8, 4},
		{freePressure + 0.01, 1, 2}, {freePressure + 0.01, 2, 3}, {5, 8, 9},
	} {
		if got := Workers(c.pressure, c.processors); got != c.want {
			t.Errorf("%v with %d processors: %d, want %d", c.pressure, c.processors, got, c.want)
		}
	}
}

func TestDrain(t *testing.T) {
	var d Drain
	if d.Rate() != startDrainBytes {
		t.Errorf("unmeasured rate is %v", d.Rate())
	}
	zero := Job{Inputs: [2][]*sstable.Meta{{{Bytes: 100 << 20}}}}
	deep := Job{Level: 3, Inputs: [2][]*sstable.Meta{{{Bytes: 100 << 20}}}}
	for range 100 {
		d.Observe(&zero, 2*time.Second)
		d.Observe(&deep, 8*time.Second)
	}
	if r := d.Rate() / (1 << 20); r < 7 || r > 13 {
		t.Errorf("rate is %.1f MiB/s, want about 10", r)
	}
}
