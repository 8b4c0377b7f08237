package simnet

import (
	"testing"
	"time"
)

// run sends a hundred messages both ways and returns the hash of what happened.
func run(seed uint64) (hash, delivered uint64) {
	n := New(seed)
	n.Faults = Faults{Delay: time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.1, Double: 0.1}
	for i := range 100 {
		n.After(time.Duration(i)*time.Millisecond, func() {
			n.Send("a", "b", []byte{byte(i)}, func(msg []byte) {
				n.Send("b", "a", msg, func([]byte) {})
			})
		})
	}
	n.Run(time.Second)
	return n.Hash(), n.Delivered
}

func TestSameSeedSameTrace(t *testing.T) {
	h, delivered := run(1)
	if again, _ := run(1); again != h {
		t.Errorf("the same seed gave %x and %x", h, again)
	}
	if other, _ := run(2); other == h {
		t.Error("another seed gave the same")
	}
	if delivered < 120 || delivered > 280 {
		t.Errorf("%d messages of 200 were delivered at 10 %% loss and 10 %% doubled", delivered)
	}
}

func TestCutIsOneWay(t *testing.T) {
	n := New(1)
	got := map[string]int{}
	send := func(from, to string) { n.Send(from, to, nil, func([]byte) { got[from]++ }) }
	n.Cut("a", "b")
	send("a", "b")
	send("b", "a")
	n.Run(time.Second)
	n.Heal()
	send("a", "b")
	n.Run(2 * time.Second)
	if got["a"] != 1 || got["b"] != 1 || n.Lost != 1 {
		t.Errorf("delivered from %v, lost %d", got, n.Lost)
	}
}

func TestEventsInOrder(t *testing.T) {
	n := New(1)
	var got []int
	n.After(2, func() { got = append(got, 3) })
	n.After(1, func() {
		got = append(got, 1)
		n.After(0, func() { got = append(got, 2) })
	})
	n.After(2, func() { got = append(got, 4) })
	n.Run(time.Second)
	for i, v := range got {
		if v != i+1 {
			t.Fatalf("order: %v", got)
		}
	}
	if n.Now() != time.Second {
		t.Errorf("now: %v", n.Now())
	}
}
