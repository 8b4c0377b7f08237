package netquic

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// processorTime returns what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPeerSend sends messages of 150 bytes to another node of this process. "paced" senders
// wait for the arrival of their message, as those who ask a replica do for its answer; the others
// send as fast as there is room, and rest when there is none.
func BenchmarkPeerSend(b *testing.B) {
	for _, paced := range []bool{false, true} {
		for _, senders := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("paced=%v/senders=%d", paced, senders), func(b *testing.B) {
				benchPeerSend(b, senders, paced)
			})
		}
	}
}

func benchPeerSend(b *testing.B, senders int, paced bool) {
	nodes := cluster(b, 2, Options{}, PeerOptions{})
	arrived := make([]chan struct{}, senders)
	for i := range arrived {
		arrived[i] = make(chan struct{}, 1)
	}
	var received atomic.Int64
	all := make(chan struct{}, 1)
	goal := int64(0)
	nodes[1].in.handle(func(_ string, msg []byte) {
		if paced {
			arrived[msg[0]] <- struct{}{}
		}
		if received.Add(1) == goal {
			all <- struct{}{}
		}
	})
	run := func(n int64) {
		goal = n
		received.Store(0)
		var left atomic.Int64
		left.Store(n)
		var wg sync.WaitGroup
		for i := range senders {
			wg.Go(func() {
				msg := make([]byte, 150)
				msg[0] = byte(i)
				for left.Add(-1) >= 0 {
					for !nodes[0].peers.Send("n1", Request, msg) {
						time.Sleep(100 * time.Microsecond)
					}
					if paced {
						<-arrived[i]
					}
				}
			})
		}
		wg.Wait()
		<-all
	}
	run(int64(senders) * 20)
	b.ReportAllocs()
	b.ResetTimer()
	begun, used := time.Now(), processorTime(b)
	run(int64(b.N))
	b.ReportMetric(float64(b.N)/time.Since(begun).Seconds(), "msgs/s")
	b.ReportMetric(float64(processorTime(b)-used)/float64(b.N), "cpu-ns/msg")
}
