package netquic

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAuthorityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "tls")
	a, err := CreateAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CreateAuthority(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	for name, mode := range map[string]fs.FileMode{AuthorityCertFile: 0o644, authorityKeyFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	node := clusterIdentity(t, dir, "n1")
	again := clusterIdentity(t, dir, "n1")
	if node.Pin() != again.Pin() || node.reset != again.reset || node.token != again.token {
		t.Error("the second start has another identity")
	}
	if other := clusterIdentity(t, dir, "n2"); other.Pin() == node.Pin() || other.reset == node.reset {
		t.Error("two nodes share an identity")
	}
	if node.Name() != "n1" || node.ID() != a.ID() || node.ID() == 0 ||
		node.Expires().Before(time.Now().Add(certificateLife-time.Hour)) {
		t.Errorf("%+v", node)
	}
	if info, err := os.Stat(filepath.Join(dir, "n1.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := IssueNode(dir, "n1"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("issued twice: %v", err)
	}
	if err := IssueClient(dir, "n1"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("issued to a client too: %v", err)
	}
	// What a crash or a renewal leaves: the keys are kept, and who is known stays known.
	os.Remove(filepath.Join(dir, "n1.pem"))
	os.Remove(filepath.Join(dir, AuthorityCertFile))
	if b, err := CreateAuthority(dir); err != nil || b.ID() != a.ID() {
		t.Errorf("certificate of the authority lost: %v", err)
	}
	if renewed := clusterIdentity(t, dir, "n1"); renewed.Pin() != node.Pin() {
		t.Error("renewed, it has another key")
	}
	clusterIdentity(t, dir, "n2") // signed under the lost certificate

	// A node's directory without the authority's key.
	os.Remove(filepath.Join(dir, authorityKeyFile))
	clusterIdentity(t, dir, "n1")
	if _, err := LoadCluster(dir, "n3"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made without a key: %v", err)
	}
	if err := IssueClient(dir, "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("issued without a key: %v", err)
	}
}

func TestBadClusterFiles(t *testing.T) {
	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	take := func(name, as string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			write(as, string(b))(t, dir)
		}
	}
	both := func(from, to string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			take(from+".pem", to+".pem")(t, dir)
			take(from+".key", to+".key")(t, dir)
		}
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"key readable by others": func(_ *testing.T, dir string) {
			os.Chmod(filepath.Join(dir, "n1.key"), 0o644)
		},
		"key no PEM":               write("n1.key", "hello"),
		"certificate no PEM":       write("n1.pem", "hello"),
		"certificate garbage":      write("n1.pem", garbage("CERTIFICATE")),
		"authority no PEM":         write("ca.pem", ""),
		"authority a node":         take("n1.pem", "ca.pem"),
		"certificate of another":   take("n2.pem", "n1.pem"),
		"all of another":           both("n2", "n1"),
		"all of a client":          both("someone", "n1"),
		"all of the authority":     both("ca", "n1"),
		"authority of another one": func(t *testing.T, dir string) { otherAuthority(t, dir) },
		"expired": func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, "n1.pem"))
			if err := issue(dir, "n1", RoleNode, time.Now().Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := authority(t)
			err := errors.Join(IssueNode(dir, "n1"), IssueNode(dir, "n2"), IssueClient(dir, "someone"))
			if err != nil {
				t.Fatal(err)
			}
			damage(t, dir)
			_, err = LoadCluster(dir, "n1")
			var ie *IdentityError
			if !errors.As(err, &ie) || filepath.Dir(ie.File) != dir {
				t.Errorf("got %v", err)
			}
		})
	}
}

func otherAuthority(t *testing.T, dir string) {
	b, err := os.ReadFile(filepath.Join(authority(t), AuthorityCertFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, AuthorityCertFile), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	dir := authority(t)
	for _, name := range []string{"", "ca", "CA", "a/b", "../x", "ä", "a b", "a\x00",
		"x1234567890123456789012345678901234567890123456789012345678901234"} {
		var ne *NameError
		if err := IssueNode(dir, name); !errors.As(err, &ne) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := LoadCluster(dir, name); !errors.As(err, &ne) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := LoadClient(dir, name); !errors.As(err, &ne) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"a", "N-1.eu_west",
		"x123456789012345678901234567890123456789012345678901234567890123"} {
		if err := IssueNode(dir, name); err != nil {
			t.Error(err)
		}
	}
}

func clientIdentity(t testing.TB, dir, name string) *ClientIdentity {
	t.Helper()
	id, err := LoadClient(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestClientCertificates calls a node that asks for one.
func TestClientCertificates(t *testing.T) {
	dir, elsewhere := authority(t), authority(t)
	if err := errors.Join(IssueClient(dir, "app"), IssueClient(elsewhere, "app")); err != nil {
		t.Fatal(err)
	}
	id := clusterIdentity(t, dir, "n1")
	s := serve(t, echo{true}, Options{Cluster: id, RequireClientCert: true})
	late := &ClientIdentity{member(t, dir, "late", RoleClient, time.Now().Add(-time.Hour)),
		id.authority}
	for name, c := range map[string]struct {
		o     Options
		fault string // that the server counts; empty when it lets the client in
	}{
		"client": {Options{ClientCert: clientIdentity(t, dir, "app")}, ""},
		"node":   {Options{ClientCert: clientIdentity(t, dir, "n1")}, ""},
		"client that knows the pin": {Options{Pin: id.Pin(),
			ClientCert: clientIdentity(t, dir, "app")}, ""},
		"none": {Options{Pin: id.Pin()}, "no certificate"},
		"of another authority": {Options{Pin: id.Pin(),
			ClientCert: clientIdentity(t, elsewhere, "app")}, "other authority"},
		"expired": {Options{ClientCert: late}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			before := s.Metrics()
			client, err := NewClient(s.Addr().String(), c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			begun := time.Now()
			_, err = client.Call(t.Context(), []byte("x"), nil)
			if c.fault == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrCertRefused) || errors.Is(err, ErrInDoubt) ||
				time.Since(begun) > 5*time.Second {
				t.Errorf("after %v: %v", time.Since(begun), err)
			}
			m := s.Metrics()
			if m.CertsRefused[c.fault] == before.CertsRefused[c.fault] || m.Calls != before.Calls {
				t.Errorf("%+v", m)
			}
		})
	}
}

// TestServerOfAnotherCluster calls servers that the client's authority has not signed.
func TestServerOfAnotherCluster(t *testing.T) {
	dir, elsewhere := authority(t), authority(t)
	a, err := LoadAuthority(filepath.Join(dir, AuthorityCertFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{
		{Cluster: clusterIdentity(t, elsewhere, "n1")},
		{Identity: identity(t)},
		{Identity: &Identity{cert: member(t, dir, "app", RoleClient, neverEnds), pin: Pin{1}}},
	} {
		s := serve(t, echo{true}, o)
		c, err := NewClient(s.Addr().String(), Options{Authority: a})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var ce *CertError
		_, err = c.Call(context.Background(), []byte("x"), nil)
		if !errors.As(err, &ce) || errors.Is(err, ErrInDoubt) || s.Metrics().Calls != 0 {
			t.Error(err)
		}
	}
}
