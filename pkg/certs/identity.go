package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Role is what the owner of a certificate does.
type Role string

// The roles.
const (
	Coordinator Role = "coordinator" // serves others, and talks to its peers
	Replica     Role = "replica"
	Client      Role = "client" // a person, or a program of theirs
)

const scheme = "kelvin"

// Identity is who a certificate is for. It stands in the certificate as kelvin://<cluster>/<role>/<name>.
type Identity struct {
	Cluster string
	Role    Role
	Name    string // 1 to 64 letters, digits, dots, dashes and underscores
}

// URL is the identity as it stands in a certificate.
func (id Identity) URL() *url.URL {
	return &url.URL{Scheme: scheme, Host: id.Cluster, Path: "/" + string(id.Role) + "/" + id.Name}
}

func (id Identity) String() string { return id.URL().String() }

// IdentityOf reads the identity of a certificate's owner. A certificate has one at most; none is an error.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	var found []Identity
	for _, u := range cert.URIs {
		if u.Scheme != scheme {
			continue
		}
		role, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		id := Identity{u.Host, Role(role), name}
		if err := id.check(); err != nil {
			return Identity{}, fmt.Errorf("certs: %s: %w", u, err)
		}
		if id.String() != u.String() {
			return Identity{}, fmt.Errorf("certs: %s, want %s", u, id)
		}
		found = append(found, id)
	}
	if len(found) != 1 {
		return Identity{}, fmt.Errorf("certs: %d names of the form %s://cluster/role/name, want one", len(found), scheme)
	}
	return found[0], nil
}

func (id Identity) check() error {
	switch id.Role {
	case Coordinator, Replica, Client:
	default:
		return fmt.Errorf("role %q, want %s, %s or %s", id.Role, Coordinator, Replica, Client)
	}
	if !made(id.Name, 64, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") {
		return fmt.Errorf("name %q, want 1 to 64 letters, digits, dots, dashes and underscores", id.Name)
	}
	return checkCluster(id.Cluster)
}

func checkCluster(name string) error {
	if !made(name, 63, "abcdefghijklmnopqrstuvwxyz0123456789-") || strings.Trim(name, "-") != name {
		return fmt.Errorf("cluster %q, want 1 to 63 lower-case letters, digits and dashes within", name)
	}
	return nil
}

// made reports whether a name is made of some letters and not too long.
func made(name string, most int, of string) bool {
	return name != "" && len(name) <= most && strings.Trim(name, of) == ""
}

// ErrPeer says that the other side of a connection is no coordinator of the cluster.
var ErrPeer = errors.New("not a coordinator of this cluster")

// isPeer checks that a certificate is that of a coordinator of the cluster.
func isPeer(cert *x509.Certificate, cluster string) error {
	id, err := IdentityOf(cert)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	if id.Role != Coordinator || id.Cluster != cluster {
		return fmt.Errorf("%w: %s, want %s://%s/%s/…", ErrPeer, id, scheme, cluster, Coordinator)
	}
	return nil
}
