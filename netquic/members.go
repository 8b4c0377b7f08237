package netquic

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Member is a certificate in a cluster's directory.
type Member struct {
	Name    string // of the file, and unless there is an Err of the holder
	File    string
	Role    Role // RoleAuthority for ca.pem
	Pin     Pin
	Expires time.Time
	HasKey  bool  // the private key is beside it
	Err     error // why nobody would take it; nil when it is good
}

// RoleAuthority is that of the authority's own certificate.
const RoleAuthority Role = "authority"

// ListMembers returns the certificates in a cluster's directory, the authority's first, the others
// in the order of their names. A bad one is listed with what is wrong with it.
func ListMembers(dir string) (*Authority, []Member, error) {
	a, err := LoadAuthority(filepath.Join(dir, AuthorityCertFile))
	if err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("netquic: %w", err)
	}
	list := []Member{newMember(dir, authorityName, a.cert)}
	list[0].Role = RoleAuthority
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".pem")
		if ok && name != authorityName {
			list = append(list, a.readMember(dir, name))
		}
	}
	return a, list, nil
}

func newMember(dir, name string, cert *x509.Certificate) Member {
	m := Member{Name: name, File: filepath.Join(dir, name+".pem")}
	if cert != nil {
		m.Pin, m.Expires = pinOf(cert), cert.NotAfter
	}
	_, err := os.Stat(filepath.Join(dir, name+".key"))
	m.HasKey = err == nil
	return m
}

func (a *Authority) readMember(dir, name string) Member {
	m := newMember(dir, name, nil)
	b, err := os.ReadFile(m.File)
	if err != nil {
		m.Err = err
		return m
	}
	leaf, err := parseCert(m.File, b)
	if err != nil {
		m.Err = err
		return m
	}
	m = newMember(dir, name, leaf)
	role, holder, err := a.check(leaf, time.Now())
	m.Role, m.Err = role, err
	if err == nil && holder != name {
		m.Err = &CertError{CertWrongName, holder}
	}
	if m.Err != nil {
		return m
	}
	key, err := readKey(filepath.Join(dir, name+".key"))
	switch {
	case !m.HasKey:
	case err != nil:
		m.Err = err
	case !key.PublicKey.Equal(leaf.PublicKey):
		m.Err = errors.New("netquic: the key beside it is another one")
	}
	return m
}
