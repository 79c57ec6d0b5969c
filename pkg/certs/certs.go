// Package certs makes and loads the certificates of a cluster: one authority, and from it one certificate for each
// coordinator, replica and client. Who somebody is stands in the certificate as a URI, see [Identity].
//
//	err := certs.Init("certs", "prod", 10*certs.Year)           // the authority: ca.pem, ca-key.pem
//	ca, err := certs.OpenAuthority("certs")
//	cert, key, err := ca.Issue(certs.Request{
//		Identity: certs.Identity{Role: certs.Coordinator, Name: "c0"},
//		Hosts:    []string{"c0.kelvin.svc", "10.0.0.7"},
//		Valid:    certs.Year,
//	})
//	files, err := certs.Load(certs.Files{Cert: cert, Key: key, CA: "certs/ca.pem"}, log)
//	config, err := files.Mutual() // lets coordinators of this cluster in and nobody else
//	listener, err := tls.Listen("tcp", ":7000", config)
//
// [Certificates] are read again when their files change, so that a new certificate needs no restart. Keys are ECDSA P-256,
// connections TLS 1.3.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Year is how long certificates are good for where nobody wants something else.
const Year = 365 * 24 * time.Hour

const (
	caCert = "ca.pem"
	caKey  = "ca-key.pem"
	// skew is how much the clocks of the machines may differ.
	skew = 5 * time.Minute
)

// Init makes a new authority for a cluster and writes it to dir, which it creates if need be. Files that are there already
// are an error, fs.ErrExist, and stay as they are. The name of the cluster is 1 to 63 lower-case letters, digits and
// dashes. Whoever has ca-key.pem can let anybody into the cluster: the coordinators do not need it.
func Init(dir, cluster string, valid time.Duration) error {
	if err := checkCluster(cluster); err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	if valid <= 0 {
		return fmt.Errorf("certs: valid for %v, want a positive time", valid)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "kelvin " + cluster},
		URIs:                  []*url.URL{{Scheme: scheme, Host: cluster}},
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	der, err := sign(template, template, key, key, valid)
	if err != nil {
		return err
	}
	return write(filepath.Join(dir, caCert), filepath.Join(dir, caKey), der, key)
}

// Authority signs the certificates of a cluster.
type Authority struct {
	dir     string
	cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// OpenAuthority reads what Init wrote to dir.
func OpenAuthority(dir string) (*Authority, error) {
	cert, err := readCertificate(filepath.Join(dir, caCert))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, caKey)
	block, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return nil, fmt.Errorf("certs: %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	switch {
	case !ok || !key.PublicKey.Equal(cert.PublicKey):
		return nil, fmt.Errorf("certs: %s is not the key of %s", path, caCert)
	case !cert.IsCA || len(cert.URIs) != 1 || cert.URIs[0].Scheme != scheme:
		return nil, fmt.Errorf("certs: %s is not the authority of a cluster, want one that was made for it", filepath.Join(dir, caCert))
	}
	return &Authority{dir: dir, cluster: cert.URIs[0].Host, cert: cert, key: key}, nil
}

// Cluster is the name of the authority's cluster.
func (a *Authority) Cluster() string { return a.cluster }

// Request says what certificate is wanted.
type Request struct {
	Identity               // its cluster is the authority's
	Hosts    []string      // DNS names and IP addresses that others reach it by; a coordinator has at least one
	Valid    time.Duration // not beyond the authority's own time
}

// Issue makes a certificate and writes it and its key beside the authority's, as <name>.pem and <name>-key.pem, of which it
// returns the paths. Files that are there already are an error, fs.ErrExist, and stay as they are.
func (a *Authority) Issue(r Request) (cert, key string, err error) {
	r.Cluster = a.cluster
	if err := r.check(); err != nil {
		return "", "", fmt.Errorf("certs: %w", err)
	}
	switch {
	case r.Valid <= 0:
		return "", "", fmt.Errorf("certs: %s valid for %v, want a positive time", r.Name, r.Valid)
	case time.Now().Add(r.Valid).After(a.cert.NotAfter):
		return "", "", fmt.Errorf("certs: %s valid for %v, want at most until %s, when the authority expires", r.Name, r.Valid, a.cert.NotAfter.Format(time.DateOnly))
	case r.Role == Coordinator && len(r.Hosts) == 0:
		return "", "", fmt.Errorf("certs: coordinator %s without hosts, want the names or addresses that others reach it by", r.Name)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: r.Name},
		URIs:        []*url.URL{r.URL()},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if r.Role == Coordinator {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if host != "" {
			template.DNSNames = append(template.DNSNames, host)
		} else {
			return "", "", errors.New(`certs: host "", want a name or an address`)
		}
	}
	private, err := newKey()
	if err != nil {
		return "", "", err
	}
	der, err := sign(template, a.cert, private, a.key, r.Valid)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(a.dir, r.Name+".pem"), filepath.Join(a.dir, r.Name+"-key.pem")
	return cert, key, write(cert, key, der, private)
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certs: key: %w", err)
	}
	return key, nil
}

// sign gives a template its serial number and times, and signs it.
func sign(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey, valid time.Duration) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("certs: serial number: %w", err)
	}
	now := time.Now()
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = now.Add(-skew), now.Add(valid)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		return nil, fmt.Errorf("certs: sign: %w", err)
	}
	return der, nil
}

// write creates the two files, both or neither.
func write(cert, key string, der []byte, private *ecdsa.PrivateKey) error {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("certs: key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(cert), 0o700); err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	if err := create(key, 0o600, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}); err != nil {
		return err
	}
	if err := create(cert, 0o644, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		return errors.Join(err, os.Remove(key))
	}
	return nil
}

// create writes a file that must not be there yet.
func create(path string, perm os.FileMode, block *pem.Block) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	err = f.Chmod(perm) // whatever the umask
	if err == nil {
		err = pem.Encode(f, block)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("certs: %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// readPEM is the content of a file's first block, which must be of a type.
func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certs: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("certs: %s: want a PEM block of type %s", path, kind)
	}
	return block.Bytes, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certs: %s: %w", path, err)
	}
	return cert, nil
}
