package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"kvd/lsm"
)

// pairJSON is a pair as a JSON object. Text is in key and value; what is not UTF-8, which a JSON
// string cannot hold, is base64 in key_b64 and value_b64.
type pairJSON struct {
	Key         *string `json:"key,omitempty"`
	KeyBase64   []byte  `json:"key_b64,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 []byte  `json:"value_b64,omitempty"`
}

func keyJSON(key []byte) (p pairJSON) {
	if s := string(key); utf8.ValidString(s) {
		p.Key = &s
	} else {
		p.KeyBase64 = key
	}
	return p
}

func makePairJSON(key, value []byte) pairJSON {
	p := keyJSON(key)
	if s := string(value); utf8.ValidString(s) {
		p.Value = &s
	} else {
		p.ValueBase64 = value
	}
	return p
}

// pair returns what the object means.
func (p *pairJSON) pair() (key, value []byte, err error) {
	switch {
	case (p.Key == nil) == (p.KeyBase64 == nil):
		return nil, nil, errors.New(`needs one of "key" and "key_b64"`)
	case (p.Value == nil) == (p.ValueBase64 == nil):
		return nil, nil, errors.New(`needs one of "value" and "value_b64"`)
	}
	key, value = p.KeyBase64, p.ValueBase64
	if p.Key != nil {
		key = []byte(*p.Key)
	}
	if p.Value != nil {
		value = []byte(*p.Value)
	}
	return key, value, nil
}

// maxLineBytes bounds a line: a pair of the largest size with every byte escaped as \u00XX.
const maxLineBytes = 6*(lsm.MaxValueBytes+lsm.MaxKeyBytes) + 1024

// readJSONL calls emit for the pair of every line. It stops at the first line that is none.
func readJSONL(ctx context.Context, name string, r io.Reader, emit func(item) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLineBytes)
	number := 0
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		key, value, err := parsePair(line)
		if err == nil && (len(key) == 0 || len(key) > lsm.MaxKeyBytes) {
			err = &lsm.KeySizeError{Bytes: len(key)}
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, number, err)
		}
		if err := emit(item{key: key, value: value, size: int64(len(value))}); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%s:%d: line of more than %d bytes", name, number+1, maxLineBytes)
	}
	return lines.Err()
}

func parsePair(line []byte) (key, value []byte, err error) {
	if !utf8.Valid(line) {
		return nil, nil, errors.New("not UTF-8; such bytes go into key_b64 and value_b64")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var p pairJSON
	if err := d.Decode(&p); err != nil {
		return nil, nil, fmt.Errorf("not a pair: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("more than one object on the line")
	}
	if half := loneSurrogate(line); half != "" {
		return nil, nil, fmt.Errorf("%s is half a character; such bytes go into key_b64 and "+
			"value_b64", half)
	}
	return p.pair()
}

// loneSurrogate returns the first escape in a line of well-formed JSON that is one half of a
// surrogate pair without the other, which the decoder would replace by U+FFFD; else "".
func loneSurrogate(line []byte) string {
	const escapeBytes = len(`\uXXXX`)
	for i := 0; i < len(line); i++ {
		if line[i] != '\\' {
			continue
		}
		first := escaped(line[i:])
		switch {
		case first < 0:
			i++ // the character that is escaped, which may be a backslash
		case !utf16.IsSurrogate(first):
			i += escapeBytes - 1
		case utf16.DecodeRune(first, escaped(line[i+escapeBytes:])) == unicode.ReplacementChar:
			return string(line[i : i+escapeBytes])
		default:
			i += 2*escapeBytes - 1
		}
	}
	return ""
}

// escaped returns what the escape \uXXXX at the start of b stands for, -1 if there is none.
func escaped(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
