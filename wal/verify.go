package wal

import (
	"bytes"
	"fmt"
)

// VerifyHeader checks every byte of the header page of s, where a Reader is content with one of the
// two copies: a page that was damaged after it was synced, which is before the file had its name.
// The error is a *CorruptError at the damaged copy, or that of a failed read.
func VerifyHeader(s Segment) error {
	r := &Reader{seg: s}
	page, err := r.view(0, min(HeaderBytes, max(s.Size, 0)))
	if err != nil {
		return err
	}
	h, err := parseHeader(page, s)
	if err != nil {
		return err
	}
	if len(page) < HeaderBytes {
		return &CorruptError{s.Number, s.Size, "the file ends in its header page"}
	}
	want := headerPage(h)
	for at := 0; at < HeaderBytes; at += headerTwin {
		if !bytes.Equal(page[at:at+headerCopy], want[at:at+headerCopy]) {
			return &CorruptError{s.Number, int64(at), fmt.Sprintf("this copy of the header is "+
				"damaged, the one at offset %d serves", headerTwin-at)}
		}
	}
	for at, b := range page {
		if b != want[at] {
			return &CorruptError{s.Number, int64(at), "a byte of the header page is not zero"}
		}
	}
	return nil
}
