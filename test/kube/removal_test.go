//go:build linux

package kube_test

import (
	"fmt"
	"path/filepath"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var dev = filepath.Join(manifests, "overlays", "dev")

// removal takes the coordinators away under a training, brings them back, and then removes all.
func removal(t *testing.T, c *cluster) {
	c.coordinator(t, "resume", lasting)
	c.goesOn(t, lasting)
	all := objects(t, dev)
	for _, o := range all {
		if o.GetKind() != "Namespace" {
			c.remove(t, o)
		}
	}
	c.until(t, "the coordinators are gone", func() error {
		list, err := c.client.CoreV1().Pods(namespace).List(t.Context(), meta.ListOptions{LabelSelector: "app.kubernetes.io/component=coordinator"})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("there are %d", len(list.Items))
		}
		return err
	})
	claims, err := c.client.CoreV1().PersistentVolumeClaims(namespace).List(t.Context(), meta.ListOptions{LabelSelector: "app.kubernetes.io/component=coordinator"})
	if err != nil || len(claims.Items) != 3 {
		t.Fatalf("%d claims are left, %v; want those of three coordinators", len(claims.Items), err)
	}
	c.mustApply(t, all...)
	c.untilReady(t)
	c.goesOn(t, lasting)

	c.coordinator(t, "cancel", lasting, "--wait")
	c.untilComplete(t, lasting, "0-2") // by itself
	c.coordinator(t, "backup", "backup.tar")
	for _, o := range all {
		c.remove(t, o)
	}
	c.until(t, "the namespace is gone, and the volumes with it", func() error {
		if _, err := c.client.CoreV1().Namespaces().Get(t.Context(), namespace, meta.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("namespace: %v", err)
		}
		volumes, err := c.client.CoreV1().PersistentVolumes().List(t.Context(), meta.ListOptions{})
		if err == nil && len(volumes.Items) > 0 {
			err = fmt.Errorf("there are %d volumes", len(volumes.Items))
		}
		return err
	})
}

// remove deletes an object as kubectl does: what it owns goes after it.
func (c *cluster) remove(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	resource, err := c.resource(o)
	if err == nil {
		err = resource.Delete(t.Context(), o.GetName(), meta.DeleteOptions{PropagationPolicy: new(meta.DeletePropagationBackground)})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}
