package netquic

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The files of a cluster's directory. Beside these two it has NAME.pem and NAME.key of every node
// and client that the directory's owner is.
const (
	AuthorityCertFile = "ca.pem" // the authority's certificate: who has it can check the others
	authorityKeyFile  = "ca.key" // its private key, mode 0600: who has it can make members
)

const (
	authorityName = "ca" // whose files are the authority's
	maxNameBytes  = 64

	certificateLife = 10 * 365 * 24 * time.Hour // of nodes and clients
)

// Whatever the clock says: a machine without a battery starts in 1970. Keys of an authority are
// for the life of its cluster.
var (
	alwaysBegun = time.Unix(0, 0).UTC()
	neverEnds   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// Authority is the key that signs the certificates of one cluster's nodes and clients. It is that
// cluster's identity. Immutable.
type Authority struct {
	cert *x509.Certificate
	pool *x509.CertPool
}

// ID names the cluster: the first 8 bytes of the SHA-256 of the authority's public key
// (SubjectPublicKeyInfo).
func (a *Authority) ID() uint64 {
	sum := sha256.Sum256(a.cert.RawSubjectPublicKeyInfo)
	return binary.LittleEndian.Uint64(sum[:])
}

// LoadAuthority reads an authority's certificate, such as AuthorityCertFile of a cluster's
// directory. Its private key is not needed.
func LoadAuthority(path string) (*Authority, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	cert, err := parseCert(path, b)
	if err != nil {
		return nil, err
	}
	return newAuthority(path, cert)
}

func newAuthority(path string, cert *x509.Certificate) (*Authority, error) {
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, &IdentityError{path, "not the certificate of an authority"}
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return nil, &IdentityError{path, err.Error()}
	}
	a := &Authority{cert: cert, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a, nil
}

// CreateAuthority makes the authority of a new cluster in dir. It refuses a directory that has one:
// another key would make every certificate of the cluster worthless. A key without its certificate
// is what a crash leaves; the certificate is then made anew, and the cluster is the same.
func CreateAuthority(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	path := filepath.Join(dir, AuthorityCertFile)
	if err := refuseExisting(path); err != nil {
		return nil, err
	}
	key, err := ensureKey(filepath.Join(dir, authorityKeyFile), path)
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(authorityName)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: "kvd authority"}
	template.NotAfter = neverEnds
	template.IsCA, template.BasicConstraintsValid = true, true
	template.MaxPathLenZero = true // it signs members, not authorities
	template.KeyUsage = x509.KeyUsageCertSign
	if err := writeCert(path, template, template, &key.PublicKey, key); err != nil {
		return nil, err
	}
	return LoadAuthority(path)
}

// IssueNode makes the key and the certificate of a node called name, NAME.key and NAME.pem in dir,
// which must hold the authority with its key. A certificate that is there is not replaced; a key
// without a certificate is kept, and with it the pin.
func IssueNode(dir, name string) error {
	return issue(dir, name, RoleNode, time.Now().Add(certificateLife))
}

// IssueClient is IssueNode for a client.
func IssueClient(dir, name string) error {
	return issue(dir, name, RoleClient, time.Now().Add(certificateLife))
}

func issue(dir, name string, role Role, notAfter time.Time) error {
	if err := checkName(name); err != nil {
		return err
	}
	a, signer, err := loadSigner(dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name+".pem")
	if err := refuseExisting(path); err != nil {
		return err
	}
	key, err := ensureKey(filepath.Join(dir, name+".key"), path)
	if err != nil {
		return err
	}
	template, err := newTemplate(name)
	if err != nil {
		return err
	}
	template.NotAfter = notAfter
	template.URIs = []*url.URL{memberURI(role, name)}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if role == RoleNode {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.DNSNames = []string{"kvd"} // what clients call every server
	}
	return writeCert(path, template, a.cert, &key.PublicKey, signer)
}

// loadSigner reads the authority and its private key.
func loadSigner(dir string) (*Authority, *ecdsa.PrivateKey, error) {
	certPath := filepath.Join(dir, AuthorityCertFile)
	a, err := LoadAuthority(certPath)
	if err != nil {
		return nil, nil, err
	}
	keyPath := filepath.Join(dir, authorityKeyFile)
	key, err := readKey(keyPath)
	if err != nil {
		return nil, nil, err
	}
	if !key.PublicKey.Equal(a.cert.PublicKey) {
		return nil, nil, &IdentityError{keyPath, "not the key of " + AuthorityCertFile}
	}
	return a, key, nil
}

func newTemplate(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: alwaysBegun}, nil
}

func writeCert(path string, template, parent *x509.Certificate, public *ecdsa.PublicKey,
	signer *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return fmt.Errorf("netquic: %w", err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return writeFile(path, b, 0o644)
}

// refuseExisting fails when there is a file, with an error that matches fs.ErrExist.
func refuseExisting(path string) error {
	_, err := os.Lstat(path)
	if err == nil {
		return fmt.Errorf("netquic: %s: %w; it is not replaced", path, fs.ErrExist)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("netquic: %w", err)
	}
	return nil
}

// NameError is a name that no member of a cluster can have.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("netquic: name %q: must be 1 to %d letters, digits, '.', '_' or '-', "+
		"and not %q", e.Name, maxNameBytes, authorityName)
}

func checkName(name string) error {
	valid := name != "" && len(name) <= maxNameBytes && !strings.EqualFold(name, authorityName)
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == '-':
		default:
			valid = false
		}
	}
	if !valid {
		return &NameError{name}
	}
	return nil
}

// generateKey makes a key and its PEM form.
func generateKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("netquic: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("netquic: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
