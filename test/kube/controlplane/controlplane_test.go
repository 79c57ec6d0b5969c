//go:build linux

package controlplane_test

import (
	"context"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kelvin-ebm/kelvin/test/kube/controlplane"
)

// A control plane without nodes: objects are checked, controllers and scheduler work, and a pod waits for a node.
func TestControlPlane(t *testing.T) {
	if missing := controlplane.Missing(controlplane.Cache()); len(missing) > 0 {
		t.Skipf("%s has no %v: make kube-test builds them", controlplane.Cache(), missing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	plane, err := controlplane.Start(ctx, controlplane.Config{Binaries: controlplane.Cache(), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Close(); err != nil {
			t.Error(err)
		}
	})
	client := kubernetes.NewForConfigOrDie(plane.REST())
	pods := client.CoreV1().Pods(meta.NamespaceDefault)
	pod := &core.Pod{ObjectMeta: meta.ObjectMeta{Name: "waits"}, Spec: core.PodSpec{Containers: []core.Container{{Name: "c", Image: "none:1"}}}}
	if _, err := pods.Create(ctx, pod, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bad := pod.DeepCopy()
	bad.Name = "Not_A_Name"
	if _, err := pods.Create(ctx, bad, meta.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a pod named %s: %v, want it refused as invalid", bad.Name, err)
	}
	for {
		got, err := pods.Get(ctx, "waits", meta.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range got.Status.Conditions {
			if c.Type == core.PodScheduled && c.Status == core.ConditionFalse && c.Reason == core.PodReasonUnschedulable {
				return // the scheduler has looked at it
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the scheduler did not look at the pod: %+v", got.Status)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
