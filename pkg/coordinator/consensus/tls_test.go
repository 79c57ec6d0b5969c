package consensus

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates of coordinators.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key, a.pem, _ = a.make(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) make(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: "test"}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// issue writes the files of a coordinator, or replaces them.
func (a *authority) issue(dir, uri, host string) {
	a.t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		a.t.Fatal(err)
	}
	_, _, cert, key := a.make(&x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.ParseIP(host)}, URIs: []*url.URL{u},
	})
	for name, data := range map[string][]byte{"cert": cert, "key": key, "ca": a.pem} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

func load(dir string) (*TLS, error) {
	return LoadTLS(filepath.Join(dir, "cert"), filepath.Join(dir, "key"), filepath.Join(dir, "ca"), "prod")
}

func TestClusterOverTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	c := newCluster(t, "a", "b", "c")
	dirs := map[string]string{}
	for name, cfg := range c.cfg {
		dirs[name] = t.TempDir()
		host, _, _ := net.SplitHostPort(cfg.Peer.Listen)
		ca.issue(dirs[name], "kelvin://prod/coordinator/"+name, host)
		files, err := load(dirs[name])
		if err != nil {
			t.Fatal(err)
		}
		cfg.TLS = files
		c.cfg[name] = cfg
	}
	c.startAll()
	c.experiment("x")
	if _, err := c.leader().PutBlob(within(t), []byte("blob")); err != nil {
		t.Error(err)
	}
	c.same()

	// Who is not a coordinator of this cluster, by an authority of this cluster, gets nothing.
	address := c.cfg["a"].Peer.Listen
	talk := func(config *tls.Config) error {
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write([]byte("HGET " + statusPath + " HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
			return err
		}
		answer := make([]byte, 12)
		if _, err := conn.Read(answer); err != nil {
			return err
		}
		if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) {
			t.Errorf("answer %q", answer)
		}
		return nil
	}
	insider, err := load(dirs["b"])
	if err != nil {
		t.Fatal(err)
	}
	if err := talk(insider.client(address)); err != nil {
		t.Errorf("a coordinator is refused: %v", err)
	}
	own := insider.client(address)
	anonymous := own.Clone()
	anonymous.Certificates = nil
	if err := talk(anonymous); err == nil {
		t.Error("let in without a certificate")
	}
	stranger := func(ca *authority, uri string) {
		t.Helper()
		dir := t.TempDir()
		ca.issue(dir, uri, "127.0.0.1")
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert"), filepath.Join(dir, "key"))
		if err != nil {
			t.Fatal(err)
		}
		config := own.Clone()
		config.Certificates = []tls.Certificate{pair}
		if err := talk(config); err == nil {
			t.Errorf("let in as %s", uri)
		}
	}
	stranger(ca, "kelvin://other/coordinator/a")
	stranger(ca, "kelvin://prod/replica/a")
	stranger(newAuthority(t), "kelvin://prod/coordinator/a")
	old := own.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if err := talk(old); err == nil {
		t.Error("let in with TLS 1.2")
	}
}

func TestCertificatesAreReadAgain(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	ca.issue(dir, "kelvin://other/coordinator/a", "127.0.0.1")
	if _, err := load(dir); err == nil {
		t.Fatal("a certificate of another cluster is taken")
	}
	ca.issue(dir, "kelvin://prod/coordinator/a", "127.0.0.1")
	files, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	shown := func() []byte {
		t.Helper()
		c, err := files.Server.GetConfigForClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Certificates[0].Certificate[0]
	}
	first := shown()
	if err := os.WriteFile(filepath.Join(dir, "cert"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(shown(), first) {
		t.Error("bad files are used")
	}
	ca.issue(dir, "kelvin://prod/coordinator/a", "127.0.0.1")
	second := shown()
	if bytes.Equal(second, first) {
		t.Error("new files are not used")
	}
	if !bytes.Equal(files.Client().Certificates[0].Certificate[0], second) {
		t.Error("the other side still shows the old one")
	}
}
