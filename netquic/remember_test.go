package netquic

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestRememberReplacesOnlyItsLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deep", "known")
	a, b, c := Pin{1}, Pin{2}, Pin{3}
	for _, line := range []struct {
		addr string
		pin  Pin
	}{{"127.0.0.1:1", a}, {"127.0.0.1:2", b}, {"127.0.0.1:1", c}} {
		if err := Remember(file, line.addr, line.pin); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	want := "127.0.0.1:2 " + b.String() + "\n127.0.0.1:1 " + c.String() + "\n"
	if err != nil || string(text) != want {
		t.Fatalf("the file holds %q, %v; want %q", text, err, want)
	}
}

// Clients of one process share the file, and lost each other's lines.
func TestRememberTogether(t *testing.T) {
	file := filepath.Join(t.TempDir(), "known")
	const addrs = 32
	cs := state(t, identity(t))
	var wg sync.WaitGroup
	for i := range addrs {
		v := &verifier{addr: fmt.Sprintf("127.0.0.1:%d", i+1), file: file}
		wg.Go(func() {
			remember := v.remember
			if i%4 == 0 { // as a server does
				remember = func(tls.ConnectionState) error { return Remember(file, v.addr, Pin{1}) }
			}
			if err := remember(cs); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(file)
	if got := strings.Count(string(text), "\n"); err != nil || got != addrs {
		t.Errorf("%d of %d are remembered, %v", got, addrs, err)
	}
}
