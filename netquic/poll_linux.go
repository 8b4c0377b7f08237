package netquic

import (
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"kvd/lsm/procs"
)

// pollingSocket looks for the next packet again and again while that is expected soon, and does not
// go to sleep for it. A thread that sleeps has to be woken, a processor without a thread too, which
// takes 40 to 60 us on a virtual machine: of the 150 us that a GET of one caller took, 110 were
// that. It reads for one goroutine, of quic-go.
//
// While goroutines are ready only the runtime's monitor looks at the other sockets of a process,
// every 10 ms at the latest. A node has the one for all requests, and others for metrics, which
// were answered 0.5 ms later in the worst of 20 cases. A program with several clients has them
// wait for each other at most so long.
//
// It does so where [procs.Idle] says that the process has a processor to spare, and gives way: to
// goroutines at each look, and to other threads that want the processor.
type pollingSocket struct {
	*net.UDPConn
	batch    *ipv4.PacketConn
	raw      syscall.RawConn
	look     func(fd uintptr) // sets there
	there    bool             // a packet is, or an error
	expected expectation
	crowd    crowd
}

// wanted is how long giving the processor to another thread takes when there was one.
const wanted = 10 * time.Microsecond

// polling makes a socket a pollingSocket.
func polling(c *net.UDPConn) net.PacketConn {
	raw, err := c.SyscallConn()
	if err != nil {
		return c
	}
	s := &pollingSocket{UDPConn: c, batch: ipv4.NewPacketConn(c), raw: raw, expected: nothing}
	s.look = func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		s.there = n > 0 || err != nil
	}
	return s
}

// ReadBatch is what quic-go reads by.
func (s *pollingSocket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	start := time.Now()
	if s.expected.soon() && procs.Idle() && !s.crowd.skip() {
		if s.poll(start) {
			s.crowd.met()
		} else {
			s.crowd.gone()
		}
	}
	n, err := s.batch.ReadBatch(ms, flags)
	s.expected.waited(time.Since(start))
	return n, err
}

// poll returns when there is something to read or nothing is to be expected any more, or because
// another thread wanted the processor.
func (s *pollingSocket) poll(start time.Time) (crowded bool) {
	for now := start; now.Sub(start) < pollMost && !crowded; {
		if s.raw.Control(s.look) != nil || s.there {
			break
		}
		runtime.Gosched()
		before := time.Now()
		_, _, _ = syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
		now = time.Now()
		crowded = now.Sub(before) > wanted
		turns.took(now)
	}
	return crowded
}

// turns are those of all polls of the process, one at a time, for there is one processor: a client
// of a cluster polls a socket for each node.
var turns turnClock

// turnClock tells procs of the time from each turn to the next.
type turnClock struct{ last atomic.Int64 } // since polledFrom

var polledFrom = time.Now()

func (c *turnClock) took(now time.Time) {
	at := now.Sub(polledFrom)
	// Within more than that goroutines or threads had something to do.
	if d := at - time.Duration(c.last.Swap(int64(at))); d > 0 && d < wanted/2 {
		procs.Polled(d)
	}
}
