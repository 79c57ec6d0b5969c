package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCoordinatorsKnowEachOther: on either side, a coordinator of the same cluster is let in and nobody else.
func TestCoordinatorsKnowEachOther(t *testing.T) {
	prod, stage, stranger := authority(t, "prod"), authority(t, "stage"), authority(t, "prod")
	c0, c1 := mutual(t, issue(t, prod, Coordinator, "c0")), mutual(t, issue(t, prod, Coordinator, "c1"))
	if _, atServer, atClient := shake(t, c0, c1); atServer != nil || atClient != nil {
		t.Errorf("two of a cluster: %v, %v", atServer, atClient)
	}

	// Authorities that are trusted, for one reason or another, make no peers.
	everybody := filepath.Join(t.TempDir(), "all.pem")
	var bundle []byte
	for _, a := range []*Authority{prod, stage} {
		data, err := os.ReadFile(filepath.Join(a.dir, caCert))
		if err != nil {
			t.Fatal(err)
		}
		bundle = append(bundle, data...)
	}
	if err := os.WriteFile(everybody, bundle, 0o644); err != nil {
		t.Fatal(err)
	}
	trusting := issue(t, prod, Coordinator, "c2")
	trusting.CA = everybody
	open := mutual(t, trusting)
	for name, files := range map[string]Files{
		"a replica":                       issue(t, prod, Replica, "r0"),
		"a client":                        issue(t, prod, Client, "me"),
		"a coordinator of another":        issue(t, stage, Coordinator, "c0"),
		"a replica of another cluster":    issue(t, stage, Replica, "r0"),
		"one of an authority of the name": issue(t, stranger, Coordinator, "c0"),
	} {
		files.CA = everybody
		them := load(t, files)
		_, atServer, atClient := shake(t, open, them.Client())
		if name == "one of an authority of the name" {
			var unknown x509.UnknownAuthorityError
			if !errors.As(atServer, &unknown) {
				t.Errorf("%s calls: %v, want an unknown authority", name, atServer)
			}
		} else if !errors.Is(atServer, ErrPeer) {
			t.Errorf("%s calls: %v, want %v", name, atServer, ErrPeer)
		}
		if atClient == nil {
			t.Errorf("%s calls, and hears no refusal", name)
		}
		server, err := them.Server()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, atClient := shake(t, server, open); atClient == nil {
			t.Errorf("%s is called and taken for a coordinator", name)
		}
	}
	if _, atServer, _ := shake(t, c0, load(t, Files{CA: everybody}).Client()); atServer == nil {
		t.Error("one without a certificate is let in")
	}
}

func TestServersTakeClientsWithoutCertificates(t *testing.T) {
	prod, other := authority(t, "prod"), authority(t, "prod")
	files := issue(t, prod, Coordinator, "c0")
	server, err := load(t, files).Server()
	if err != nil {
		t.Fatal(err)
	}
	if _, atServer, atClient := shake(t, server, load(t, Files{CA: files.CA}).Client()); atServer != nil || atClient != nil {
		t.Errorf("a client: %v, %v", atServer, atClient)
	}
	if _, _, atClient := shake(t, server, load(t, Files{CA: filepath.Join(other.dir, caCert)}).Client()); atClient == nil {
		t.Error("a client that trusts another authority takes the server")
	}
	old := load(t, Files{CA: files.CA}).Client()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, atServer, _ := shake(t, server, old); atServer == nil {
		t.Error("TLS 1.2 is spoken")
	}
}

// TestCertificatesAreReadAgain: on both sides, without a restart, as soon as certificate and key belong together.
func TestCertificatesAreReadAgain(t *testing.T) {
	a := authority(t, "prod")
	files := issue(t, a, Coordinator, "c0")
	var log bytes.Buffer
	c, err := Load(files, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	config, err := c.Mutual()
	if err != nil {
		t.Fatal(err)
	}
	var client *x509.Certificate
	peer := mutual(t, issue(t, a, Coordinator, "c1"))
	verify := peer.VerifyConnection
	peer.VerifyConnection = func(s tls.ConnectionState) error {
		client = s.PeerCertificates[0]
		return verify(s)
	}
	seen := func() string {
		t.Helper()
		server, atServer, atClient := shake(t, config, peer)
		if atServer != nil || atClient != nil {
			t.Fatalf("as the server: %v, %v", atServer, atClient)
		}
		if _, atServer, atClient := shake(t, peer, config); atServer != nil || atClient != nil {
			t.Fatalf("as the client: %v, %v", atServer, atClient)
		}
		if server.SerialNumber.Cmp(client.SerialNumber) != 0 {
			t.Errorf("it shows %v as a server and %v as a client", server.SerialNumber, client.SerialNumber)
		}
		return server.SerialNumber.String()
	}
	first := seen()
	if seen() != first || log.Len() > 0 {
		t.Errorf("something changed by itself: %s", log.String())
	}
	next := issue(t, a, Coordinator, "next")
	if err := os.Rename(next.Cert, files.Cert); err != nil {
		t.Fatal(err)
	}
	if seen() != first || !strings.Contains(log.String(), "stays as it was") {
		t.Errorf("the key is not there yet, log: %s", log.String())
	}
	if err := os.Rename(next.Key, files.Key); err != nil {
		t.Fatal(err)
	}
	second := seen()
	if second == first || !strings.Contains(log.String(), "new certificate") {
		t.Errorf("it still shows the old one, log: %s", log.String())
	}
	if err := os.Remove(files.Cert); err != nil {
		t.Fatal(err)
	}
	if seen() != second {
		t.Error("without its file it shows another")
	}
}

func TestLoadRefuses(t *testing.T) {
	a := authority(t, "prod")
	good, other := issue(t, a, Coordinator, "c0"), issue(t, a, Coordinator, "c1")
	for name, f := range map[string]Files{
		"no key":              {Cert: good.Cert, CA: good.CA},
		"no certificate":      {Key: good.Key, CA: good.CA},
		"key of another":      {Cert: good.Cert, Key: other.Key, CA: good.CA},
		"absent":              {Cert: good.Cert + "x", Key: good.Key, CA: good.CA},
		"absent key":          {Cert: good.Cert, Key: good.Key + "x", CA: good.CA},
		"absent authority":    {CA: good.CA + "x"},
		"key as an authority": {CA: good.Key},
	} {
		if _, err := Load(f, nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := load(t, Files{CA: good.CA}).Server(); err == nil {
		t.Error("a server without a certificate")
	}
	for name, f := range map[string]Files{"no certificate": {CA: good.CA}, "no authority": {Cert: good.Cert, Key: good.Key}, "no identity": {Cert: filepath.Join(a.dir, caCert), Key: filepath.Join(a.dir, caKey), CA: good.CA}} {
		if _, err := load(t, f).Mutual(); err == nil {
			t.Errorf("%s: a peer", name)
		}
	}
}
