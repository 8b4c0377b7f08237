package main

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/replication"
)

func (p *program) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key, byte for byte; exit code 3 if it has none",
		Args:  exactly(1, "a key"),
	}
	var o consistency
	p.addClientFlags(cmd)
	addConsistencyFlags(cmd, &o, true, false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key := []byte(args[0])
		return p.withEither(cmd.Context(), &o, func(c *replication.Client) error {
			value, err := c.Get(cmd.Context(), key, nil)
			if errors.Is(err, lsm.ErrNotFound) {
				return &notFoundError{key}
			}
			if err != nil {
				return err
			}
			if p.output == outputJSON {
				return p.printJSON(makePairJSON(key, value))
			}
			return p.writeValue(value)
		}, func(c *replication.ClusterClient) error {
			v, err := c.Get(cmd.Context(), key, o.read())
			if err != nil {
				return err
			}
			return p.writeValues(key, v)
		})
	}
	return cmd
}

// writeValue writes a value as it is.
func (p *program) writeValue(value []byte) error {
	// A prompt on the same line helps nobody; a pipe gets the bare value.
	if isTerminal(p.stdout) && (len(value) == 0 || value[len(value)-1] != '\n') {
		value = append(value, '\n')
	}
	_, err := p.stdout.Write(value)
	return err
}

// valuesJSON is a key with its values.
type valuesJSON struct {
	pairJSON
	Siblings []pairJSON `json:"siblings,omitempty"` // values besides the first
}

func makeValuesJSON(key []byte, values [][]byte) valuesJSON {
	j := valuesJSON{pairJSON: makePairJSON(key, values[0])}
	for _, other := range values[1:] {
		j.Siblings = append(j.Siblings, makePairJSON(key, other))
	}
	return j
}

// gotJSON is what a key of a cluster has.
type gotJSON struct {
	valuesJSON
	Context string               `json:"context"`
	Nodes   []replication.NodeID `json:"nodes"`
}

// writeValues writes the value that was written last. Of others, which were written without
// knowledge of it, people are told, and JSON has them.
func (p *program) writeValues(key []byte, v replication.Values) error {
	context := base64.RawURLEncoding.EncodeToString(v.Context)
	if len(v.All) == 0 {
		return &notFoundError{key}
	}
	if p.output == outputJSON {
		return p.printJSON(gotJSON{makeValuesJSON(key, v.All), context, v.Nodes})
	}
	if err := p.writeValue(v.All[0]); err != nil || len(v.All) == 1 {
		return err
	}
	fmt.Fprintf(p.stderr, "kvd get: %d more values, written without knowledge of this one:\n",
		len(v.All)-1)
	for _, other := range v.All[1:] {
		fmt.Fprintf(p.stderr, "  %s\n", printable(other))
	}
	fmt.Fprintf(p.stderr, "keep one, or join them: kvd put %s VALUE --context %s\n",
		printable(key), context)
	return nil
}
