package netquic

import "time"

// pollMost is how long a wait for a packet may be polled for. A durable write of one caller keeps
// the packets of both ends apart by 200 to 400 us. With 200 us here PUTs by one and 16 callers were
// 2.4 and 34 thousand a second, with 500 4.2 and 49, without 2.1 and 31. (Seastar polls for 200 us
// before it sleeps.)
const pollMost = 500 * time.Microsecond

// expectation is how long the wait for the next packet is likely to be: the mean of the last few.
type expectation time.Duration

// waitMost bounds what one wait counts for: one long wait says little of the next.
const waitMost = 4 * pollMost

// nothing is what is expected before there was a packet.
const nothing = expectation(waitMost)

func (e *expectation) waited(d time.Duration) {
	*e += (expectation(min(d, waitMost)) - *e) / 8
}

// soon reports whether it is likely to be short enough.
func (e expectation) soon() bool { return time.Duration(e) < pollMost }

// crowd is how many waits are not polled for because other threads wanted the processor: more each
// time that a poll finds it so, up to crowdMost, and half as many when one does not. Where nobody
// sleeps, waking is cheap: three nodes and a client on two processors lost 4 to 10 % by polling on.
type crowd struct{ last, left int }

const crowdMost = 63

func (c *crowd) met() {
	c.last = min(2*c.last+1, crowdMost)
	c.left = c.last
}

func (c *crowd) gone() { c.last /= 2 }

// skip reports whether the next wait is one of them.
func (c *crowd) skip() bool {
	if c.left == 0 {
		return false
	}
	c.left--
	return true
}
