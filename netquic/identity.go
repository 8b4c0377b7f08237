package netquic

import (
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/quic-go/quic-go"
)

// The files of an identity's directory.
const (
	CertFile   = "cert.pem"   // the certificate, public
	keyFile    = "key.pem"    // its private key, mode 0600
	secretFile = "secret.bin" // 32 random bytes the QUIC keys are derived from, mode 0600
)

const secretBytes = 32

// Identity is what a server is known by: a key, a self-signed certificate, and the keys by which a
// restarted server tells clients at once that their old connections are gone. Immutable.
type Identity struct {
	cert  tls.Certificate
	pin   Pin
	reset quic.StatelessResetKey
	token quic.TokenGeneratorKey
}

// Pin is what clients know this identity by.
func (id *Identity) Pin() Pin { return id.pin }

// IdentityError is an identity directory that cannot be used as it is.
type IdentityError struct {
	File   string
	Reason string
}

func (e *IdentityError) Error() string { return "netquic: " + e.File + ": " + e.Reason }

// EnsureIdentity reads the identity kept in dir, making what is missing at the first start. The
// private files are readable by their owner only, or the identity is refused. Files appear whole
// and durable or not at all; a crash between two of them leaves an identity that the next start
// completes under the same pin. One process at a time may use dir.
func EnsureIdentity(dir string) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	secret, err := ensureSecret(filepath.Join(dir, secretFile))
	if err != nil {
		return nil, err
	}
	certPath := filepath.Join(dir, CertFile)
	key, err := ensureKey(filepath.Join(dir, keyFile), certPath)
	if err != nil {
		return nil, err
	}
	der, err := ensureCert(certPath, key)
	if err != nil {
		return nil, err
	}
	return newIdentity(secret, key, der)
}

func newIdentity(secret []byte, key *ecdsa.PrivateKey, der []byte) (*Identity, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	id := &Identity{
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		pin:  pinOf(leaf),
	}
	for info, dst := range map[string][]byte{
		"kvd stateless reset": id.reset[:], "kvd address token": id.token[:],
	} {
		k, err := hkdf.Key(sha256.New, secret, nil, info, len(dst))
		if err != nil {
			return nil, fmt.Errorf("netquic: %w", err)
		}
		copy(dst, k)
	}
	return id, nil
}

func ensureSecret(path string) ([]byte, error) {
	b, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, secretBytes)
		rand.Read(b)
		return b, writeFile(path, b, 0o600)
	}
	if err == nil && len(b) != secretBytes {
		return nil, &IdentityError{path, fmt.Sprintf(
			"%d bytes instead of %d; delete it and it is made anew", len(b), secretBytes)}
	}
	return b, err
}

func ensureKey(path, certPath string) (*ecdsa.PrivateKey, error) {
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createKey(path, certPath)
	}
	return key, err
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	b, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, &IdentityError{path, "no PEM block"}
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, &IdentityError{path, err.Error()}
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, &IdentityError{path, fmt.Sprintf("a %T, not an ECDSA key", k)}
	}
	return key, nil
}

// createKey makes the key of a first start. A certificate without its key is no first start: a new
// key would silently break every client's pin.
func createKey(path, certPath string) (*ecdsa.PrivateKey, error) {
	if _, err := os.Stat(certPath); err == nil {
		cert := filepath.Base(certPath)
		return nil, &IdentityError{path, "missing beside " + cert +
			"; restore it, or delete " + cert + " for a new identity"}
	}
	key, b, err := generateKey()
	if err != nil {
		return nil, err
	}
	return key, writeFile(path, b, 0o600)
}

func ensureCert(path string, key *ecdsa.PrivateKey) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		der, err := selfSign(key)
		if err != nil {
			return nil, fmt.Errorf("netquic: %w", err)
		}
		b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		return der, writeFile(path, b, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	leaf, err := parseCert(path, b)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, &IdentityError{path, "not the certificate of " + keyFile +
			"; delete it and it is made anew"}
	}
	return leaf.Raw, nil
}

// selfSign makes the certificate. The key is the identity, so it neither expires in practice nor
// names a host; no intermediate, so that the handshake's first flight fits three packets.
func selfSign(key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "kvd"},
		DNSNames:     []string{"kvd"},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), // whatever the clock says
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
}

func parseCert(path string, b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, &IdentityError{path, "no certificate in PEM form"}
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, &IdentityError{path, err.Error()}
	}
	return leaf, nil
}

// readPrivate reads a file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, &IdentityError{path, fmt.Sprintf(
			"mode %#o lets others read it; run: chmod 600 %s", perm, path)}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	return b, nil
}

// writeFile makes path hold b, durably and atomically.
func writeFile(path string, b []byte, perm fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".tmp*")
	if err != nil {
		return fmt.Errorf("netquic: %w", err)
	}
	defer os.Remove(f.Name()) // fails once renamed
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("netquic: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// tlsConfig is the server's towards clients. onWrongProtocol is called when a client offers no
// protocol of ours; the handshake then fails by itself.
func (id *Identity) tlsConfig(onWrongProtocol func()) *tls.Config {
	conf := id.baseConfig(Protocol)
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if !slices.Contains(hello.SupportedProtos, Protocol) {
			onWrongProtocol()
		}
		return nil, nil
	}
	return conf
}

func (id *Identity) baseConfig(protocol string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.cert},
		NextProtos:             []string{protocol},
		SessionTicketsDisabled: true, // clients reconnect rarely; every handshake is a full one
	}
}
