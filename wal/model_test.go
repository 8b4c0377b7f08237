package wal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// logModel is a log on a disk that loses power, against a list of records.
type logModel struct {
	t    *testing.T
	r    *rand.Rand
	w    *Writer
	disk []modelSegment
	bin  [][]byte // contents of removed segments, to be recycled

	next  uint64
	start Pos // recovery starts here
	recs  []modelRecord
	sync  Pos // highest position acknowledged as durable
}

type modelSegment struct {
	number uint64
	start  Pos
	file   *fakeFile
}

type modelRecord struct {
	end  Pos
	text string
}

func (m *logModel) create() (File, Header) {
	m.next++
	h := Header{Segment: m.next, Nonce: m.r.Uint64()}
	var before []byte
	if n := len(m.bin); n > 0 && m.r.IntN(3) > 0 {
		before, m.bin = m.bin[n-1], m.bin[:n-1]
		h.Prewritten = int64(len(before))
	}
	f := newFake(m.t, h, before)
	m.disk = append(m.disk, modelSegment{number: m.next, file: f})
	return f, h
}

func (m *logModel) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *logModel) step() {
	switch n := m.r.IntN(100); {
	case n < 60:
		text := fmt.Sprintf("%d:%s", len(m.recs), strings.Repeat("y", m.r.IntN(1<<m.r.IntN(12))))
		m.recs = append(m.recs, modelRecord{m.w.Append([]byte(text)), text})
	case n < 75:
		m.check(m.w.Write(NoPos))
	case n < 87:
		m.check(m.w.Sync(NoPos))
		m.sync = m.w.End()
	case n < 92:
		f, h := m.create()
		m.disk[len(m.disk)-1].start = m.w.Rotate(f, h)
	case n < 97:
		m.release()
	case n < 98:
		m.check(m.w.Close())
		m.sync = m.w.End()
		m.crash()
	default:
		m.crash()
	}
}

// release drops the segments before the last, as after a flush.
func (m *logModel) release() {
	last := m.disk[len(m.disk)-1]
	if len(m.disk) < 2 || last.start < m.start {
		return
	}
	m.start = last.start
	m.recs = slices.DeleteFunc(m.recs, func(r modelRecord) bool { return r.end <= m.start })
	m.check(m.w.Release(m.disk[len(m.disk)-2].number))
	for _, s := range m.disk[:len(m.disk)-1] {
		if m.r.IntN(2) == 0 {
			m.bin = append(m.bin, s.file.data[:min(len(s.file.data), 64<<10)])
		}
	}
	m.disk = []modelSegment{last}
}

func (m *logModel) crash() {
	var segs []Segment
	for i := range m.disk {
		s := &m.disk[i]
		// The file may as well be shorter by the zeros written ahead; that is cheaper here.
		data := bytes.TrimRight(s.file.crash(m.r), "\x00")
		data = append(data, make([]byte, max(64+m.r.IntN(pageBytes), HeaderBytes-len(data)))...)
		s.file = &fakeFile{data: data, synced: slices.Clone(data)}
		segs = append(segs, segmentOf(s.number, data))
	}
	got, res, err := replay(m.start, segs...)
	m.check(err)
	if len(got) > len(m.recs) {
		m.t.Fatalf("%d records of %d", len(got), len(m.recs))
	}
	for i := range got {
		if got[i] != m.recs[i].text {
			m.t.Fatalf("record %d is %.20q, want %.20q", i, got[i], m.recs[i].text)
		}
	}
	if res.End < m.sync {
		m.t.Fatalf("the log ends at %d, acknowledged to %d; %+v", res.End, m.sync, res)
	}
	m.recs = m.recs[:len(got)]
	m.sync = res.End
	f, h := m.create()
	m.disk[len(m.disk)-1].start = res.End
	m.w = NewWriter(f, h, res.End)
}

const modelRuns = 12

// TestModel loses power again and again, and goes on behind what the power loss left.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	for run := range uint64(modelRuns) {
		t.Run(fmt.Sprintf("seed=%d,%d", seed, run), func(t *testing.T) {
			m := &logModel{t: t, r: rand.New(rand.NewPCG(seed, run))}
			f, h := m.create()
			m.w = NewWriter(f, h, 0)
			for range 400 {
				m.step()
			}
		})
	}
}
