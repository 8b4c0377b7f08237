package netquic

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestWorkedBytes looks for the golden frames in the texts that show them.
func TestWorkedBytes(t *testing.T) {
	peers := golden[len(golden)-3:]
	for file, frames := range map[string][]goldenFrame{
		"doc.go": append(golden[:4:4], peers...), "../docs/wire.md": golden} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range frames {
			if !strings.Contains(string(text), g.hex+"\n") {
				t.Errorf("%s does not show the %s: %s", file, g.name, g.hex)
			}
		}
	}
}

// upper answers with the request in capitals, without waiting for anything.
type upper struct{}

func (upper) TryCall(req, dst []byte) ([]byte, bool) {
	return append(dst, strings.ToUpper(string(req))...), true
}

func (upper) Call(context.Context, []byte, []byte) ([]byte, error) {
	return nil, &RemoteError{Code: 1, Message: "not reached"}
}

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	id, err := EnsureIdentity(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := Listen("127.0.0.1:0", Options{Identity: id})
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- s.Serve(context.Background(), upper{}) }()

	c, err := NewClient(s.Addr().String(), Options{Pin: id.Pin()})
	if err != nil {
		fmt.Println(err)
		return
	}
	answer, err := c.Call(context.Background(), []byte("hello"), nil)
	fmt.Printf("%s %v\n", answer, err)

	c.Close()
	s.Shutdown(context.Background())
	fmt.Println(<-served)
	// Output:
	// HELLO <nil>
	// <nil>
}
