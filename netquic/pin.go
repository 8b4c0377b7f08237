package netquic

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Pin identifies a server by its public key: the SHA-256 of the certificate's
// SubjectPublicKeyInfo (RFC 7469). The pin is the identity: host names and validity dates of the
// certificate are not looked at. The zero Pin identifies nobody.
type Pin [sha256.Size]byte

const pinPrefix = "sha256:"

func (p Pin) String() string { return pinPrefix + hex.EncodeToString(p[:]) }

// ParsePin reads what Pin.String writes.
func ParsePin(s string) (p Pin, err error) {
	h, ok := strings.CutPrefix(s, pinPrefix)
	if ok {
		var b []byte
		if b, err = hex.DecodeString(h); err == nil && len(b) == len(p) {
			copy(p[:], b)
			return p, nil
		}
	}
	return p, fmt.Errorf("netquic: pin %q is not %q and %d hex digits", s, pinPrefix, 2*len(p))
}

// ReadPin returns the pin of the certificate in a PEM file, such as CertFile of a server's
// identity.
func ReadPin(certPath string) (Pin, error) {
	b, err := os.ReadFile(certPath)
	if err != nil {
		return Pin{}, fmt.Errorf("netquic: %w", err)
	}
	leaf, err := parseCert(certPath, b)
	if err != nil {
		return Pin{}, err
	}
	return pinOf(leaf), nil
}

func pinOf(leaf *x509.Certificate) Pin { return sha256.Sum256(leaf.RawSubjectPublicKeyInfo) }

// PinMismatchError is a server with another key than the one known for its address: it was set up
// anew, or somebody stands in between.
type PinMismatchError struct {
	Addr      string
	Want, Got Pin
	File      string // the known servers file that holds Want; empty when Options.Pin does
}

func (e *PinMismatchError) Error() string {
	s := fmt.Sprintf("netquic: %s has key %s, not the expected %s", e.Addr, e.Got, e.Want)
	if e.File == "" {
		return s
	}
	return s + fmt.Sprintf("; if the server was set up anew, delete the line of %s from %s",
		e.Addr, e.File)
}

// UnknownServerError is a server that is neither known nor on a loopback address.
type UnknownServerError struct {
	Addr string
	Pin  Pin
	File string // the known servers file
}

func (e *UnknownServerError) Error() string {
	return fmt.Sprintf("netquic: %s is unknown; if its key is %s, add the line \"%s %s\" to %s",
		e.Addr, e.Pin, e.Addr, e.Pin, e.File)
}

// verifier decides whether a server is the one meant. Immutable.
type verifier struct {
	addr      string     // as the caller named it: the key of the known servers file
	pin       Pin        // zero: ask the authority
	authority *Authority // nil: look into file
	file      string
}

// knownServers serialises changes of known servers files by this process.
var knownServers sync.Mutex

// verify runs for every handshake, resumed ones included.
func (v *verifier) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("netquic: the server showed no certificate")
	}
	got := pinOf(cs.PeerCertificates[0])
	if v.pin != (Pin{}) {
		if got != v.pin {
			return &PinMismatchError{Addr: v.addr, Want: v.pin, Got: got}
		}
		return nil
	}
	if v.authority != nil {
		_, err := v.authority.verifyNode(cs)
		return err
	}
	want, known, err := v.lookup()
	switch {
	case err != nil:
		return err
	case known && want != got:
		return &PinMismatchError{Addr: v.addr, Want: want, Got: got, File: v.file}
	case !known && !IsLoopback(v.addr):
		return &UnknownServerError{Addr: v.addr, Pin: got, File: v.file}
	}
	return nil
}

// remember adds a server to the file, after a handshake in which it proved to hold its key.
func (v *verifier) remember(cs tls.ConnectionState) error {
	if v.pin != (Pin{}) || v.authority != nil {
		return nil
	}
	knownServers.Lock()
	defer knownServers.Unlock()
	got := pinOf(cs.PeerCertificates[0])
	want, known, err := v.lookup()
	switch {
	case err != nil:
		return err
	case known && want != got: // another process has learned it since verify looked
		return &PinMismatchError{Addr: v.addr, Want: want, Got: got, File: v.file}
	case known:
		return nil
	}
	return rememberLocked(v.file, v.addr, got)
}

// Remember makes p the pin of addr in a known servers file, making the file if there is none. It
// is for whoever knows the pin better than a first contact would: a server that starts on a
// loopback address tells the clients of its user, so that setting it up anew needs no one's hand.
func Remember(file, addr string, p Pin) error {
	knownServers.Lock()
	defer knownServers.Unlock()
	return rememberLocked(file, addr, p)
}

func rememberLocked(file, addr string, p Pin) error {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("netquic: %w", err)
	}
	var kept []byte
	for line := range bytes.Lines(text) {
		if fields := bytes.Fields(line); len(fields) > 0 && string(fields[0]) == addr {
			continue
		}
		kept = append(kept, line...)
	}
	if len(kept) > 0 && kept[len(kept)-1] != '\n' {
		kept = append(kept, '\n')
	}
	kept = fmt.Appendf(kept, "%s %s\n", addr, p)
	if bytes.Equal(kept, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("netquic: %w", err)
	}
	return writeFile(file, kept, 0o600)
}

func (v *verifier) lookup() (Pin, bool, error) {
	b, err := os.ReadFile(v.file)
	if errors.Is(err, fs.ErrNotExist) {
		return Pin{}, false, nil
	}
	if err != nil {
		return Pin{}, false, fmt.Errorf("netquic: %w", err)
	}
	return findPin(b, v.addr, v.file)
}

// findPin looks an address up in the text of a known servers file: one "address pin" per line,
// empty lines and lines starting with # are skipped.
func findPin(text []byte, addr, file string) (Pin, bool, error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") || fields[0] != addr {
			continue
		}
		if len(fields) != 2 {
			return Pin{}, false, fmt.Errorf("netquic: %s:%d: not an address and a pin", file, n)
		}
		pin, err := ParsePin(fields[1])
		if err != nil {
			return Pin{}, false, fmt.Errorf("%w (%s:%d)", err, file, n)
		}
		return pin, true, nil
	}
	if err := lines.Err(); err != nil {
		return Pin{}, false, fmt.Errorf("netquic: %s: %w", file, err)
	}
	return Pin{}, false, nil
}

// IsLoopback tells whether addr (host:port) can be reached from this machine only: its host is
// localhost or a loopback IP address. Names are not resolved.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
