package replication

import "testing"

// TestWorkThatWouldHaveToWait: whatever keeps work waiting, trying it does nothing, and doing it
// afterwards is as if it had not been tried.
func TestWorkThatWouldHaveToWait(t *testing.T) {
	self := NodeID("a")
	place, err := NewPlacement(1, []Member{{ID: self, Addr: "a:1"}, {ID: "b", Addr: "b:1"}}, 2)
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("k")
	part := PartitionOf(key)
	other := Object{}.Update(nil, Sibling{Dot: Dot{Actor: MakeActor(NodeID("b").Number(), 1), Seq: 1},
		Stamp: 1, Value: []byte("theirs")}, KeepSiblings)
	update := func() *Work {
		return &Work{Kind: WorkUpdate, Part: part, Key: key, Value: []byte("ours"), Blind: true}
	}
	merge := func() *Work { return &Work{Kind: WorkMerge, Part: part, Key: key, Object: other} }
	read := func() *Work { return &Work{Kind: WorkRead, Part: part, Key: key} }
	large := func(w *Work) *Work { w.Value = make([]byte, tryBytesMax+1); return w }
	largeMerge := func() *Work {
		w := merge()
		w.Object = other.Update(nil, Sibling{Dot: Dot{Actor: MakeActor(NodeID("b").Number(), 1),
			Seq: 2}, Stamp: 2, Value: make([]byte, tryBytesMax)}, KeepSiblings)
		return w
	}
	owed := func(w *Work) *Work { w.Targets = []uint32{NodeID("b").Number()}; return w }
	lock := func(r *Replica, _ *simDisk) func() {
		r.parts[part].mu.Lock()
		return r.parts[part].mu.Unlock
	}
	busy := func(_ *Replica, d *simDisk) func() {
		d.refuse = true
		return func() { d.refuse = false }
	}
	busyWrite := func(_ *Replica, d *simDisk) func() {
		d.tries = 5 // the read succeeds, the write after it does not
		return func() {}
	}
	forgot := func(r *Replica, _ *simDisk) func() {
		r.parts[part].forgot = r.incarnation.Load()
		return func() {}
	}
	sibling := func(r *Replica, _ *simDisk) func() {
		if r.Do(large(update())); r.parts[part].seq != 1 {
			t.Fatal("no large value")
		}
		return func() {}
	}
	free := func(*Replica, *simDisk) func() { return func() {} }
	for name, c := range map[string]struct {
		block func(*Replica, *simDisk) func()
		work  *Work
	}{
		"update, partition locked":     {lock, update()},
		"merge, partition locked":      {lock, merge()},
		"update, read waits":           {busy, update()},
		"merge, read waits":            {busy, merge()},
		"read waits":                   {busy, read()},
		"update, write waits":          {busyWrite, update()},
		"merge, write waits":           {busyWrite, merge()},
		"update, large value":          {free, large(update())},
		"merge, large object":          {free, largeMerge()},
		"update, hints":                {free, owed(update())},
		"merge, hints":                 {free, owed(merge())},
		"update, incarnation to raise": {forgot, update()},
		"merge, object becomes large":  {sibling, merge()},
		"a scan":                       {free, &Work{Kind: WorkScan, Part: part, Limit: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			disk := new(simDisk)
			r, err := newReplica(self, disk, place, 7, func([]byte) Policy { return KeepSiblings })
			if err != nil {
				t.Fatal(err)
			}
			free := c.block(r, disk)
			batches, seq, changed := disk.mark(), r.parts[part].seq, r.changed.Load()
			if sync, done := r.TryDo(c.work); done {
				t.Fatalf("done, sync %v, %v", sync, c.work.Result.Err)
			}
			if disk.mark() != batches || r.parts[part].seq != seq || r.changed.Load() != changed {
				t.Error("something was done")
			}
			if w := c.work; w.bytes() > tryBytesMax && disk.tries > 0 {
				t.Error("it was read, although it is known to be too large")
			}
			free()
			disk.tries = 0
			if r.Do(c.work); c.work.Result.Err != nil {
				t.Fatal(c.work.Result.Err)
			}
			if c.work.Kind == WorkUpdate {
				dot := c.work.Result.Object.Siblings[0].Dot
				if dot.Seq != seq+1 {
					t.Errorf("the dot has number %d, want %d", dot.Seq, seq+1)
				}
			}
		})
	}

	disk := new(simDisk)
	r, err := newReplica(self, disk, place, 7, func([]byte) Policy { return KeepSiblings })
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []*Work{update(), merge(), merge()} {
		if sync, done := r.TryDo(w); !sync || !done || w.Result.Err != nil {
			t.Fatalf("nothing to wait for: sync %v, done %v, %v", sync, done, w.Result.Err)
		}
	}
	w := read()
	if sync, done := r.TryDo(w); sync || !done || len(w.Result.Object.Siblings) != 2 {
		t.Fatalf("sync %v, done %v, %+v", sync, done, w.Result.Object)
	}
	disk.full, disk.tries = true, 0
	if _, done := r.TryDo(update()); !done {
		t.Error("a full disk is no reason to wait")
	}
}
