package bench

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
)

// ValueHeaderBytes is the smallest value that can say whose it is.
const ValueHeaderBytes = 20

// pieceBytes is what a body is made of, at most: random bytes, and the same once more, as db_bench
// does. In longer pieces a compressor that has begun to skip finds no repetition.
const pieceBytes = 100

// poolPieces is how many pieces the bodies of all values are cut from, one body from pieces that
// follow each other: enough that few values in one block of a table share one, few enough to stay
// in cache.
const poolPieces = 5000

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Values makes values. It does not change after NewValues: any goroutine may use it.
type Values struct {
	bytes int
	piece int // bytes of one in the pool
	pool  []byte
}

// NewValues makes a maker of values of the given size.
func NewValues(valueBytes int, seed uint64) *Values {
	v := &Values{bytes: valueBytes}
	body := v.bodyBytes()
	pieces := max((body+pieceBytes-1)/pieceBytes, 1) // of equal length
	v.piece = max(body/pieces, 2) &^ 1
	r := rand.New(rand.NewPCG(seed, 0x76616c756573))
	for len(v.pool) < poolPieces*v.piece+valueBytes {
		start := len(v.pool)
		for range v.piece / 2 {
			v.pool = append(v.pool, byte(r.Uint32()))
		}
		v.pool = append(v.pool, v.pool[start:]...)
	}
	return v
}

// bodyBytes is what a value has behind its header.
func (v *Values) bodyBytes() int {
	if v.bytes < ValueHeaderBytes {
		return v.bytes
	}
	return v.bytes - ValueHeaderBytes
}

// Append appends the value of key n at the given version. Values shorter than ValueHeaderBytes
// have a body only and cannot be checked.
func (v *Values) Append(dst []byte, n Number, version uint64) []byte {
	start := len(dst)
	if v.bytes >= ValueHeaderBytes {
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
		dst = binary.BigEndian.AppendUint64(dst, version)
		dst = append(dst, 0, 0, 0, 0)
	}
	at := int(mix(uint64(n)^mix(version))%poolPieces) * v.piece
	dst = append(dst, v.pool[at:at+v.bodyBytes()]...)
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
