package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// Files are where a certificate, its key and the authorities that it trusts are, in PEM.
type Files struct {
	Cert, Key string // both or neither: a client may have none
	// CA holds one certificate or more; empty: those that the system trusts. It is read once. To change an authority, let
	// the file hold the old and the new one on all machines, then issue new certificates, then take the old one out.
	CA string
}

// Certificates are loaded files. They are safe for concurrent use.
type Certificates struct {
	files   Files
	roots   *x509.CertPool // nil: the system's
	cluster string         // of the certificate; "" where it has no identity
	log     *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate // nil without files
	read    [2]fs.FileInfo   // of the certificate and the key that it came from
}

// Load reads files. Later changes of the certificate and its key are taken over at the next connection; as long as the two
// do not belong together, as in the middle of a change, the last ones that did are used, and log is told, if not nil.
func Load(f Files, log *slog.Logger) (*Certificates, error) {
	if (f.Cert == "") != (f.Key == "") {
		return nil, fmt.Errorf("certs: certificate %q with key %q, want both or neither", f.Cert, f.Key)
	}
	c := &Certificates{files: f, log: log}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if f.CA != "" {
		data, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("certs: %w", err)
		}
		c.roots = x509.NewCertPool()
		if !c.roots.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("certs: %s: want PEM blocks of type CERTIFICATE", f.CA)
		}
	}
	if f.Cert == "" {
		return c, nil
	}
	var err error
	if c.read, err = f.stat(); err != nil {
		return nil, err
	}
	if c.current, err = f.pair(); err != nil {
		return nil, err
	}
	if id, err := IdentityOf(c.current.Leaf); err == nil {
		c.cluster = id.Cluster
	}
	return c, nil
}

func (f Files) pair() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certs: %s, %s: %w", f.Cert, f.Key, err)
	}
	return &cert, nil
}

func (f Files) stat() (info [2]fs.FileInfo, err error) {
	for i, path := range []string{f.Cert, f.Key} {
		if info[i], err = os.Stat(path); err != nil {
			return info, fmt.Errorf("certs: %w", err)
		}
	}
	return info, nil
}

func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// present is the certificate as the files have it now, or the last good one.
func (c *Certificates) present() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		return nil, errors.New("certs: no certificate to show")
	}
	now, err := c.files.stat()
	if err == nil && !(unchanged(now[0], c.read[0]) && unchanged(now[1], c.read[1])) {
		var cert *tls.Certificate
		if cert, err = c.files.pair(); err == nil {
			c.current, c.read = cert, now
			c.log.Info("new certificate", "file", c.files.Cert, "expires", cert.Leaf.NotAfter)
		}
	}
	if err != nil {
		c.log.Warn("the certificate stays as it was", "error", err)
	}
	return c.current, nil
}

// config is what every side of a connection has.
func (c *Certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		RootCAs:        c.roots,
		ClientCAs:      c.roots,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.present() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c.files.Cert == "" {
				return new(tls.Certificate), nil // a server that insists says so itself
			}
			return c.present()
		},
	}
}

// Server is for servers that take clients without certificates, which prove who they are by other means.
func (c *Certificates) Server() (*tls.Config, error) {
	if c.files.Cert == "" {
		return nil, errors.New("certs: a server without a certificate, want one and its key")
	}
	return c.config(), nil
}

// Client is for clients. It shows a certificate where there is one and the server asks.
func (c *Certificates) Client() *tls.Config { return c.config() }

// Mutual is for both sides of connections between coordinators: both show a certificate, and whoever does not have that of
// a coordinator of the same cluster is refused with ErrPeer.
func (c *Certificates) Mutual() (*tls.Config, error) {
	switch {
	case c.files.Cert == "" || c.roots == nil:
		return nil, errors.New("certs: connections between coordinators want a certificate, its key and the authority")
	case c.cluster == "":
		return nil, fmt.Errorf("certs: %s has no name of the form %s://cluster/role/name, want that of a coordinator", c.files.Cert, scheme)
	}
	config := c.config()
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.VerifyConnection = func(s tls.ConnectionState) error {
		return isPeer(s.PeerCertificates[0], c.cluster) // one at least: it was verified
	}
	return config, nil
}
