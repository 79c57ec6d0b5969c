//go:build linux

package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authorization "k8s.io/api/authorization/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

var (
	root      = filepath.Join("..", "..") // of Kelvin's own module
	manifests = filepath.Join(root, "k8s")
)

// checkManifests has the API server check all that k8s/ can be built to, as strictly as it does, and as if it were really applied.
func checkManifests(t *testing.T, c *cluster) {
	c.define(t)
	c.mustApply(t, objects(t, filepath.Join(manifests, "base"))[0]) // the namespace: what is in it is refused without it
	var dirs []string
	for _, pattern := range []string{"base", "overlays/*", "examples/*"} {
		found, err := filepath.Glob(filepath.Join(manifests, pattern))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	if len(dirs) < 8 {
		t.Fatalf("kustomizations %v, want all", dirs)
	}
	for _, dir := range dirs {
		for _, o := range objects(t, dir) {
			if err := c.apply(t.Context(), o, meta.DryRunAll); err != nil {
				t.Errorf("%s: %v", dir, err)
			}
			if o.GetKind() == "JobSet" {
				if err := c.apply(t.Context(), jobOf(t, o), meta.DryRunAll); err != nil {
					t.Errorf("%s: the Job of the JobSet: %v", dir, err)
				}
			}
		}
		// The namespace has the API server warn of pods that its security standard would refuse.
		if said := c.warnings.take(); len(said) > 0 {
			t.Errorf("%s: the API server warns: %q", dir, said)
		}
	}
	for _, tc := range []struct{ dir, kind, right, wrong string }{
		{"base", "StatefulSet", "podManagementPolicy", "podManagmentPolicy"},
		{"base", "StatefulSet", "readOnlyRootFilesystem", "readonlyRootFilesystem"},
		{"base", "NetworkPolicy", "podSelector", "podSelektor"},
		{"examples/replicas", "Job", "backoffLimitPerIndex", "backOffLimitPerIndex"},
		{"examples/kueue", "ClusterQueue", "nominalQuota", "quota"},
		{"overlays/prod", "Certificate", "rotationPolicy", "rotation"},
	} {
		if err := c.apply(t.Context(), misspelt(t, tc.dir, tc.kind, tc.right, tc.wrong), meta.DryRunAll); err == nil || !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%s: %s with %s in place of %s: %v, want it refused by name", tc.dir, tc.kind, tc.wrong, tc.right, err)
		}
	}
}

// define makes the kinds known that other projects bring to a cluster.
func (c *cluster) define(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "crds.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	definitions := parse(t, string(text))
	for _, o := range definitions {
		c.mustApply(t, o)
	}
	c.until(t, "the API server serves the kinds of testdata/crds.yaml", func() error {
		c.mapper.Reset()
		for _, o := range definitions {
			kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
			group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
			if _, err := c.mapper.RESTMapping(schema.GroupKind{Group: group, Kind: kind}); err != nil {
				return err
			}
		}
		return nil
	})
}

// objects are those of a kustomization, in the order in which kubectl applies them.
func objects(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	o := krusty.MakeDefaultOptions()
	o.Reorder = krusty.ReorderOptionLegacy
	resources, err := krusty.MakeKustomizer(o).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for _, doc := range strings.Split(text, "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			t.Fatal(err)
		}
		out = append(out, o)
	}
	return out
}

// jobOf is the Job that a JobSet's controller would make.
func jobOf(t *testing.T, set *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	jobs, _, err := unstructured.NestedSlice(set.Object, "spec", "replicatedJobs")
	if err != nil || len(jobs) != 1 {
		t.Fatalf("JobSet %s: replicatedJobs %v, %v; want one", set.GetName(), jobs, err)
	}
	spec, _, _ := unstructured.NestedMap(jobs[0].(map[string]any), "template", "spec")
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "batch/v1", "kind": "Job", "spec": spec,
		"metadata": map[string]any{"name": set.GetName() + "-replica-0", "namespace": set.GetNamespace()},
	}}
}

// misspelt is the first object of a kind that has the field, with the field under another name.
func misspelt(t *testing.T, dir, kind, right, wrong string) *unstructured.Unstructured {
	t.Helper()
	for _, o := range objects(t, filepath.Join(manifests, dir)) {
		text, err := json.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		if o.GetKind() != kind || !strings.Contains(string(text), `"`+right+`"`) {
			continue
		}
		return parse(t, strings.ReplaceAll(string(text), `"`+right+`"`, `"`+wrong+`"`))[0]
	}
	t.Fatalf("%s: no %s has %s", dir, kind, right)
	return nil
}

// resource is where an object belongs.
func (c *cluster) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := o.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == apimeta.RESTScopeNameRoot {
		return c.dynamic.Resource(mapping.Resource), nil
	}
	return c.dynamic.Resource(mapping.Resource).Namespace(o.GetNamespace()), nil
}

// apply applies an object as kubectl does, with strict validation.
func (c *cluster) apply(ctx context.Context, o *unstructured.Unstructured, dryRun ...string) error {
	resource, err := c.resource(o)
	if err != nil {
		return err
	}
	text, err := json.Marshal(o.Object)
	if err != nil {
		return err
	}
	options := meta.PatchOptions{FieldManager: "kubectl", Force: new(true), FieldValidation: meta.FieldValidationStrict, DryRun: dryRun}
	if _, err := resource.Patch(ctx, o.GetName(), types.ApplyPatchType, text, options); err != nil {
		return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

func (c *cluster) mustApply(t *testing.T, os ...*unstructured.Unstructured) {
	t.Helper()
	for _, o := range os {
		if err := c.apply(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// may asks whether a service account may do something.
func (c *cluster) may(t *testing.T, account, verb, resource, name string) bool {
	t.Helper()
	review := &authorization.SubjectAccessReview{Spec: authorization.SubjectAccessReviewSpec{
		User: "system:serviceaccount:" + namespace + ":" + account, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
		ResourceAttributes: &authorization.ResourceAttributes{Namespace: namespace, Verb: verb, Resource: resource, Name: name},
	}}
	answer, err := c.client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Allowed
}
