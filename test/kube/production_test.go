//go:build linux

package kube_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// production brings the overlay prod up, with the certificates that its objects ask cert-manager for.
func production(t *testing.T, c *cluster) {
	all := objects(t, filepath.Join(manifests, "overlays", "prod"))
	c.mustApply(t, all...)
	authority := c.certify(t, all)
	c.untilReady(t)
	var nodes []string
	for _, name := range coordinators {
		pod, err := c.client.CoreV1().Pods(namespace).Get(t.Context(), name, meta.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, pod.Spec.NodeName)
	}
	if slices.Sort(nodes); !slices.Equal(nodes, []string{"a", "b", "c"}) {
		t.Errorf("coordinators run on %v, want each on a node of its own", nodes)
	}
	if err := os.WriteFile(c.path("work", "ca.pem"), authority, 0o644); err != nil {
		t.Fatal(err)
	}
	c.coordinator(t, "token", "bootstrap", "--server", c.servers[0], "--ca", "ca.pem", "--out", "prod.token")
	c.coordinator(t, "ctx", "set", "prod", "--server", c.servers[1], "--ca", "ca.pem", "--token-file", "prod.token")
	c.coordinator(t, "ctx", "use", "prod")
	c.coordinator(t, "k8s", "token", "--ca", "ca.pem")
	c.coordinator(t, "k8s", "submit", c.file(t, twoMoons), "--name", "short", "--replicas", "2", "--memory", "1Gi", "--cpu", "500m", "--image", cpuImage,
		"--set", "train.steps=300", "--wait=completed", "--timeout", "2m")
	c.untilComplete(t, "short", "0,1")
}

// request is what Kelvin's objects of the kind Certificate say.
type request struct {
	IsCA        bool     `json:"isCA"`
	CommonName  string   `json:"commonName"`
	SecretName  string   `json:"secretName"`
	Usages      []string `json:"usages"`
	URIs        []string `json:"uris"`
	DNSNames    []string `json:"dnsNames"`
	IPAddresses []string `json:"ipAddresses"`
}

// certify does what cert-manager would do, and returns the authority's certificate.
func (c *cluster) certify(t *testing.T, all []*unstructured.Unstructured) (authority []byte) {
	t.Helper()
	var requests []request
	for _, o := range all {
		if o.GetKind() != "Certificate" {
			continue
		}
		text, err := json.Marshal(o.Object["spec"])
		if err != nil {
			t.Fatal(err)
		}
		var r request
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		requests = append(requests, r)
	}
	slices.SortStableFunc(requests, func(a, b request) int { // the authority comes first
		switch {
		case a.IsCA == b.IsCA:
			return 0
		case a.IsCA:
			return -1
		}
		return 1
	})
	var parent *x509.Certificate
	var signer *ecdsa.PrivateKey
	for _, r := range requests {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := r.template(t)
		if r.IsCA {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if r.IsCA {
			authority = cert
		}
		secret := &core.Secret{ObjectMeta: meta.ObjectMeta{Name: r.SecretName}, Type: core.SecretTypeTLS, Data: map[string][]byte{
			"tls.crt": cert, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), "ca.crt": authority,
		}}
		if _, err := c.client.CoreV1().Secrets(namespace).Create(t.Context(), secret, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return authority
}

func (r request) template(t *testing.T) *x509.Certificate {
	t.Helper()
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // rand.Reader does not fail
	out := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: r.CommonName}, DNSNames: r.DNSNames,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: r.IsCA,
	}
	if r.IsCA {
		out.KeyUsage = x509.KeyUsageCertSign
	}
	for _, text := range r.URIs {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		out.URIs = append(out.URIs, u)
	}
	for _, text := range r.IPAddresses {
		out.IPAddresses = append(out.IPAddresses, net.ParseIP(text))
	}
	for _, usage := range r.Usages {
		switch usage {
		case "digital signature":
			out.KeyUsage |= x509.KeyUsageDigitalSignature
		case "server auth":
			out.ExtKeyUsage = append(out.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		case "client auth":
			out.ExtKeyUsage = append(out.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		default:
			t.Fatalf("usage %q of the certificate for %s is not known here", usage, r.CommonName)
		}
	}
	return out
}
