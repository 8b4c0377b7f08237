package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"kvd/replication"
)

// keyRange is what --prefix, --from and --to select.
type keyRange struct {
	prefix, from, to string
}

func (r *keyRange) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.prefix, "prefix", "", "only keys that start so")
	f.StringVar(&r.from, "from", "", "only keys at or after this one")
	f.StringVar(&r.to, "to", "", "only keys before this one")
}

// bounds returns the range as [lower, upper); an empty bound is open.
func (r *keyRange) bounds() (lower, upper []byte, err error) {
	if r.prefix == "" {
		if r.from != "" && r.to != "" && r.from > r.to {
			return nil, nil, usagef("--from %q is after --to %q", r.from, r.to)
		}
		return []byte(r.from), []byte(r.to), nil
	}
	if r.from != "" || r.to != "" {
		return nil, nil, usagef("--prefix excludes --from and --to")
	}
	return []byte(r.prefix), prefixEnd([]byte(r.prefix)), nil
}

// prefixEnd returns the first key after all that start with prefix; empty when there is none.
func prefixEnd(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for len(end) > 0 {
		end[len(end)-1]++
		if end[len(end)-1] != 0 {
			return end
		}
		end = end[:len(end)-1]
	}
	return nil
}

func (p *program) scanCommand() *cobra.Command {
	var keys keyRange
	var limit int
	var keysOnly bool
	var o consistency
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "List pairs in the order of their keys (in a cluster: partition by partition)",
		Args:  noArgs,
	}
	p.addClientFlags(cmd)
	keys.addFlags(cmd)
	addConsistencyFlags(cmd, &o, true, false)
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many (0: all)")
	cmd.Flags().BoolVar(&keysOnly, "keys-only", false, "leave the values out")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		lower, upper, err := keys.bounds()
		if err != nil {
			return err
		}
		if limit < 0 {
			return usagef("limit %d: must not be negative", limit)
		}
		ctx := cmd.Context()
		return p.withEither(ctx, &o, func(c *replication.Client) error {
			return p.scan(keysOnly, func(print printValues) error {
				if keysOnly {
					return c.ScanKeys(ctx, lower, upper, limit,
						func(k []byte) error { return print(k, [][]byte{nil}) })
				}
				values := make([][]byte, 1)
				return c.Scan(ctx, lower, upper, limit, func(key, value []byte) error {
					values[0] = value
					return print(key, values)
				})
			})
		}, func(c *replication.ClusterClient) error {
			return p.scan(keysOnly, func(print printValues) error {
				return c.Scan(ctx, lower, upper, limit, o.read(), print)
			})
		})
	}
	return cmd
}

// printValues prints a key and its values, of which there is one at least.
type printValues = func(key []byte, values [][]byte) error

// scan prints the pairs that walk comes by. A line has room for one value: of keys with others,
// which were written without knowledge of it, people are told, and JSON has them.
func (p *program) scan(keysOnly bool, walk func(print printValues) error) error {
	out := bufio.NewWriterSize(p.stdout, 64<<10)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	several, first := 0, ""
	print := func(key []byte, values [][]byte) error {
		value := values[0]
		if len(values) > 1 && !keysOnly && p.output != outputJSON {
			if several++; several == 1 {
				first = printable(key)
			}
		}
		switch {
		case p.output == outputJSON && keysOnly:
			return encoder.Encode(keyJSON(key))
		case p.output == outputJSON:
			return encoder.Encode(makeValuesJSON(key, values))
		case p.output == outputTable:
			key, value = []byte(printable(key)), []byte(printable(value))
		}
		// A failure sticks and is told by the last write.
		_, _ = out.Write(key)
		if !keysOnly {
			_ = out.WriteByte('\t')
			_, _ = out.Write(value)
		}
		return out.WriteByte('\n')
	}
	err := walk(print)
	if flush := out.Flush(); !errors.Is(err, flush) {
		err = errors.Join(err, flush)
	}
	if several > 0 {
		fmt.Fprintf(p.stderr, "kvd scan: %s with more values than the one shown; see: "+
			"kvd get %s\n", plural(several, "key"), first)
	}
	return err
}
