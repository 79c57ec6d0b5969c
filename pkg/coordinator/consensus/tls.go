package consensus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// TLS is what a node shows to others and asks of them.
type TLS struct {
	// Server is for connections that come in; it must ask for the others' certificates and verify them.
	Server *tls.Config
	// Client returns what is for one connection out. ServerName is set to the host that is dialled if it is empty.
	Client func() *tls.Config
}

func (t *TLS) client(address string) *tls.Config {
	c := t.Client()
	if c.ServerName == "" {
		c = c.Clone()
		c.ServerName, _, _ = net.SplitHostPort(address)
	}
	return c
}

// LoadTLS reads a certificate, its key and the authority that signs those of all coordinators, as PEM. Both sides of a
// connection speak TLS 1.3 and show a certificate that names its holder as kelvin://<cluster>/coordinator/<name>, beside the
// host name that others dial. The files are read again when they change; while what is in them is no good, the old ones stay.
func LoadTLS(cert, key, ca, cluster string) (*TLS, error) {
	files := &tlsFiles{cert: cert, key: key, ca: ca, cluster: cluster}
	if _, err := files.current(); err != nil {
		return nil, err
	}
	return &TLS{
		Server: &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return files.current()
		}},
		Client: func() *tls.Config {
			c, err := files.current()
			if err != nil { // cannot be: there was one
				return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool()}
			}
			return c
		},
	}, nil
}

// tlsFiles are the files and what was last found in them.
type tlsFiles struct {
	cert, key, ca, cluster string

	mu     sync.Mutex
	config *tls.Config // for both sides
	stamp  [3]fileStamp
}

type fileStamp struct {
	changed time.Time
	size    int64
}

// current is the configuration of what is in the files now, or the last good one.
func (f *tlsFiles) current() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var stamp [3]fileStamp
	for i, path := range []string{f.cert, f.key, f.ca} {
		if info, err := os.Stat(path); err == nil {
			stamp[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	if f.config != nil && stamp == f.stamp {
		return f.config, nil
	}
	config, err := f.read()
	if err == nil {
		f.config, f.stamp = config, stamp
	}
	if f.config == nil {
		return nil, fmt.Errorf("TLS of the peer port: %w", err)
	}
	return f.config, nil
}

func (f *tlsFiles) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, err
	}
	if err := checkPeer(pair.Leaf, f.cluster); err != nil {
		return nil, fmt.Errorf("%s: %w", f.cert, err)
	}
	pem, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", f.ca)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("no certificate")
			}
			return checkPeer(s.PeerCertificates[0], f.cluster)
		},
	}, nil
}

// checkPeer wants the certificate of a coordinator of the cluster.
func checkPeer(cert *x509.Certificate, cluster string) error {
	for _, u := range cert.URIs {
		if name, ok := strings.CutPrefix(u.Path, "/coordinator/"); ok && u.Scheme == "kelvin" && u.Host == cluster && plainName(name) {
			return nil
		}
	}
	return fmt.Errorf("certificate of %v, want one of %s", names(cert.URIs), "kelvin://"+cluster+"/coordinator/NAME")
}

func names(uris []*url.URL) []string {
	out := make([]string, len(uris))
	for i, u := range uris {
		out[i] = u.String()
	}
	return out
}
