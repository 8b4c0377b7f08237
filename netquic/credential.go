package netquic

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Role is what a certificate of a cluster lets its holder be.
type Role string

const (
	RoleNode   Role = "node"
	RoleClient Role = "client"
)

// memberURI is how a certificate names its holder: kvd://node/NAME or kvd://client/NAME.
func memberURI(role Role, name string) *url.URL {
	return &url.URL{Scheme: "kvd", Host: string(role), Path: "/" + name}
}

// CertFault is why a certificate was refused.
type CertFault uint8

const (
	CertMissing        CertFault = iota // none was shown
	CertOtherAuthority                  // not signed by this cluster's authority
	CertExpired                         // or not valid yet
	CertMalformed                       // does not name a node or a client
	CertWrongRole                       // a client's where a node's is needed
	CertWrongName                       // not the node that was called
	CertUnknownName                     // of a node that is not among the peers
	certFaultCount     = 7
)

var certFaultNames = [certFaultCount]string{"no certificate", "other authority", "expired",
	"malformed", "wrong role", "wrong name", "unknown name"}

func (f CertFault) String() string { return certFaultNames[f] }

// CertError is the other end's certificate, refused by this one.
type CertError struct {
	Fault  CertFault
	Detail string
}

func (e *CertError) Error() string { return "netquic: certificate refused: " + e.reason() }

func (e *CertError) reason() string {
	if e.Detail == "" {
		return e.Fault.String()
	}
	return e.Fault.String() + " (" + e.Detail + ")"
}

// ErrCertRefused says that the other end has refused this one's certificate, or wants one and got
// none.
var ErrCertRefused = errors.New("netquic: this end's certificate was refused by the other end")

// verify checks the certificate that the other end has shown, and returns whose it is.
func (a *Authority) verify(cs tls.ConnectionState) (Role, string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", "", &CertError{Fault: CertMissing}
	}
	return a.check(cs.PeerCertificates[0], time.Now())
}

// check is verify for one certificate at a time.
func (a *Authority) check(leaf *x509.Certificate, now time.Time) (Role, string, error) {
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:       a.pool,
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok &&
		invalid.Reason == x509.Expired && leaf.CheckSignatureFrom(a.cert) == nil {
		return "", "", &CertError{CertExpired, fmt.Sprintf("valid from %s to %s",
			leaf.NotBefore.Format(time.DateOnly), leaf.NotAfter.Format(time.DateOnly))}
	}
	if err != nil {
		return "", "", &CertError{CertOtherAuthority, err.Error()}
	}
	role, name, ok := memberOf(leaf)
	if !ok {
		return "", "", &CertError{Fault: CertMalformed}
	}
	return role, name, nil
}

// memberOf reads whom a certificate names.
func memberOf(leaf *x509.Certificate) (Role, string, bool) {
	if leaf.IsCA || len(leaf.URIs) != 1 {
		return "", "", false
	}
	u := leaf.URIs[0]
	role, name := Role(u.Host), strings.TrimPrefix(u.Path, "/")
	if role != RoleNode && role != RoleClient || checkName(name) != nil ||
		u.String() != memberURI(role, name).String() {
		return "", "", false
	}
	return role, name, true
}

// verifyNode checks that the other end is a node of the cluster, and returns its name.
func (a *Authority) verifyNode(cs tls.ConnectionState) (string, error) {
	role, name, err := a.verify(cs)
	if err == nil && role != RoleNode {
		err = &CertError{CertWrongRole, fmt.Sprintf("%s %s", role, name)}
	}
	return name, err
}

// verifyNodeOf checks that the other end is one of these nodes of the cluster.
func (a *Authority) verifyNodeOf(cs tls.ConnectionState, names []string, fault CertFault) error {
	name, err := a.verifyNode(cs)
	if err == nil && !slices.Contains(names, name) {
		err = &CertError{fault, name}
	}
	return err
}

// ClusterIdentity is what a node of a cluster is known by: a key and a certificate with its name,
// signed by the authority. Immutable.
type ClusterIdentity struct {
	Identity
	authority *Authority
	name      string
}

// ClientIdentity is what a client of a cluster is known by. Immutable.
type ClientIdentity struct {
	cert      tls.Certificate
	authority *Authority
}

// Name of the node.
func (id *ClusterIdentity) Name() string { return id.name }

// Authority of the node's cluster.
func (id *ClusterIdentity) Authority() *Authority { return id.authority }

// ID names the cluster, as Authority.ID does.
func (id *ClusterIdentity) ID() uint64 { return id.authority.ID() }

// Expires returns until when the node's certificate is valid.
func (id *ClusterIdentity) Expires() time.Time { return id.cert.Leaf.NotAfter }

// Authority of the client's cluster.
func (id *ClientIdentity) Authority() *Authority { return id.authority }

// LoadCluster reads the identity of the node called name from a cluster's directory. When the node
// has no certificate and the authority's key is there, it is made.
func LoadCluster(dir, name string) (*ClusterIdentity, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	_, err := os.Stat(filepath.Join(dir, name+".pem"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, authorityKeyFile)); err == nil {
			if err := IssueNode(dir, name); err != nil {
				return nil, err
			}
		}
	}
	a, cert, err := loadMember(dir, name, RoleNode)
	if err != nil {
		return nil, err
	}
	key, ok := cert.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, &IdentityError{filepath.Join(dir, name+".key"), "not an ECDSA key"}
	}
	// The keys of QUIC come from the node's own, which nobody else has either.
	secret, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("netquic: %w", err)
	}
	id, err := newIdentity(secret, key, cert.Certificate[0])
	if err != nil {
		return nil, err
	}
	return &ClusterIdentity{Identity: *id, authority: a, name: name}, nil
}

// LoadClient reads the identity of the client called name from a cluster's directory; a node's does
// too, as nodes are let in wherever clients are.
func LoadClient(dir, name string) (*ClientIdentity, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	a, cert, err := loadMember(dir, name, RoleClient)
	if err != nil {
		return nil, err
	}
	return &ClientIdentity{cert: cert, authority: a}, nil
}

// loadMember reads the authority, and the key and the certificate of a member that has the role.
func loadMember(dir, name string, want Role) (*Authority, tls.Certificate, error) {
	var none tls.Certificate
	a, err := LoadAuthority(filepath.Join(dir, AuthorityCertFile))
	if err != nil {
		return nil, none, err
	}
	path := filepath.Join(dir, name+".pem")
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, none, fmt.Errorf("netquic: %w", err)
	}
	leaf, err := parseCert(path, b)
	if err != nil {
		return nil, none, err
	}
	keyPath := filepath.Join(dir, name+".key")
	key, err := readKey(keyPath)
	if err != nil {
		return nil, none, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, none, &IdentityError{path, "not the certificate of " + name + ".key"}
	}
	role, holder, err := a.check(leaf, time.Now())
	if fault, ok := errors.AsType[*CertError](err); ok {
		reason := fault.reason()
		if fault.Fault == CertExpired {
			reason += "; delete it and have it made anew, the key stays"
		}
		return nil, none, &IdentityError{path, reason}
	}
	if holder != name || role != want && role != RoleNode {
		return nil, none, &IdentityError{path, fmt.Sprintf(
			"the certificate of the %s %s, not of the %s %s", role, holder, want, name)}
	}
	return a, tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
