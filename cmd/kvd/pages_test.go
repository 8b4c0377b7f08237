package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The program of docs/clients.md compiles, and so do the other lines of Go, put into a function.
func TestPageOfClients(t *testing.T) {
	page, err := os.ReadFile("../../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := goExample.FindAllStringSubmatch(string(page), -1)
	ends := []string{"", "_, _ = o, err", "_, _ = value, err"} // a use of what they declare
	if len(examples) != len(ends) {
		t.Fatalf("the page has %d examples, want %d", len(examples), len(ends))
	}
	for i, x := range examples {
		source := x[1]
		if i > 0 {
			source = fmt.Sprintf(aroundExample, source+ends[i])
		}
		file := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

var goExample = regexp.MustCompile("(?s)```go\n(.*?)```")

const aroundExample = `package main

import (
	"context"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

var (
	_ = lsm.Sync
	_ = replication.One
)

func example(ctx context.Context) error {
	%s
	return nil
}

func main() { _ = example(context.Background()) }
`
