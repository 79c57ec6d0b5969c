//go:build linux

package kube_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// newToken has the pod of components/join-token make another token of the replicas, with the rights that its account has.
func newToken(t *testing.T, c *cluster) {
	c.mustApply(t, objects(t, c.devWith(t, "join-token"))...)
	for _, tc := range []struct {
		account, verb, resource, name string
		want                          bool
	}{
		{"kelvin-join-token", "patch", "secrets", "kelvin-join", true},
		{"kelvin-join-token", "get", "secrets", "kelvin-join", false},
		{"kelvin-join-token", "patch", "secrets", "kelvin-tls", false},
		{"kelvin-join-token", "create", "secrets", "", false},
		{"kelvin-join-token", "list", "pods", "", false},
		{"kelvin-replica", "get", "secrets", "kelvin-join", false},
		{"kelvin-coordinator", "get", "secrets", "kelvin-tls", false},
	} {
		if got := c.may(t, tc.account, tc.verb, tc.resource, tc.name); got != tc.want {
			t.Errorf("%s may %s %s %s: %t, want %t", tc.account, tc.verb, tc.resource, tc.name, got, tc.want)
		}
	}

	secrets, ctx := c.client.CoreV1().Secrets(namespace), t.Context()
	token, err := os.ReadFile(c.path("work", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	admin := &core.Secret{ObjectMeta: meta.ObjectMeta{Name: "kelvin-admin"}, Data: map[string][]byte{"token": token}}
	if _, err := secrets.Create(ctx, admin, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	before, err := secrets.Get(ctx, "kelvin-join", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cron, err := c.client.BatchV1().CronJobs(namespace).Get(ctx, "kelvin-join-token", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	now := &batch.Job{ObjectMeta: meta.ObjectMeta{Name: "renew-now"}, Spec: cron.Spec.JobTemplate.Spec}
	if _, err := c.client.BatchV1().Jobs(namespace).Create(ctx, now, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.until(t, "the token is renewed", func() error {
		if job := c.job(t, now.Name); job.Status.Succeeded == 0 {
			return fmt.Errorf("status %+v", job.Status)
		}
		after, err := secrets.Get(ctx, "kelvin-join", meta.GetOptions{})
		if err == nil && (bytes.Equal(before.Data["token"], after.Data["token"]) || !bytes.Equal(before.Data["ca.pem"], after.Data["ca.pem"])) {
			err = errors.New("want another token, and the same authority")
		}
		return err
	})
}

// newCertificate has a coordinator that runs show another certificate.
func newCertificate(t *testing.T, c *cluster) {
	before := c.serialNumber(t)
	for _, file := range []string{"kelvin-0.pem", "kelvin-0-key.pem"} {
		if err := os.Remove(c.path("work", "certs", file)); err != nil {
			t.Fatal(err)
		}
	}
	c.coordinator(t, "k8s", "certs")
	c.until(t, "kelvin-0 shows the new certificate", func() error {
		if c.serialNumber(t).Cmp(before) == 0 {
			return errors.New("it shows the old one")
		}
		return nil
	})
	if n := c.restarts(t, "kelvin-0"); n != 0 {
		t.Errorf("kelvin-0 was started again %d times", n)
	}
}

// serialNumber is that of the certificate of kelvin-0.
func (c *cluster) serialNumber(t *testing.T) *big.Int {
	t.Helper()
	authority, err := os.ReadFile(c.path("work", "certs", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	conn, err := tls.Dial("tcp", strings.TrimPrefix(c.servers[0], "https://"), &tls.Config{RootCAs: trusted})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber
}

func (c *cluster) restarts(t *testing.T, name string) int32 {
	t.Helper()
	pod, err := c.client.CoreV1().Pods(namespace).Get(t.Context(), name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod.Status.ContainerStatuses[0].RestartCount
}

// devWith is a kustomization of the overlay dev and a component.
func (c *cluster) devWith(t *testing.T, component string) string {
	t.Helper()
	dir := c.path("work", "with-"+component)
	relative := func(path string) string {
		to, err := filepath.Rel(dir, c.file(t, path))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	text := fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: kelvin\nresources: [%s]\ncomponents: [%s]\n",
		relative(dev), relative(filepath.Join(manifests, "components", component)))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
