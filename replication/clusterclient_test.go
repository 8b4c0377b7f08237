package replication

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"
)

// scriptedNode is a node as a ClusterClient sees it.
type scriptedNode struct {
	away   bool // nobody says so: its machine is off, or cut off
	answer func(op Op) []byte

	once   sync.Once
	closed chan struct{}
}

func (n *scriptedNode) Connected() bool { return !n.away }

func (n *scriptedNode) Connect(ctx context.Context) error {
	if !n.away {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (n *scriptedNode) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *scriptedNode) Call(ctx context.Context, req, dst []byte) ([]byte, error) {
	if n.away {
		<-ctx.Done()
		return dst, ctx.Err()
	}
	op, err := DecodeOp(req)
	if err != nil {
		return dst, err
	}
	answer := n.answer(op)
	if answer == nil { // it never comes
		<-n.closed
		return dst, errors.New("closed")
	}
	return append(dst, answer...), nil
}

// scriptedRing is what a node says of a cluster in which these own everything, in that order.
func scriptedRing(epoch uint64, addrs ...string) []byte {
	r := Ring{Epoch: epoch}
	owners := make([]int, len(addrs))
	for i, addr := range addrs {
		r.Members = append(r.Members, RingMember{ID: NodeID("n" + addr), Addr: addr})
		owners[i] = i
	}
	for range Partitions {
		r.Owners = append(r.Owners, owners)
	}
	text, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return append([]byte{byte(statusOK)}, text...)
}

// scriptedClient has one node at each address and begins at the first.
func scriptedClient(t *testing.T, nodes map[string]*scriptedNode, seed string) *ClusterClient {
	for _, n := range nodes {
		n.closed = make(chan struct{})
	}
	c := NewClusterClient([]string{seed}, func(addr string) (Caller, error) {
		if n := nodes[addr]; n != nil {
			return n, nil
		}
		return nil, errors.New("nobody is there")
	}, errors.New("never"))
	c.Timeout = 20 * time.Second
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// servesAll answers everything, with this ring.
func servesAll(ring []byte) func(op Op) []byte {
	return func(op Op) []byte {
		switch op.Kind {
		case KindRing:
			return ring
		case KindRead:
			return appendReadAnswer(nil, &Object{}, 1, op.Key, nil)
		}
		return appendWriteAnswer(nil, nil, 1, 1, op.Key, nil)
	}
}

// A write whose first node cannot be connected to was certainly not begun: the next one gets it.
func TestWriteBesideNodeThatIsAway(t *testing.T) {
	ring := scriptedRing(1, "a", "b")
	c := scriptedClient(t, map[string]*scriptedNode{"a": {away: true}, "b": {answer: servesAll(ring)}},
		"b")
	if _, err := c.Put(t.Context(), []byte("k"), []byte("v"), WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A node that has answered a write, nobody knows what, may have done it.
func TestGarbledAnswerToWriteIsInDoubt(t *testing.T) {
	ring := scriptedRing(1, "a")
	c := scriptedClient(t, map[string]*scriptedNode{"a": {answer: func(op Op) []byte {
		if op.Kind == KindRing {
			return ring
		}
		return []byte{250}
	}}}, "a")
	_, err := c.Put(t.Context(), []byte("k"), []byte("v"), WriteOptions{})
	if !errors.Is(err, ErrInDoubt) {
		t.Errorf("a write whose answer makes no sense: %v", err)
	}
}

// A read under way when the client is closed does not connect anew behind its back.
func TestClosedClientKeepsNoConnection(t *testing.T) {
	asked := make(chan struct{})
	nodes := map[string]*scriptedNode{}
	ring := scriptedRing(1, "a", "b")
	nodes["a"] = &scriptedNode{answer: func(op Op) []byte {
		if op.Kind == KindRing {
			return ring
		}
		close(asked)
		return nil
	}}
	nodes["b"] = &scriptedNode{answer: servesAll(ring)}
	c := scriptedClient(t, nodes, "a")
	got := make(chan error)
	go func() {
		_, err := c.Get(context.Background(), []byte("k"), ReadOptions{})
		got <- err
	}()
	<-asked
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err == nil {
		t.Error("the read of a closed client went on")
	}
	if len(c.conns) > 0 {
		t.Errorf("%d connections after Close", len(c.conns))
	}
}

// Whoever learns of another placement asks all nodes he knows for it, not the seeds alone.
func TestSeedIsAwayWhenPlacementChanges(t *testing.T) {
	seed := &scriptedNode{answer: servesAll(scriptedRing(1, "b", "a"))}
	serve := servesAll(scriptedRing(2, "b", "a"))
	other := &scriptedNode{answer: func(op Op) []byte {
		if op.Kind != KindRing && op.Epoch != 2 {
			return appendOpError(nil, &EpochError{Have: op.Epoch, Want: 2}, false)
		}
		return serve(op)
	}}
	c := scriptedClient(t, map[string]*scriptedNode{"a": seed, "b": other}, "a")
	if _, err := c.Ring(t.Context()); err != nil {
		t.Fatal(err)
	}
	seed.away = true
	if _, err := c.Put(t.Context(), []byte("k"), []byte("v"), WriteOptions{}); err != nil {
		t.Error(err)
	}
}

// When all nodes have moved, the seeds know where to.
func TestClientFindsNodesThatMoved(t *testing.T) {
	nodes := map[string]*scriptedNode{"old": {answer: servesAll(scriptedRing(1, "old"))},
		"seed": {answer: servesAll(scriptedRing(1, "old"))}}
	c := scriptedClient(t, nodes, "seed")
	if _, err := c.Get(t.Context(), []byte("k"), ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	nodes["new"] = &scriptedNode{answer: servesAll(scriptedRing(1, "new")),
		closed: make(chan struct{})}
	nodes["seed"].answer = servesAll(scriptedRing(1, "new"))
	nodes["old"].away = true
	if _, err := c.Get(t.Context(), []byte("k"), ReadOptions{}); err != nil {
		t.Error(err)
	}
}

// What a node says of the others is told, not that another node is not there.
func TestUnavailableIsTold(t *testing.T) {
	ring := scriptedRing(1, "a", "b")
	c := scriptedClient(t, map[string]*scriptedNode{"a": {answer: func(op Op) []byte {
		if op.Kind == KindRing {
			return ring
		}
		return appendOpError(nil, &UnavailableError{Need: 2, Got: 1}, false)
	}}}, "a")
	c.Timeout = 100 * time.Millisecond
	_, err := c.Put(t.Context(), []byte("k"), []byte("v"), WriteOptions{})
	if _, ok := errors.AsType[*UnavailableError](err); !ok {
		t.Errorf("one of two nodes is there: %v", err)
	}
}
