package replication

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"kvd/lsm"
)

// With N=3, R=W=2 and owners only, a key that one client writes is a register: every read returns
// the last acknowledged write or one that was under way, and never goes back. Porcupine (Athalye,
// 2017) looks for an order of all operations that says so.

// registerInput is a write of a number, or a read.
type registerInput struct {
	key   string
	write bool
	value int
}

var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		byKey := map[string][]porcupine.Operation{}
		var keys []string
		for _, op := range history {
			key := op.Input.(registerInput).key
			if byKey[key] == nil {
				keys = append(keys, key)
			}
			byKey[key] = append(byKey[key], op)
		}
		for _, key := range keys {
			parts = append(parts, byKey[key])
		}
		return parts
	},
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(registerInput); in.write {
			return true, in.value
		}
		return output.(int) == state.(int), state
	},
	DescribeOperation: func(input, output any) string {
		in := input.(registerInput)
		if in.write {
			return fmt.Sprintf("write %s=%d", in.key, in.value)
		}
		return fmt.Sprintf("read %s: %v", in.key, output)
	},
}

// registerRun simulates one writer and two readers of each key and returns what they saw.
func registerRun(seed uint64, level Level) (history []porcupine.Operation, failure string) {
	s := newSimulation(seed, func(c *simSetup) {
		c.nodes, c.replicas, c.clients = 3+int(seed%3), 3, 0
		c.lww, c.wipes, c.fullDisks = false, false, false
		c.length = 15 * time.Second
	})
	const keys = 2
	number := 0
	record := func(client int, in registerInput, began time.Duration) func(output int, done bool) {
		return func(output int, done bool) {
			end := s.net.Now().Nanoseconds()
			if !done {
				if !in.write {
					return
				}
				end = math.MaxInt64 / 2 // it may happen at any time from now on
			}
			history = append(history, porcupine.Operation{ClientId: client, Input: in,
				Call: began.Nanoseconds(), Output: output, Return: end})
		}
	}
	next := func(fn func()) { s.net.After(time.Duration(s.rng.IntN(150))*time.Millisecond, fn) }
	for k := range keys {
		key := fmt.Sprint("r", k)
		var context []byte
		var write func()
		write = func() {
			if s.ending {
				return
			}
			number++
			in := registerInput{key, true, number}
			// An id for each operation: one whose outcome is unknown is concurrent with the next.
			done := record(1000+number, in, s.net.Now())
			op := &Op{Kind: KindWrite, Key: []byte(key), Value: fmt.Append(nil, number), Level: level,
				Strict: true, Durability: lsm.Sync, HasContext: context != nil, Context: context}
			s.request(s.nodes[s.rng.IntN(len(s.nodes))], op, simTimeout, func(answer []byte) {
				body, err := decodeAnswer(answer)
				if err == nil {
					a, err := decodeOpAnswer(body, false)
					if err != nil {
						s.failf("%v", err)
					}
					context = a.context
				}
				_, refused := err.(*UnavailableError)
				if !refused {
					done(0, err == nil)
				}
				next(write)
			})
		}
		next(write)
		for r := range 2 {
			client := 1 + k*10 + r
			var read func()
			read = func() {
				if s.ending {
					return
				}
				done := record(client, registerInput{key: key}, s.net.Now())
				op := &Op{Kind: KindRead, Key: []byte(key), Level: level, Strict: true}
				s.request(s.nodes[s.rng.IntN(len(s.nodes))], op, simTimeout, func(answer []byte) {
					value := 0
					body, err := decodeAnswer(answer)
					if err == nil {
						a, _ := decodeOpAnswer(body, true)
						// After writes in doubt there may be siblings: the writer's own, the last
						// of which is the register.
						for _, v := range a.values {
							n := 0
							fmt.Sscan(string(v), &n)
							value = max(value, n)
						}
					}
					done(value, err == nil)
					next(read)
				})
			}
			next(read)
		}
	}
	s.disturbOneAtATime(s.setup.length)
	s.net.Run(s.setup.length)
	s.ending = true
	s.heal()
	s.net.Run(s.setup.length + 5*time.Second)
	return history, s.failure
}

// disturbOneAtATime crashes, stops or cuts off one node after the other: what two that crash
// together had not made durable yet may have been read.
func (s *simulation) disturbOneAtATime(until time.Duration) {
	var next func()
	next = func() {
		if s.net.Now() >= until {
			return
		}
		n := s.nodes[s.rng.IntN(len(s.nodes))]
		length := time.Duration(50+s.rng.IntN(3000)) * time.Millisecond
		switch s.rng.IntN(3) {
		case 0:
			s.doCrash(n, length, false)
		case 1:
			s.doPause(n, length)
		default:
			for _, m := range s.nodes {
				if m != n {
					s.net.Cut(n.name, m.name)
					s.net.Cut(m.name, n.name)
				}
			}
			s.net.After(length, s.healNetwork)
		}
		s.net.After(length+time.Duration(200+s.rng.IntN(2000))*time.Millisecond, next)
	}
	s.net.After(time.Second, next)
}

func TestRegister(t *testing.T) {
	runs := uint64(60)
	if testing.Short() || raceEnabled {
		runs = 10
	}
	operations := 0
	for seed := uint64(1); seed <= runs; seed++ {
		history, failure := registerRun(seed, Quorum)
		if failure != "" {
			t.Fatalf("seed %d: %s", seed, failure)
		}
		operations += len(history)
		if r := porcupine.CheckOperationsTimeout(registerModel, history, time.Minute); r != porcupine.Ok {
			t.Fatalf("seed %d: the history of %d operations is %v", seed, len(history), r)
		}
	}
	t.Logf("proof: register operations %d", operations)
}

// The same with R=W=1 is no register, and the checker says so.
func TestRegisterCheckerRejects(t *testing.T) {
	for seed := uint64(1); seed <= 60; seed++ {
		history, _ := registerRun(seed, One)
		if porcupine.CheckOperationsTimeout(registerModel, history, time.Minute) == porcupine.Illegal {
			t.Logf("seed %d is rejected", seed)
			return
		}
	}
	t.Error("60 histories with R=W=1 all pass for a register")
}
