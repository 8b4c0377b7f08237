package replication

import (
	"fmt"
	"math/rand/v2"
	"time"

	"kvd/lsm"
)

// simClient does one request after the other: reads, writes with the context of what it read or
// wrote last, writes without, deletes.
type simClient struct {
	sim      *simulation
	number   int
	rng      *rand.Rand
	contexts map[string][]byte // of the last answer, by key
	writes   int
}

const simTimeout = 2 * time.Second

func newSimClient(s *simulation, number int) *simClient {
	c := &simClient{sim: s, number: number, contexts: map[string][]byte{},
		rng: rand.New(rand.NewPCG(s.seed, uint64(number)+1000))}
	s.net.After(time.Duration(c.rng.IntN(300))*time.Millisecond, c.next)
	return c
}

func (c *simClient) next() {
	if c.sim.ending {
		return
	}
	key := fmt.Sprintf("k%d", c.rng.IntN(c.sim.setup.keys))
	node := c.sim.nodes[c.rng.IntN(len(c.sim.nodes))]
	if c.rng.IntN(100) < 40 {
		c.read(node, key)
		return
	}
	c.write(node, key)
}

// call makes a request and sees that it ends in time.
func (c *simClient) call(node *simNode, op *Op, done func(token uint64, answer []byte)) {
	s := c.sim
	ended := false
	began := s.net.Now()
	token := uint64(0)
	token = s.request(node, op, simTimeout, func(answer []byte) {
		if ended {
			s.failf("a request was answered twice")
		}
		ended = true
		if took := s.net.Now() - began; took > simTimeout+time.Second && !s.checker.disturbed(node, began) {
			s.failf("a request to %s took %v", node.id, took)
		}
		done(token, answer)
		s.net.After(time.Duration(c.rng.IntN(200))*time.Millisecond, c.next)
	})
}

func (c *simClient) read(node *simNode, key string) {
	op := &Op{Kind: KindRead, Key: []byte(key), Level: c.sim.setup.readLevel,
		Strict: c.sim.setup.strict}
	c.call(node, op, func(_ uint64, answer []byte) {
		if answer == nil {
			return
		}
		body, err := decodeAnswer(answer)
		if err != nil {
			c.sim.figures["reads failed"]++
			return
		}
		a, err := decodeOpAnswer(body, true)
		if err != nil {
			c.sim.failf("read %s: %v", key, err)
			return
		}
		c.sim.figures["reads"]++
		c.contexts[key] = a.context
		c.sim.checker.read(key, a)
	})
}

func (c *simClient) write(node *simNode, key string) {
	c.writes++
	op := &Op{Kind: KindWrite, Key: []byte(key), Level: c.sim.setup.writeLevel,
		Strict: c.sim.setup.strict, Durability: lsm.Sync}
	if c.sim.setup.deletes && c.rng.IntN(4) == 0 {
		op.Tombstone = true
	} else {
		op.Value = fmt.Appendf(nil, "c%d-%d", c.number, c.writes)
	}
	if seen, ok := c.contexts[key]; ok && c.rng.IntN(3) > 0 {
		op.HasContext, op.Context = true, seen
	}
	c.sim.figures["writes"]++
	c.call(node, op, func(token uint64, answer []byte) {
		if answer == nil {
			return
		}
		body, err := decodeAnswer(answer)
		if err != nil {
			c.sim.figures["writes failed"]++
			return
		}
		a, err := decodeOpAnswer(body, false)
		if err != nil {
			c.sim.failf("write %s: %v", key, err)
			return
		}
		c.sim.figures["writes acknowledged"]++
		c.contexts[key] = a.context
		c.sim.checker.acknowledged(key, op, token, a)
	})
}
