package bench

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
)

// ValueHeaderBytes is the smallest value that can say whose it is.
const ValueHeaderBytes = 20

// poolBytes is how many random bytes the bodies of all values are cut from: enough that two values
// in one block of a table hardly ever share a piece, small enough to stay in cache.
const poolBytes = 256 << 10

// pieceBytes is what a body is made of: random bytes, and the same once more, as db_bench does. In
// longer pieces a compressor that has begun to skip finds no repetition.
const pieceBytes = 100

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Values makes values. It does not change after NewValues: any goroutine may use it.
type Values struct {
	bytes int
	pool  []byte
}

// NewValues makes a maker of values of the given size.
func NewValues(valueBytes int, seed uint64) *Values {
	r := rand.New(rand.NewPCG(seed, 0x76616c756573))
	pool := make([]byte, poolBytes+valueBytes+8)
	for i := 0; i+8 <= len(pool); i += 8 {
		binary.LittleEndian.PutUint64(pool[i:], r.Uint64())
	}
	return &Values{valueBytes, pool}
}

// Append appends the value of key n at the given version. Values shorter than ValueHeaderBytes
// have a body only and cannot be checked.
func (v *Values) Append(dst []byte, n Number, version uint64) []byte {
	start := len(dst)
	body := v.bytes
	if v.bytes >= ValueHeaderBytes {
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
		dst = binary.BigEndian.AppendUint64(dst, version)
		dst = append(dst, 0, 0, 0, 0)
		body -= ValueHeaderBytes
	}
	at := mix(uint64(n)^mix(version)) % poolBytes
	for body > 0 {
		piece := min(body, pieceBytes)
		half := v.pool[at : at+uint64(piece+1)/2]
		dst = append(dst, half...)
		dst = append(dst, half[:piece/2]...)
		at += uint64(len(half))
		body -= piece
	}
	if v.bytes >= ValueHeaderBytes {
		value := dst[start:]
		binary.BigEndian.PutUint32(value[16:], valueSum(value))
	}
	return dst
}

// CheckValue says which version of key n value is, or a *ValueError.
func CheckValue(n Number, value []byte) (version uint64, err error) {
	if len(value) < ValueHeaderBytes {
		return 0, &ValueError{n, fmt.Sprintf("damaged: %d bytes are too short", len(value))}
	}
	if want, got := binary.BigEndian.Uint32(value[16:]), valueSum(value); want != got {
		return 0, &ValueError{n, fmt.Sprintf("damaged: checksum %08x, bytes give %08x", want, got)}
	}
	if owner := binary.BigEndian.Uint64(value); owner != uint64(n) {
		return 0, &ValueError{n, fmt.Sprintf("belongs to another key: %016x", owner)}
	}
	return binary.BigEndian.Uint64(value[8:]), nil
}

// ValueError says what is wrong with what was read for a key.
type ValueError struct {
	Number Number
	Reason string
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("bench: value of key %016x: %s", uint64(e.Number), e.Reason)
}

// valueSum is the checksum over all bytes but the checksum's own.
func valueSum(value []byte) uint32 {
	return crc32.Update(crc32.Checksum(value[:16], castagnoli), castagnoli, value[20:])
}
