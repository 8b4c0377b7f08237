package netquic

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIdentityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	a, err := EnsureIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := EnsureIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a.Pin() != b.Pin() || a.reset != b.reset || a.token != b.token {
		t.Error("the second start has another identity")
	}
	if [32]byte(a.reset) == [32]byte(a.token) {
		t.Error("one key for two purposes")
	}
	if pin, err := ReadPin(filepath.Join(dir, CertFile)); err != nil || pin != a.Pin() {
		t.Errorf("ReadPin: %v, %v", pin, err)
	}
	for _, f := range []string{keyFile, secretFile} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 3 {
		t.Errorf("left behind: %v", entries)
	}
	other := identity(t)
	if other.Pin() == a.Pin() || other.reset == a.reset {
		t.Error("two directories share an identity")
	}
}

// TestIdentityAfterCrash removes what a crash during the first start may have left unwritten.
func TestIdentityAfterCrash(t *testing.T) {
	dir := t.TempDir()
	first, err := EnsureIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, CertFile))
	again, err := EnsureIdentity(dir)
	if err != nil || again.Pin() != first.Pin() {
		t.Fatalf("certificate lost: %v, pin kept %v", err, again.Pin() == first.Pin())
	}
	os.Remove(filepath.Join(dir, secretFile))
	if again, err = EnsureIdentity(dir); err != nil || again.Pin() != first.Pin() {
		t.Fatalf("secret lost: %v", err)
	}
}

func TestBadIdentity(t *testing.T) {
	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"key readable by others": func(_ *testing.T, dir string) {
			os.Chmod(filepath.Join(dir, keyFile), 0o640)
		},
		"key lost": func(_ *testing.T, dir string) {
			os.Remove(filepath.Join(dir, keyFile))
		},
		"key no PEM":        write(keyFile, "hello"),
		"key garbage":       write(keyFile, garbage("PRIVATE KEY")),
		"cert no PEM":       write(CertFile, ""),
		"cert garbage":      write(CertFile, garbage("CERTIFICATE")),
		"secret short":      write(secretFile, "short"),
		"cert of other key": otherCert,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := EnsureIdentity(dir); err != nil {
				t.Fatal(err)
			}
			damage(t, dir)
			_, err := EnsureIdentity(dir)
			var ie *IdentityError
			if !errors.As(err, &ie) || !strings.HasPrefix(ie.File, dir) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// garbage is a PEM block of the right type around nothing.
func garbage(kind string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("hello")}))
}

func otherCert(t *testing.T, dir string) {
	other := t.TempDir()
	if _, err := EnsureIdentity(other); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(other, CertFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, CertFile), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPinText(t *testing.T) {
	p := identity(t).Pin()
	if q, err := ParsePin(p.String()); err != nil || q != p {
		t.Errorf("%v, %v", q, err)
	}
	for _, s := range []string{"", "sha256:", p.String() + "00", p.String()[:70], "md5:00",
		strings.Replace(p.String(), ":", ":zz", 1)} {
		if _, err := ParsePin(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func FuzzFindPin(f *testing.F) {
	f.Add([]byte("# known\n\n[::1]:7400 sha256:"+strings.Repeat("ab", 32)+"\n"), "[::1]:7400")
	f.Add([]byte("a sha256:00"), "a")
	f.Fuzz(func(t *testing.T, text []byte, addr string) {
		pin, known, err := findPin(text, addr, "file")
		if known && (err != nil || !strings.Contains(strings.ToLower(string(text)), pin.String())) {
			t.Errorf("%v, %v", pin, err)
		}
	})
}

// state is a handshake with the server of this identity.
func state(t *testing.T, id *Identity) tls.ConnectionState {
	t.Helper()
	leaf, err := x509.ParseCertificate(id.cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
}

func TestVerifier(t *testing.T) {
	id, other := identity(t), identity(t)
	file := filepath.Join(t.TempDir(), "dir", "known")
	var mismatch *PinMismatchError
	var unknown *UnknownServerError

	pinned := &verifier{addr: "10.0.0.1:7400", pin: id.Pin()}
	if err := pinned.verify(state(t, id)); err != nil {
		t.Error(err)
	}
	if err := pinned.verify(state(t, other)); !errors.As(err, &mismatch) || mismatch.File != "" {
		t.Error(err)
	}
	if err := pinned.verify(tls.ConnectionState{}); err == nil {
		t.Error("no certificate accepted")
	}
	remote := &verifier{addr: "10.0.0.1:7400", file: file}
	if err := remote.verify(state(t, id)); !errors.As(err, &unknown) || unknown.Pin != id.Pin() {
		t.Error(err)
	}
	for _, addr := range []string{"127.0.0.1:7400", "[::1]:7400", "localhost:7401"} {
		v := &verifier{addr: addr, file: file}
		if err := v.verify(state(t, id)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(v.remember(state(t, id)), v.remember(state(t, id))); err != nil {
			t.Fatal(err)
		}
		if err := v.verify(state(t, id)); err != nil {
			t.Error(err)
		}
		err := v.verify(state(t, other))
		if !errors.As(err, &mismatch) || mismatch.File != file || mismatch.Want != id.Pin() ||
			!strings.Contains(err.Error(), "delete the line of "+addr+" from "+file) {
			t.Error(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil || strings.Count(string(b), "\n") != 3 {
		t.Errorf("%s, %v", b, err)
	}
}
