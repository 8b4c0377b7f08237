package netquic

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"kvd/lsm/procs"
)

func newPolling(t *testing.T) (*pollingSocket, net.Conn) {
	t.Helper()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := polling(udp).(*pollingSocket)
	to, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close(); s.Close() })
	return s, to
}

func oneMessage() []ipv4.Message {
	return []ipv4.Message{{Buffers: [][]byte{make([]byte, 1500)}}}
}

// A poll ends with the first packet, which is read then, at its limit, and when the socket is
// closed. Goroutines run meanwhile, on the only processor too.
func TestPoll(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s, to := newPolling(t)
	var ran atomic.Bool
	go func() {
		ran.Store(true)
		_, _ = to.Write([]byte("packet"))
	}()
	for end := time.Now().Add(10 * time.Second); !s.there && time.Now().Before(end); {
		s.poll(time.Now())
	}
	if !s.there || !ran.Load() {
		t.Fatalf("there is a packet: %v; the goroutine that sends it has run: %v", s.there, ran.Load())
	}
	ms := oneMessage()
	if n, err := s.ReadBatch(ms, 0); n != 1 || string(ms[0].Buffers[0][:ms[0].N]) != "packet" {
		t.Errorf("read %d, %v: %q", n, err, ms[0].Buffers[0][:ms[0].N])
	}
	s.poll(time.Now())
	if s.there {
		t.Error("another packet is there")
	}
	if n := testing.AllocsPerRun(10, func() { s.poll(time.Now()) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	s.Close()
	s.poll(time.Now())
	if _, err := s.ReadBatch(ms, 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed socket: %v", err)
	}
}

// What several sockets of a client of a cluster have polled for was counted once for each of them.
func TestPollsAreCountedOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	before, start := procs.PolledSoFar(), time.Now()
	var wg sync.WaitGroup
	for range 3 {
		s, _ := newPolling(t)
		wg.Go(func() {
			for range 100 {
				s.poll(time.Now())
			}
		})
	}
	wg.Wait()
	polled, wall := procs.PolledSoFar()-before, time.Since(start)
	if polled <= 0 || polled > wall {
		t.Errorf("%v were polled for in %v", polled, wall)
	}
}

// A poll ends when other threads want the processor.
func TestPollGivesWay(t *testing.T) {
	s, _ := newPolling(t)
	var stop atomic.Bool
	defer stop.Store(true)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * runtime.NumCPU()))
	for range 2 * runtime.NumCPU() { // so many threads that some have to take turns with this one
		go func() {
			runtime.LockOSThread()
			for !stop.Load() {
			}
		}()
	}
	for end := time.Now().Add(20 * time.Second); !s.poll(time.Now()); {
		if time.Now().After(end) {
			t.Fatal("it polls on although all processors are wanted")
		}
	}
}
