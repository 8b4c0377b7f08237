package lsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"

	"kvd/lsm/vfs"
	"kvd/sstable"
)

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes are those of the comment in batch.go.
func TestBatchGolden(t *testing.T) {
	var b Batch
	b.Put([]byte("k"), []byte("v"))
	b.seal(7)
	want := fromHex(t, "07 00 00 00 00 00 00 00  01 00 00 00  01 01 6b 01 76")
	if !bytes.Equal(b.data, want) {
		t.Errorf("got % x", b.data)
	}
	b.Reset()
	b.Delete([]byte("ab"))
	b.Put([]byte("c"), nil)
	b.seal(0x0102)
	want = fromHex(t, "02 01 00 00 00 00 00 00  02 00 00 00  00 02 61 62  01 01 63 00")
	if !bytes.Equal(b.data, want) {
		t.Errorf("got % x", b.data)
	}
}

func TestBatchRefusesMalformed(t *testing.T) {
	for name, s := range map[string]string{
		"empty":                 "",
		"short header":          "07 00 00 00 00 00 00 00  01 00 00",
		"no writes":             "07 00 00 00 00 00 00 00  00 00 00 00",
		"sequence 0":            "00 00 00 00 00 00 00 00  01 00 00 00  01 01 6b 01 76",
		"sequence overflow":     "ff ff ff ff ff ff ff 00  01 00 00 00  01 01 6b 01 76",
		"unknown kind":          "07 00 00 00 00 00 00 00  01 00 00 00  02 01 6b 01 76",
		"empty key":             "07 00 00 00 00 00 00 00  01 00 00 00  01 00 01 76",
		"key past the end":      "07 00 00 00 00 00 00 00  01 00 00 00  01 09 6b 01 76",
		"key too long":          "07 00 00 00 00 00 00 00  01 00 00 00  00 81 80 04 6b",
		"value past the end":    "07 00 00 00 00 00 00 00  01 00 00 00  01 01 6b 02 76",
		"value missing":         "07 00 00 00 00 00 00 00  01 00 00 00  01 01 6b",
		"length of 2^64":        "07 00 00 00 00 00 00 00  01 00 00 00  01 ffffffffffffffffff02",
		"fewer than it says":    "07 00 00 00 00 00 00 00  02 00 00 00  01 01 6b 01 76",
		"more than it says":     "07 00 00 00 00 00 00 00  01 00 00 00  01 01 6b 01 76 00 01 6b",
		"a byte too many":       "07 00 00 00 00 00 00 00  01 00 00 00  01 01 6b 01 76 00",
		"kind and then nothing": "07 00 00 00 00 00 00 00  01 00 00 00  00",
	} {
		if _, err := decodeBatch(fromHex(t, s)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

type batchOp struct {
	kind       sstable.Kind
	key, value string
}

// decodeBatch reads a record as replay does.
func decodeBatch(record []byte) (ops []batchOp, err error) {
	r, _, count, err := openBatch(record)
	if err != nil {
		return nil, err
	}
	for r.next() {
		ops = append(ops, batchOp{r.kind, string(r.key), string(r.value)})
	}
	if r.err == nil && len(ops) != int(count) {
		r.err = errors.New("count differs")
	}
	return ops, r.err
}

func FuzzBatch(f *testing.F) {
	f.Add(fromHex(f, "07 00 00 00 00 00 00 00  01 00 00 00  01 01 6b 01 76"))
	f.Add(fromHex(f, "02 01 00 00 00 00 00 00  02 00 00 00  00 02 61 62  01 01 63 00"))
	f.Add(fromHex(f, "01 00 00 00 00 00 00 00  ff ff ff ff  01 ff ff ff ff 0f"))
	f.Fuzz(func(t *testing.T, record []byte) {
		ops, err := decodeBatch(record)
		if err != nil {
			return
		}
		if len(ops) > len(record) {
			t.Fatalf("%d writes in %d bytes", len(ops), len(record))
		}
		var b Batch
		for _, op := range ops {
			if op.kind == sstable.KindPut {
				b.Put([]byte(op.key), []byte(op.value))
			} else {
				b.Delete([]byte(op.key))
			}
		}
		_, base, _, _ := openBatch(record)
		b.seal(base)
		again, err := decodeBatch(b.data)
		if err != nil || !reflect.DeepEqual(ops, again) || len(b.data) > len(record) {
			t.Fatalf("%v became %v, %v", ops, again, err)
		}
		var each []batchOp
		b.Each(func(kind sstable.Kind, key, value []byte) bool {
			each = append(each, batchOp{kind, string(key), string(value)})
			return true
		})
		if !reflect.DeepEqual(ops, each) {
			t.Fatalf("Each gives %v of %v", each, ops)
		}
	})
}

func sampleEdit() *edit {
	return &edit{
		databaseID: 300, logSegment: 5, logStart: 77, lastSeq: 1000, nextFile: 9,
		added: []leveledTable{{level: 2, meta: &sstable.Meta{
			Num: 8, UID: 255, Bytes: 4096,
			Smallest: sstable.MakeKey([]byte("a"), 1, sstable.KindPut),
			Largest:  sstable.MakeKey([]byte("b"), 0, sstable.KindDelete),
			MinSeq:   1, MaxSeq: 3, Entries: 4, Tombstones: 1, RawBytes: 50,
		}}},
		removed: []removedTable{{level: 0, num: 3}},
	}
}

// The first is the example of the comment in edit.go.
func TestEditGolden(t *testing.T) {
	for _, c := range []struct {
		e    *edit
		want string
	}{
		{&edit{nextFile: 9}, "04 09"},
		{&edit{}, ""},
		{sampleEdit(), "01 ac02  02 05 4d  03 e807  04 09" +
			"05 02 08 ff01 8020  01 61 8102  01 62 00  01 03  04 01 32" +
			"06 00 03"},
	} {
		if got := c.e.encode(nil); !bytes.Equal(got, fromHex(t, c.want)) {
			t.Errorf("got % x, want %s", got, c.want)
		}
		again, err := decodeEdit(c.e.encode(nil))
		if err != nil || !reflect.DeepEqual(again, c.e) {
			t.Errorf("%+v became %+v, %v", c.e, again, err)
		}
	}
}

func TestEditRefusesMalformed(t *testing.T) {
	whole := sampleEdit().encode(nil)
	fields := map[int]bool{0: true, 3: true, 6: true, 9: true, 11: true, len(whole) - 3: true}
	for n := range whole {
		if _, err := decodeEdit(whole[:n]); (err == nil) != fields[n] {
			t.Errorf("the first %d bytes of % x: %v", n, whole, err)
		}
	}
	for name, s := range map[string]string{
		"unknown tag":         "08 01",
		"tag 0":               "00",
		"level 7":             "06 07 03",
		"level of a table":    "05 07 08 ff01 8020  01 61 8102  01 62 00  01 03  04 01 32",
		"key past the end":    "05 02 08 ff01 8020  20 61",
		"key over the limit":  "05 02 08 ff01 8020  818004 61",
		"bounds out of order": "05 02 08 ff01 8020  01 62 8102  01 61 00  01 03  04 01 32",
		"number over 64 bits": "04 ffffffffffffffffff02",
		"number cut short":    "04 80",
	} {
		if _, err := decodeEdit(fromHex(t, s)); !errors.Is(err, errEdit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzEdit(f *testing.F) {
	f.Add(sampleEdit().encode(nil))
	f.Add([]byte{editNextFile, 9})
	f.Add([]byte{editRemove, 1, 2, editRemove, 1, 3})
	f.Add([]byte{editLog, 0, 0x30})
	f.Add([]byte{editAdd, 0, 1, 1, 1, 0xff, 0xff, 0x03})
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEdit(data)
		if err != nil {
			if !errors.Is(err, errEdit) {
				t.Fatal(err)
			}
			return
		}
		if n := len(e.added) + len(e.removed); n > len(data) {
			t.Fatalf("%d tables in %d bytes", n, len(data))
		}
		again, err := decodeEdit(e.encode(nil))
		if err != nil || !reflect.DeepEqual(e, again) {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}

// currentLine is a CURRENT with a right checksum.
func currentLine(format, manifest string) string {
	sum := crc32.Checksum([]byte(format+" "+manifest), crc32.MakeTable(crc32.Castagnoli))
	return fmt.Sprintf("%s %s %08x\n", format, manifest, sum)
}

func TestCurrentGolden(t *testing.T) {
	disk := vfs.NewMem()
	if err := disk.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	if _, err := writeCurrent(&directory{fs: disk, dir: "d"}, 12); err != nil {
		t.Fatal(err)
	}
	got, err := disk.ReadFile("d/CURRENT")
	if want := "kvd-1 MANIFEST-000012 08133025\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if names, err := disk.List("d"); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	if num, err := readCurrent(disk, "d"); err != nil || num != 12 {
		t.Errorf("%d, %v", num, err)
	}
}

func FuzzCurrent(f *testing.F) {
	for _, line := range []string{
		currentLine(formatName, "MANIFEST-000012"),
		currentLine(formatName, "MANIFEST-1234567890"),
		currentLine(formatName, "MANIFEST-0000012"),
		currentLine(formatName, "MANIFEST-+00012"),
		currentLine(formatName, "000012.wal"),
		currentLine("kvd-2", "MANIFEST-000012"),
		"kvd-1  MANIFEST-000012 00000000\n", "", "\n", strings.Repeat("x", 300),
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		disk := vfs.NewMem()
		if err := errors.Join(disk.MkdirAll("d"), disk.WriteFile("d/CURRENT", data)); err != nil {
			t.Fatal(err)
		}
		num, err := readCurrent(disk, "d")
		if err != nil {
			if !isCorrupt(err) && !errors.Is(err, ErrFormat) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		if _, err := writeCurrent(&directory{fs: disk, dir: "d"}, num); err != nil {
			t.Fatal(err)
		}
		if again, _ := disk.ReadFile("d/CURRENT"); !bytes.Equal(again, data) {
			t.Fatalf("%q became %q", data, again)
		}
	})
}

func TestFileNames(t *testing.T) {
	for _, num := range []uint64{0, 1, 999999, 1000000, 1<<64 - 1} {
		for kind, name := range map[fileKind]string{
			fileTable: tableName("", num), fileLog: logName("", num),
			fileManifest: manifestName("", num),
		} {
			if k, n := parseName(name); k != kind || n != num {
				t.Errorf("%s is %d %d", name, k, n)
			}
		}
	}
	for _, name := range []string{
		"", "LOCK", "CURRENT", "000001", "00001.sst", "0000001.sst", "+00001.sst", "-00001.wal",
		"0x0001.wal", "1_0000.wal", "MANIFEST-", "MANIFEST-00001x", "000001.SST", "000001.sst~",
		"18446744073709551616.sst",
	} {
		if k, n := parseName(name); k != fileOther {
			t.Errorf("%s is %d %d", name, k, n)
		}
	}
	if k, _ := parseName("000001.wal.tmp"); k != fileTemp {
		t.Error("000001.wal.tmp is not temporary")
	}
}
