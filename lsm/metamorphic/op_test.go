package metamorphic

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

// op is one line of a list: words separated by spaces. doc.go has the language.
type op []string

func (o op) String() string { return strings.Join(o, " ") }

// words says what follows each verb: t a target, k a key, v a value, d a durability, b a bound,
// n a number, and other letters that only this table and check know. * is "any number of writes".
var words = map[string]string{
	"put": "tkvd", "delete": "tkd", "batch": "td*", "get": "tk",
	"snapshot": "s", "drop": "s",
	"iter": "itbb", "first": "i", "last": "i", "seekge": "ik", "seeklt": "ik", "next": "in",
	"prev": "in", "close": "i",
	"scan": "tbbw", "flush": "", "compact": "bb", "compacting": "bb", "checkpoint": "co", "leave": "c",
	"reopen": "", "readonly": "", "crash": "mnx*", "metrics": "", "scrub": "",
}

// parseOps reads a list. Empty lines and lines that begin with # are skipped; lines that begin
// with "options" are left to parsePlans.
func parseOps(text string) ([]op, error) {
	var ops []op
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		o := op(strings.Fields(lines.Text()))
		if len(o) == 0 || o[0][0] == '#' || o[0] == "options" {
			continue
		}
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", n, o, err)
		}
		ops = append(ops, o)
	}
	return ops, lines.Err()
}

func (o op) check() error {
	want, ok := words[o[0]]
	if !ok {
		return fmt.Errorf("no such verb")
	}
	fixed := strings.TrimSuffix(want, "*")
	rest := o[1:]
	if len(rest) < len(fixed) || len(rest) > len(fixed) && fixed == want {
		return fmt.Errorf("has %d words, want %d", len(rest), len(fixed))
	}
	for i, kind := range fixed {
		if err := checkWord(kind, rest[i]); err != nil {
			return err
		}
	}
	rest = rest[len(fixed):]
	for o[0] == "batch" && len(rest) > 0 {
		n := 2
		if rest[0] == "put" {
			n = 3
		}
		if len(rest) < n || rest[0] != "put" && rest[0] != "delete" {
			return fmt.Errorf("a batch holds put KEY VALUE and delete KEY")
		}
		if err := checkWord('k', rest[1]); err != nil {
			return err
		}
		if n == 3 {
			if err := checkWord('v', rest[2]); err != nil {
				return err
			}
		}
		rest = rest[n:]
	}
	return nil
}

func checkWord(kind rune, word string) (err error) {
	switch kind {
	case 'k':
		_, err = parseKey(word)
	case 'b':
		if word != "-" {
			_, err = parseKey(word)
		}
	case 'v':
		_, err = parseValue(word)
	case 'd':
		if _, ok := durabilities[word]; !ok {
			err = fmt.Errorf("no durability: %s", word)
		}
	case 'n':
		_, err = strconv.ParseUint(word, 10, 64)
	case 'm':
		if _, ok := crashModes[word]; !ok {
			err = fmt.Errorf("no crash mode: %s", word)
		}
	}
	return err
}

var durabilities = map[string]lsm.Durability{
	"sync": lsm.Sync, "async": lsm.Async, "nosync": lsm.NoSync,
}

var crashModes = func() map[string]vfs.CrashMode {
	m := make(map[string]vfs.CrashMode)
	for _, mode := range vfs.CrashModes {
		m[mode.String()] = mode
	}
	return m
}()

// A key is written as quoted parts, each with how often it is repeated: "ab"*3+"c" is abababc.
var keys sync.Map // from text to string

func parseKey(text string) (string, error) {
	if k, ok := keys.Load(text); ok {
		return k.(string), nil
	}
	var key strings.Builder
	for rest := text; ; {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return "", fmt.Errorf("no key: %s", text)
		}
		part, _ := strconv.Unquote(quoted) // just found to be quoted
		rest = rest[len(quoted):]
		times := 1
		if after, ok := strings.CutPrefix(rest, "*"); ok {
			digits, more, _ := strings.Cut(after, "+")
			if times, err = strconv.Atoi(digits); err != nil || times < 0 || times > 1<<20 {
				return "", fmt.Errorf("no key: %s", text)
			}
			if rest = ""; more != "" {
				rest = "+" + more
			}
		}
		key.WriteString(strings.Repeat(part, times))
		if rest == "" {
			break
		}
		if rest[0] != '+' {
			return "", fmt.Errorf("no key: %s", text)
		}
		rest = rest[1:]
	}
	keys.Store(text, key.String())
	return key.String(), nil
}

func keyOf(text string) []byte {
	key, err := parseKey(text)
	if err != nil {
		panic(err) // checked when the list was read
	}
	return []byte(key)
}

func boundOf(text string) []byte {
	if text == "-" {
		return nil
	}
	return keyOf(text)
}

// keyText is a key of one part.
func keyText(key string) string {
	return strings.ReplaceAll(strconv.QuoteToASCII(key), " ", `\x20`)
}

// value is a value as a list writes it, SIZE:FILL: its bytes follow from the two. An odd FILL does
// not compress.
type value struct {
	size int
	fill uint64
}

func parseValue(text string) (v value, err error) {
	size, fill, ok := strings.Cut(text, ":")
	if !ok {
		return v, fmt.Errorf("no value: %s", text)
	}
	if v.size, err = strconv.Atoi(size); err != nil || v.size < 0 || v.size > 64<<20 {
		return v, fmt.Errorf("no value: %s", text)
	}
	v.fill, err = strconv.ParseUint(fill, 10, 64)
	return v, err
}

func (v value) String() string { return fmt.Sprintf("%d:%d", v.size, v.fill) }

func (v value) bytes() []byte {
	b := make([]byte, v.size)
	if v.fill%2 == 0 {
		for i := range b {
			b[i] = byte(v.fill) + byte(i%7)
		}
		return b
	}
	r := rand.NewPCG(v.fill, uint64(v.size))
	for i := 0; i < len(b); i += 8 {
		x := r.Uint64()
		for j := i; j < min(i+8, len(b)); j++ {
			b[j] = byte(x)
			x >>= 8
		}
	}
	return b
}

func valueOf(text string) []byte {
	v, err := parseValue(text)
	if err != nil {
		panic(err) // checked when the list was read
	}
	return v.bytes()
}

// digests of values, by their text.
var digests sync.Map

func digestOf(text string) string {
	if d, ok := digests.Load(text); ok {
		return d.(string)
	}
	d := digest(valueOf(text))
	digests.Store(text, d)
	return d
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// digest stands for a value in a history.
func digest(b []byte) string {
	var text [32]byte
	out := strconv.AppendInt(text[:0], int64(len(b)), 10)
	out = append(out, '/')
	return string(strconv.AppendUint(out, uint64(crc32.Checksum(b, castagnoli)), 16))
}

// pair is a key and the digest of its value. The model also knows what the list says of the value.
type pair struct{ key, value, text string }

func samePairs(a, b []pair) bool {
	return slices.EqualFunc(a, b, func(p, q pair) bool { return p.key == q.key && p.value == q.value })
}

// listing is the contents of a range in a history: all of it when short, else its number and a sum.
func listing(pairs []pair) string {
	const shown = 4
	if len(pairs) <= shown {
		var b strings.Builder
		for _, p := range pairs {
			b.WriteString(" " + shortKey(p.key) + "=" + p.value)
		}
		return "holds" + b.String()
	}
	sum := crc32.New(castagnoli)
	for _, p := range pairs {
		_, _ = fmt.Fprintf(sum, "%q=%s\n", p.key, p.value)
	}
	return fmt.Sprintf("holds %d pairs, sum %08x", len(pairs), sum.Sum32())
}

func shortKey(key string) string {
	if len(key) > 40 {
		return fmt.Sprintf("%s...%d", keyText(key[:20]), len(key))
	}
	return keyText(key)
}
