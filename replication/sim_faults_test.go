package replication

import (
	"time"
)

// disturb makes something go wrong now and then until the time is up.
func (s *simulation) disturb(until time.Duration) {
	var next func()
	next = func() {
		if s.net.Now() >= until {
			return
		}
		s.disturbOnce(until)
		s.net.After(time.Duration(100+s.rng.IntN(3000))*time.Millisecond, next)
	}
	s.net.After(time.Duration(500+s.rng.IntN(2000))*time.Millisecond, next)
}

func (s *simulation) disturbOnce(until time.Duration) {
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	length := time.Duration(50+s.rng.IntN(8000)) * time.Millisecond
	if s.rng.IntN(6) == 0 {
		length += 10 * time.Second // long enough to be taken for down
	}
	end := min(s.net.Now()+length, until) - s.net.Now()
	c := &s.setup
	var can []func()
	add := func(allowed bool, fn func()) {
		if allowed {
			can = append(can, fn)
		}
	}
	add(c.crashes && n.up, func() { s.doCrash(n, end, false) })
	add(c.wipes && n.up && !s.anyWiped() && s.allUp(), func() { s.doCrash(n, end, true) })
	add(c.pauses && n.up && !n.paused, func() { s.doPause(n, end) })
	add(c.cuts, func() { s.doCut(end, false) })
	add(c.oneWay, func() { s.doCut(end, true) })
	add(c.clocks, func() {
		s.figures["clock jumps"]++
		n.clock += time.Duration(s.rng.IntN(240)-120) * time.Second
	})
	add(c.slow, func() {
		s.figures["slow disks"]++
		n.slow = time.Duration(s.rng.IntN(300)) * time.Millisecond
		s.net.After(end, func() { n.slow = 0 })
	})
	add(c.fullDisks && n.up, func() {
		s.figures["full disks"]++
		n.disk.full = true
		s.net.After(end, func() { n.disk.full = false })
	})
	if len(can) > 0 {
		can[s.rng.IntN(len(can))]()
	}
}

func (s *simulation) anyWiped() bool {
	for _, n := range s.nodes {
		if n.wiped {
			return true
		}
	}
	return false
}

func (s *simulation) allUp() bool {
	for _, n := range s.nodes {
		if !n.up || n.paused {
			return false
		}
	}
	return true
}

func (s *simulation) doCrash(n *simNode, down time.Duration, wipe bool) {
	s.figures["crashes"]++
	s.net.Trace("crash", n.name)
	n.crash()
	if wipe {
		s.figures["wiped disks"]++
		n.disk, n.wiped = new(simDisk), true
		// Whoever loses his disk and sets his clock back to before he last started, and hears from
		// nobody, is beyond help.
		n.clock, down = max(n.clock, 0)+2*time.Minute, down+2*time.Second
	}
	s.net.After(down, func() {
		if !n.up {
			n.start()
		}
	})
}

func (s *simulation) doPause(n *simNode, length time.Duration) {
	s.figures["pauses"]++
	n.paused = true
	life := n.life
	s.net.After(length, func() {
		if n.life == life && n.paused {
			n.resume()
		}
	})
}

// doCut separates one part of the nodes from the rest, or stops one direction of one link.
func (s *simulation) doCut(length time.Duration, oneWay bool) {
	s.figures["partitions"]++
	var pairs [][2]*simNode
	if oneWay {
		a, b := s.rng.IntN(len(s.nodes)), s.rng.IntN(len(s.nodes))
		if a == b {
			return
		}
		pairs = append(pairs, [2]*simNode{s.nodes[a], s.nodes[b]})
	} else {
		side := make([]bool, len(s.nodes))
		for i := range side {
			side[i] = s.rng.IntN(2) == 0
		}
		for i, a := range s.nodes {
			for j, b := range s.nodes {
				if side[i] != side[j] {
					pairs = append(pairs, [2]*simNode{a, b})
				}
			}
		}
	}
	for _, p := range pairs {
		s.net.Cut(p[0].name, p[1].name)
	}
	// A connection over which nothing comes is closed after five seconds.
	s.net.After(5*time.Second, func() {
		for _, p := range pairs {
			if s.net.IsCut(p[0].name, p[1].name) {
				p[0].linkBreaks(p[1])
			}
		}
	})
	s.net.After(length, func() { s.healNetwork() })
}

func (s *simulation) healNetwork() {
	s.net.Heal()
	for _, a := range s.nodes {
		for _, b := range s.nodes {
			if a != b && a.up && b.up {
				a.linkSoon(b)
			}
		}
	}
}

// heal ends everything that is wrong.
func (s *simulation) heal() {
	s.healNetwork()
	s.net.Faults.Loss, s.net.Faults.Double = 0, 0
	for _, n := range s.nodes {
		n.slow, n.disk.full = 0, false
		switch {
		case !n.up:
			n.start()
		case n.paused:
			n.resume()
		}
	}
	s.healNetwork()
}
