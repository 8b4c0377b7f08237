package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"kvd/lsm"
	"kvd/replication"
)

// prove stops the nodes and compares what they have on disk: all replicas byte for byte with each
// other, every file and every acknowledged write with what was written.
func (d *demo) prove(ctx context.Context) error {
	// What was in doubt at the kill comes to all replicas, or to none.
	if err := d.awaitEqual(ctx); err != nil {
		return err
	}
	if err := d.stopNodes(ctx); err != nil {
		return err
	}
	start := time.Now()
	c, err := d.compareDisks(ctx)
	if err != nil {
		return err
	}
	d.say("Stopped all five and compared their disks in %s: %s keys, the %s objects for them the "+
		"same, byte for byte, on their three nodes and on no other. All %s files and all %s "+
		"acknowledged writes are there, with their values; of %d in doubt, %d came through.",
		short(time.Since(start)), grouped(c.keys), grouped(c.keys*int64(d.place.N)),
		grouped(int64(c.files)), grouped(int64(c.acknowledged)), c.doubtful, c.came)
	return d.figure("proof", map[string]any{"keys": c.keys, "objects": c.keys * int64(d.place.N),
		"files": c.files, "acknowledged": c.acknowledged, "lost": 0, "different": 0,
		"in_doubt": c.doubtful, "in_doubt_came": c.came})
}

// diskComparison is what was found on the disks of all nodes.
type diskComparison struct {
	d        *demo
	root     *os.Root
	disks    []*disk
	pending  map[string]*writtenPair // written and not met yet
	expected map[string]bool         // files, the same

	keys                int64
	files, acknowledged int
	doubtful, came      int // writes in doubt, and those of them that are there
}

// disk is the data directory of a stopped node, and a walk through its objects.
type disk struct {
	node *demoNode
	db   *lsm.DB
	it   *lsm.Iter
	more bool
}

// compareDisks walks all disks at once, in the order of the keys.
func (d *demo) compareDisks(ctx context.Context) (_ *diskComparison, err error) {
	c := &diskComparison{d: d, pending: map[string]*writtenPair{}, expected: map[string]bool{}}
	for _, name := range d.files {
		c.expected[name] = true
	}
	for i := range d.written {
		c.pending[d.written[i].key] = &d.written[i]
	}
	if c.root, err = os.OpenRoot(d.source); err != nil {
		return nil, err
	}
	defer c.root.Close()
	defer func() {
		for _, x := range c.disks {
			err = errors.Join(err, x.it.Close(), x.db.Close())
		}
	}()
	lower, upper := replication.ObjectKeys()
	for _, n := range d.nodes {
		db, err := lsm.Open(n.data, lsm.Options{ReadOnly: true, CacheBytes: 4 << 20})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.id, err)
		}
		x := &disk{node: n, db: db, it: db.NewIter(lsm.IterOptions{Lower: lower, Upper: upper})}
		x.more = x.it.First()
		c.disks = append(c.disks, x)
	}
	for {
		more, err := c.next()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if !more {
			return c, c.missing()
		}
	}
}

// next compares what all disks have of the least key that any of them is at.
func (c *diskComparison) next() (more bool, err error) {
	var key []byte
	for _, x := range c.disks {
		if x.more && (!more || bytes.Compare(x.it.Key(), key) < 0) {
			key, more = x.it.Key(), true
		}
	}
	if !more {
		for _, x := range c.disks {
			err = errors.Join(err, x.it.Err())
		}
		return false, err
	}
	key = slices.Clone(key) // the walks are about to move
	part, user, ok := replication.ObjectKey(key)
	if !ok {
		return false, fmt.Errorf("%x is no key of an object", key)
	}
	var first *disk
	for _, x := range c.disks {
		has := x.more && bytes.Equal(x.it.Key(), key)
		owns := c.d.place.Owns(replication.NodeID(x.node.id), part)
		switch {
		case has && !owns:
			return false, fmt.Errorf("%s is on %s, which does not own it", printable(user),
				x.node.id)
		case owns && !has:
			return false, errors.Join(x.it.Err(), fmt.Errorf("%s is not on %s, which owns it",
				printable(user), x.node.id))
		case owns && first == nil:
			first = x
		case owns && !bytes.Equal(x.it.Value(), first.it.Value()):
			return false, fmt.Errorf("%s and %s do not hold the same for %s", first.node.id,
				x.node.id, printable(user))
		}
	}
	if err := c.check(string(user), first.it.Value()); err != nil {
		return false, err
	}
	c.keys++
	for _, x := range c.disks {
		if x.more && bytes.Equal(x.it.Key(), key) {
			x.more = x.it.Next()
		}
	}
	return true, nil
}

// check compares an object with what was written.
func (c *diskComparison) check(key string, data []byte) error {
	o, err := replication.DecodeObject(data)
	if err != nil {
		return fmt.Errorf("%s: %w", printable([]byte(key)), err)
	}
	var want []byte
	if c.expected[key] {
		delete(c.expected, key)
		c.files++
		if want, err = c.root.ReadFile(key); err != nil {
			return err
		}
	} else if w := c.pending[key]; w != nil {
		delete(c.pending, key)
		want = []byte(w.value)
		if w.acknowledged {
			c.acknowledged++
		} else {
			c.doubtful++
			c.came++
		}
	} else {
		return fmt.Errorf("%s was never written", printable([]byte(key)))
	}
	if live := o.Values(); len(live) != 1 || !bytes.Equal(live[0].Value, want) {
		return fmt.Errorf("%s does not have the value that was written", printable([]byte(key)))
	}
	return nil
}

// missing looks at what was written and not met.
func (c *diskComparison) missing() error {
	for name := range c.expected {
		return fmt.Errorf("%s was imported and is lost", name)
	}
	for _, w := range c.pending {
		if w.acknowledged {
			return fmt.Errorf("%s was acknowledged and is lost", w.key)
		}
		c.doubtful++
	}
	return nil
}
