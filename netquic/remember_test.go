package netquic

import (
	"os"
	"path/filepath"
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
