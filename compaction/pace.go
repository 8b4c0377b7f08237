package compaction

import (
	"math"
	"time"
)

const (
	// freePressure is the pressure up to which writes are not slowed at all.
	freePressure = 0.5
	// minDrainBytes is the least drain rate believed in, per second: a measurement of nothing,
	// after a pause say, must not stop writes.
	minDrainBytes = 1 << 20
	// maxDelay bounds the wait for one write.
	maxDelay = time.Second
)

// Delay returns how long the stream of writes should be occupied by one write of the given bytes
// at the given pressure. drain is the rate, in bytes of writes per second, at which compaction
// absorbs them while it works; it must be measured over the time in which it worked, or idle
// hours would look like a slow disk.
//
// The delay is 0 up to freePressure and grows with the square of what is above: at pressure 1
// writes come as fast as drain, so that is where a steady overload settles (but see Drain); above,
// slower, so that a backlog shrinks. It is continuous and monotone in the pressure and in
// the bytes, it never jumps and never stops writes: there is no pressure at which progress ends.
//
// It is a delay of the stream: with several writers, each waits for its turn and then for its
// delay, as in a queue with one server.
func Delay(pressure float64, bytes int, drain float64) time.Duration {
	if pressure <= freePressure || bytes <= 0 {
		return 0
	}
	excess := (pressure - freePressure) / (1 - freePressure)
	seconds := excess * excess * float64(bytes) / max(drain, minDrainBytes)
	return time.Duration(min(seconds*float64(time.Second), float64(maxDelay)))
}

// Workers returns how many goroutines may merge at a time at the given pressure: half of the
// processors, because the other half has readers and writers to serve. At a pressure that slows
// writes down, the processors of writers that wait are free, and WorkersMax may merge until it is
// over.
func Workers(pressure float64, processors int) int {
	if pressure > freePressure {
		return WorkersMax(processors)
	}
	return max(1, processors/2)
}

// WorkersMax is one more than there are processors: merges of a tree larger than memory wait for
// the disk for a third of their time. On two processors, a tree of 20 GB in 4 GB of memory took in
// 4 to 7 % more writes with 3 goroutines than with 2, and no more with 4.
func WorkersMax(processors int) int { return processors + 1 }

// drainMemory is how much working time the drain estimate looks back over.
const drainMemory = 60 * time.Second

// startDrainBytes is the drain rate assumed before anything was measured, which means a job out of
// level 0: the first job of all may be one below, which absorbs nothing.
const startDrainBytes = 64 << 20

// Drain estimates the rate Delay wants from finished jobs: bytes that left level 0 over the time
// that workers spent in jobs of all levels, the recent ones counting most. It changes only when a
// job ends, so an idle database keeps its estimate. The zero Drain is ready. Not safe for
// concurrent use.
//
// The bytes are those of tables. Where level 0 is compressed (Config.Compress) they are fewer than
// were written, and an overload settles at a lower pressure than 1: at 0.85 when values become half
// as large. Tried: bytes of pairs, which made no difference that could be told from noise.
type Drain struct {
	absorbed float64 // bytes
	busy     float64 // seconds
}

// Observe takes in a finished job that took the given time, of all its workers together.
func (d *Drain) Observe(j *Job, took time.Duration) {
	if j.Move {
		return // no bytes were handled, so it says nothing of the rate
	}
	seconds := took.Seconds()
	fade := math.Exp(-seconds / drainMemory.Seconds())
	d.absorbed *= fade
	d.busy = d.busy*fade + seconds
	if j.Level == 0 {
		d.absorbed += float64(tablesBytes(j.Inputs[0]))
	}
}

// Rate returns the bytes per second that one worker, merging without a pause, takes out of
// level 0. Multiply by the number of workers.
func (d *Drain) Rate() float64 {
	if d.absorbed == 0 || d.busy < 1e-3 {
		return startDrainBytes
	}
	return d.absorbed / d.busy
}
