package main

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// udpProxy carries the packets of the connections that one node makes to another, and loses, repeats,
// delays and reorders them when it is told to.
type udpProxy struct {
	socket *net.UDPConn
	to     *net.UDPAddr

	cutThere, cutBack         atomic.Bool  // stop packets in one direction
	lossPercent, twicePercent atomic.Int64 // of packets in both
	delay                     atomic.Int64 // nanoseconds

	mu   sync.Mutex
	back map[string]*net.UDPConn // towards the target, by the address of the sender
}

func newUDPProxy(to string) (*udpProxy, error) {
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	p := &udpProxy{socket: socket, to: addr, back: map[string]*net.UDPConn{}}
	go p.run()
	return p, nil
}

func (p *udpProxy) addr() string { return p.socket.LocalAddr().String() }

// pass gives a packet to send, or not.
func (p *udpProxy) pass(cut *atomic.Bool, packet []byte, send func([]byte)) {
	if cut.Load() || rand.Int64N(100) < p.lossPercent.Load() {
		return
	}
	times := 1
	if rand.Int64N(100) < p.twicePercent.Load() {
		times = 2
	}
	d := time.Duration(p.delay.Load())
	kept := packet
	if d > 0 {
		kept = append([]byte(nil), packet...)
	}
	for range times {
		if d == 0 {
			send(kept)
			continue
		}
		time.AfterFunc(d/2+time.Duration(rand.Int64N(int64(d))), func() { send(kept) })
	}
}

func (p *udpProxy) run() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := p.socket.ReadFromUDP(buf)
		if err != nil {
			if _, closed := err.(*net.OpError); closed {
				p.hangUp()
				return
			}
			continue
		}
		up := p.upstream(from)
		if up == nil {
			continue
		}
		p.pass(&p.cutThere, buf[:n], func(b []byte) { _, _ = up.Write(b) })
	}
}

// upstream is the socket that stands for a sender towards the target.
func (p *udpProxy) upstream(from *net.UDPAddr) *net.UDPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.back[from.String()]; c != nil {
		return c
	}
	c, err := net.DialUDP("udp", nil, p.to)
	if err != nil {
		return nil
	}
	p.back[from.String()] = c
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				if opError, ok := err.(*net.OpError); ok && opError.Err.Error() ==
					net.ErrClosed.Error() {
					return
				}
				time.Sleep(time.Millisecond) // nobody listens there at the moment
				continue
			}
			p.pass(&p.cutBack, buf[:n], func(b []byte) { _, _ = p.socket.WriteToUDP(b, from) })
		}
	}()
	return c
}

func (p *udpProxy) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.back {
		_ = c.Close()
	}
}
