package replication

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkCluster is three nodes in one process, 64 callers, 100-byte values: what the core and
// its shell cost, without a network and a disk.
func BenchmarkCluster(b *testing.B) {
	const keys, callers = 1000, 64
	for _, c := range []struct {
		name string
		r    Level
		put  bool
	}{{"get-r1", One, false}, {"get-r2", Two, false}, {"put-w2", Two, true}} {
		b.Run(c.name, func(b *testing.B) {
			l := newLocalCluster(b, 3)
			client := l.client()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			value := make([]byte, 100)
			key := func(i int) []byte { return fmt.Appendf(nil, "key%07d", i%keys) }
			for i := range keys {
				if _, err := client.Put(ctx, key(i), value, WriteOptions{Level: All}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Int64
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						var err error
						if c.put {
							_, err = client.Put(ctx, key(int(i)*7919), value, WriteOptions{Level: c.r})
						} else {
							_, err = client.Get(ctx, key(int(i)*7919), ReadOptions{Level: c.r})
						}
						if err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
