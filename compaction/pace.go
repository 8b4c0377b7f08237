package compaction

import "time"

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
// writes come as fast as compaction takes them away, so that is where a steady overload settles;
// above, slower, so that a backlog shrinks. It is continuous and monotone in the pressure and in
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
