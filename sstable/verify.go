package sstable

import (
	"bytes"
	"fmt"
	"slices"
)

// Verify reads the whole table, past the cache, and checks what opening and lookups take on trust:
// every checksum, the order of all entries, that each block lies between its separators, that the
// filter knows every key, and that the properties tell the truth. It returns the first failure.
func (r *Reader) Verify() error {
	for _, err := range r.Failures(1) {
		return err
	}
	return nil
}

// Failures is Verify that goes on: it returns the failures of all blocks, at most that many. A
// block that cannot be read counts, with the error of the read.
func (r *Reader) Failures(most int) (failed []error) {
	v := verifier{r: r, p: Properties{Meta: Meta{MinSeq: SeqMax}}}
	for i := range r.slots {
		if len(failed) == most {
			return failed
		}
		if err := v.verifyBlock(i); err != nil {
			failed = append(failed, err)
			v.follows = false
		}
	}
	if len(failed) == 0 { // else a block is missing from the sums
		if err := v.compareProperties(); err != nil {
			failed = append(failed, err)
		}
	}
	if err := r.verifyPadding(); err != nil && len(failed) < most {
		failed = append(failed, err)
	}
	return failed
}

// verifyPadding checks the bytes between data and filter, which have no checksum.
func (r *Reader) verifyPadding() error {
	pad := make([]byte, r.padding.length)
	if err := readFull(r.f, pad, r.id.Num, int64(r.padding.offset)); err != nil {
		return err
	}
	if len(bytes.Trim(pad, "\x00")) > 0 {
		return r.corrupt(r.padding.offset, "padding is not zero")
	}
	return nil
}

// verifier gathers the properties of the blocks seen so far.
type verifier struct {
	r       *Reader
	s       scratch
	p       Properties
	last    Key  // owned
	follows bool // the next entry comes after last: there is one, and no block between them failed
}

func (v *verifier) verifyBlock(i int) error {
	r := v.r
	offset := r.index.offsets[i]
	v.s.stored = resize(v.s.stored, int(r.index.offsets[i+1]-offset))
	if err := readFull(r.f, v.s.stored, r.id.Num, int64(offset)); err != nil {
		return err
	}
	if err := r.decode(i, v.s.stored, &v.s); err != nil {
		return err
	}
	b := &v.s.block
	v.p.Blocks++
	v.p.DataBytes += uint64(len(v.s.stored))
	v.p.BlockBytes += uint64(len(b.data))
	for j := range b.entries() {
		suffix, trailer, value := b.entry(j)
		if reason := v.add(b.commonPrefix(), suffix, trailer, value); reason != "" {
			return r.corrupt(offset, fmt.Sprintf("entry %d: %s", j, reason))
		}
		if j == 0 && i > 0 && r.separates(i-1, v.last.User) < 0 {
			return r.corrupt(offset, "first key is before the separator of the last block")
		}
	}
	if r.separates(i, v.last.User) > 0 {
		return r.corrupt(offset, "last key is after the separator of the block")
	}
	return nil
}

// separates compares user with separator i.
func (r *Reader) separates(i int, user []byte) int {
	return bytes.Compare(user, slices.Concat(r.index.prefix, r.index.suffix(i)))
}

// add takes in the next entry.
func (v *verifier) add(prefix, suffix []byte, trailer uint64, value []byte) (reason string) {
	p := &v.p
	key := Key{slices.Concat(prefix, suffix), trailer}
	if v.follows && Compare(v.last, key) >= 0 {
		return "out of order"
	}
	if p.Entries == 0 {
		p.Smallest = key
	}
	if !v.follows || !bytes.Equal(v.last.User, key.User) {
		p.FilterKeys++
		if !v.r.filter.mayContain(Hash(key.User)) {
			return "the filter does not know the key"
		}
	}
	v.last, v.follows = key, true
	p.Entries++
	p.RawBytes += uint64(len(key.User) + len(value))
	p.MinSeq, p.MaxSeq = min(p.MinSeq, key.Seq()), max(p.MaxSeq, key.Seq())
	if key.Kind() == KindDelete {
		p.Tombstones++
	}
	return ""
}

// compareProperties checks the table's properties against those of its blocks.
func (v *verifier) compareProperties() error {
	want, got := v.p, v.r.props
	if v.r.filter.lines == 0 {
		want.FilterKeys = got.FilterKeys
	}
	want.Num, want.UID, want.Bytes = got.Num, got.UID, got.Bytes
	want.Largest = v.last
	for i := uint64(1); i < propEnd; i++ {
		if k := want.keyField(i); k != nil {
			if !bytes.Equal(*k, *got.keyField(i)) {
				return v.r.corrupt(0, fmt.Sprintf("property %d is not what the blocks hold", i))
			}
		} else if *want.numberField(i) != *got.numberField(i) {
			return v.r.corrupt(0, fmt.Sprintf("property %d is not what the blocks hold", i))
		}
	}
	return nil
}
