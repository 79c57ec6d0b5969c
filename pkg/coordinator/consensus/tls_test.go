package consensus

import (
	"bytes"
	"crypto/tls"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/certs"
)

// authority makes the authority of a cluster, in a folder of its own.
func authority(t *testing.T, cluster string) *certs.Authority {
	t.Helper()
	dir := t.TempDir()
	if err := certs.Init(dir, cluster, certs.Year); err != nil {
		t.Fatal(err)
	}
	ca, err := certs.OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issued are a certificate and its key, and the authority that made them.
func issued(t *testing.T, by *certs.Authority, role certs.Role, name, host string) *certs.Certificates {
	t.Helper()
	cert, key, err := by.Issue(certs.Request{Identity: certs.Identity{Role: role, Name: name}, Hosts: []string{host}, Valid: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	files, err := certs.Load(certs.Files{Cert: cert, Key: key, CA: filepath.Join(filepath.Dir(cert), "ca.pem")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestClusterOverTLS(t *testing.T) {
	t.Parallel()
	ca := authority(t, "prod")
	c := newCluster(t, "a", "b", "c")
	var insider *tls.Config
	for name, cfg := range c.cfg {
		host, _, err := net.SplitHostPort(cfg.Peer.Listen)
		if err != nil {
			t.Fatal(err)
		}
		mutual, err := issued(t, ca, certs.Coordinator, name, host).Mutual()
		if err != nil {
			t.Fatal(err)
		}
		insider = mutual
		cfg.TLS = &TLS{Server: mutual, Client: func() *tls.Config { return mutual }}
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
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	talk := func(config *tls.Config) error {
		config = config.Clone()
		config.ServerName = host
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
	if err := talk(insider); err != nil {
		t.Errorf("a coordinator is refused: %v", err)
	}
	anonymous := insider.Clone()
	anonymous.GetClientCertificate = nil
	if err := talk(anonymous); err == nil {
		t.Error("let in without a certificate")
	}
	old := insider.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if err := talk(old); err == nil {
		t.Error("let in with TLS 1.2")
	}
	for who, files := range map[string]*certs.Certificates{
		"a replica":                            issued(t, ca, certs.Replica, "r0", "127.0.0.1"),
		"a coordinator of another authority's": issued(t, authority(t, "prod"), certs.Coordinator, "a", "127.0.0.1"),
	} {
		stranger := insider.Clone() // trusts the cluster, and shows another certificate
		stranger.GetClientCertificate = files.Client().GetClientCertificate
		if err := talk(stranger); err == nil {
			t.Errorf("let in as %s", who)
		}
	}
}

// TestInsecurePeerPort: without TLS the peer port is for this machine, unless people say that something else encrypts.
func TestInsecurePeerPort(t *testing.T) {
	cfg := Config{Name: "a", DataDir: t.TempDir(), Peer: Peer{Listen: "0.0.0.0:0"}}
	if cfg.Validate() == nil {
		t.Error("any address is taken without TLS")
	}
	cfg.Insecure = true
	if err := cfg.Validate(); err != nil {
		t.Errorf("where something else encrypts: %v", err)
	}
}
