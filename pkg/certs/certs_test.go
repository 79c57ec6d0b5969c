package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority makes a new one in a folder of its own.
func authority(t *testing.T, cluster string) *Authority {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	if err := Init(dir, cluster, Year); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a certificate for the host "here" and returns its files, which trust the authority that made it.
func issue(t *testing.T, a *Authority, role Role, name string) Files {
	t.Helper()
	cert, key, err := a.Issue(Request{Identity: Identity{Role: role, Name: name}, Hosts: []string{"here", "127.0.0.1"}, Valid: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return Files{Cert: cert, Key: key, CA: filepath.Join(a.dir, caCert)}
}

func load(t *testing.T, f Files) *Certificates {
	t.Helper()
	c, err := Load(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mutual(t *testing.T, f Files) *tls.Config {
	t.Helper()
	config, err := load(t, f).Mutual()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// shake lets a client call the server "here", and returns the certificate that the client saw, and what each has to say.
func shake(t *testing.T, server, client *tls.Config) (saw *x509.Certificate, atServer, atClient error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client = client.Clone()
	client.ServerName = "here"
	done := make(chan struct{})
	go func() {
		defer close(done)
		far, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			atClient = err
			return
		}
		defer far.Close()
		conn := tls.Client(far, client)
		if atClient = conn.Handshake(); atClient == nil {
			saw = conn.ConnectionState().PeerCertificates[0]
			_, atClient = io.Copy(io.Discard, conn) // a refusal of the client's certificate arrives here
		}
	}()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Server(near, server)
	atServer = conn.Handshake()
	conn.Close()
	<-done
	return saw, atServer, atClient
}

func TestIssuedCertificates(t *testing.T) {
	a := authority(t, "prod")
	if a.Cluster() != "prod" {
		t.Errorf("cluster %q, want prod", a.Cluster())
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	for role, server := range map[Role]bool{Coordinator: true, Replica: false, Client: false} {
		files := issue(t, a, role, string(role)+"-0")
		cert, err := readCertificate(files.Cert)
		if err != nil {
			t.Fatal(err)
		}
		id, err := IdentityOf(cert)
		if want := (Identity{"prod", role, string(role) + "-0"}); err != nil || id != want {
			t.Errorf("identity %v, %v, want %v", id, err, want)
		}
		for _, host := range []string{"here", "127.0.0.1"} {
			_, err = cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
			if (err == nil) != server {
				t.Errorf("%s as a server at %s: %v", role, host, err)
			}
		}
		if _, err = cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s as a client: %v", role, err)
		}
		for path, want := range map[string]fs.FileMode{files.Cert: 0o644, files.Key: 0o600, filepath.Join(a.dir, caKey): 0o600, a.dir: fs.ModeDir | 0o700} {
			if info, err := os.Stat(path); err != nil || info.Mode() != want {
				t.Errorf("%s: mode %v, %v, want %v", path, info.Mode(), err, want)
			}
		}
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	a := authority(t, "prod")
	files := issue(t, a, Replica, "r0")
	before := map[string]string{}
	for _, path := range []string{files.Cert, files.Key, files.CA, filepath.Join(a.dir, caKey)} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before[path] = string(data)
	}
	request := Request{Identity: Identity{Role: Client, Name: "r0"}, Valid: time.Hour}
	if err := Init(a.dir, "other", Year); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second authority: %v, want %v", err, fs.ErrExist)
	}
	if _, _, err := a.Issue(request); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v, want %v", err, fs.ErrExist)
	}
	for path, want := range before {
		if data, err := os.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s has changed (%v)", path, err)
		}
	}
	// One of the two is there: the other is not made.
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Issue(request); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a certificate without its key: %v, want %v", err, fs.ErrExist)
	}
	if _, err := os.Stat(files.Key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was left behind: %v", err)
	}
}

func TestRequestsAreRefused(t *testing.T) {
	a := authority(t, "prod")
	good := Request{Identity: Identity{Role: Coordinator, Name: "c0"}, Hosts: []string{"here"}, Valid: time.Hour}
	for _, tc := range []struct {
		edit func(r *Request)
		want string
	}{
		{func(r *Request) { r.Name = "" }, `name ""`},
		{func(r *Request) { r.Name = "../c0" }, `name "../c0"`},
		{func(r *Request) { r.Name = strings.Repeat("c", 65) }, "want 1 to 64"},
		{func(r *Request) { r.Role = "leader" }, `role "leader", want coordinator, replica or client`},
		{func(r *Request) { r.Hosts = nil }, "without hosts"},
		{func(r *Request) { r.Hosts = []string{""} }, `host ""`},
		{func(r *Request) { r.Valid = 0 }, "want a positive time"},
		{func(r *Request) { r.Valid = 2 * Year }, "when the authority expires"},
	} {
		r := good
		tc.edit(&r)
		if _, _, err := a.Issue(r); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %s", r, err, tc.want)
		}
	}
	dir := filepath.Join(t.TempDir(), "x")
	for _, cluster := range []string{"", "Prod", "a.b", "-a", strings.Repeat("a", 64)} {
		if err := Init(dir, cluster, Year); err == nil {
			t.Errorf("cluster %q was taken", cluster)
		}
	}
	if err := Init(dir, "prod", 0); err == nil {
		t.Error("an authority of no time was made")
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refusal leaves something behind: %v", err)
	}
}

func TestAuthoritiesAreRefused(t *testing.T) {
	a, other := authority(t, "prod"), authority(t, "prod")
	leaf := issue(t, a, Replica, "r0")
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, files := range map[string][2][]byte{
		"key of another":       {read(leaf.CA), read(filepath.Join(other.dir, caKey))},
		"not an authority":     {read(leaf.Cert), read(leaf.Key)},
		"certificate as a key": {read(leaf.CA), read(leaf.CA)},
		"no PEM":               {[]byte("x"), nil},
		"a damaged key":        {read(leaf.CA), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
	} {
		dir := t.TempDir()
		for i, file := range []string{caCert, caKey} {
			if err := os.WriteFile(filepath.Join(dir, file), files[i], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := OpenAuthority(dir); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := OpenAuthority(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no authority: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestIdentities(t *testing.T) {
	for _, tc := range []struct {
		uris []string
		want string // "": refused
	}{
		{[]string{"kelvin://prod/coordinator/c0.kelvin.svc"}, "kelvin://prod/coordinator/c0.kelvin.svc"},
		{[]string{"https://example.org", "kelvin://prod/replica/r_0"}, "kelvin://prod/replica/r_0"},
		{nil, ""},
		{[]string{"kelvin://prod/replica/r0", "kelvin://prod/coordinator/c0"}, ""},
		{[]string{"kelvin://prod"}, ""},
		{[]string{"kelvin://prod/king/c0"}, ""},
		{[]string{"kelvin:///coordinator/c0"}, ""},
		{[]string{"kelvin://prod/coordinator/c0/more"}, ""},
		{[]string{"kelvin://prod/coordinator/c0?x=1"}, ""},
		{[]string{"kelvin://user@prod/coordinator/c0"}, ""},
		{[]string{"kelvin://prod:1/coordinator/c0"}, ""},
	} {
		cert := new(x509.Certificate)
		for _, s := range tc.uris {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		id, err := IdentityOf(cert)
		if (err == nil) != (tc.want != "") || err == nil && id.String() != tc.want {
			t.Errorf("%q: %v, %v, want %q", tc.uris, id, err, tc.want)
		}
	}
}
