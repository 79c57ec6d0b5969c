// Package k8s_test builds every kustomization of this folder, compares it with what it came to before, reads it as strictly as a
// cluster does, and checks what must be true of all of it.
package k8s_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// kustomizations are all that can be built; components are part of them.
var kustomizations = []string{
	"base", "overlays/dev", "overlays/prod", "overlays/slow-disk",
	"examples/replicas", "examples/gpu", "examples/kueue", "examples/external-nats",
}

// built is what a kustomization comes to, as one text.
func built(t *testing.T, dir string) string {
	t.Helper()
	text, err := cached[dir]()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var cached = func() map[string]func() (string, error) {
	all := map[string]func() (string, error){}
	for _, dir := range kustomizations {
		all[dir] = sync.OnceValues(func() (string, error) {
			o := krusty.MakeDefaultOptions()
			o.Reorder = krusty.ReorderOptionLegacy // as `kubectl kustomize` does
			m, err := krusty.MakeKustomizer(o).Run(filesys.MakeFsOnDisk(), dir)
			if err != nil {
				return "", fmt.Errorf("%s: %w", dir, err)
			}
			text, err := m.AsYaml()
			return string(text), err
		})
	}
	return all
}()

// object is one of a kustomization, decoded.
type object struct {
	where string // kustomization, kind and name
	any
}

func (o object) meta() meta.Object { return o.any.(meta.Object) }

// newObject is an empty object of a kind. What is not known to Kubernetes itself is in schema_test.go, in our own words.
func newObject(apiVersion, kind string) any {
	switch apiVersion + " " + kind {
	case "v1 Namespace":
		return new(core.Namespace)
	case "v1 ServiceAccount":
		return new(core.ServiceAccount)
	case "v1 Service":
		return new(core.Service)
	case "v1 ConfigMap":
		return new(core.ConfigMap)
	case "apps/v1 StatefulSet":
		return new(apps.StatefulSet)
	case "batch/v1 Job":
		return new(batch.Job)
	case "batch/v1 CronJob":
		return new(batch.CronJob)
	case "policy/v1 PodDisruptionBudget":
		return new(policy.PodDisruptionBudget)
	case "networking.k8s.io/v1 NetworkPolicy":
		return new(networking.NetworkPolicy)
	case "rbac.authorization.k8s.io/v1 Role":
		return new(rbac.Role)
	case "rbac.authorization.k8s.io/v1 RoleBinding":
		return new(rbac.RoleBinding)
	case "jobset.x-k8s.io/v1alpha2 JobSet":
		return new(jobSet)
	case "kueue.x-k8s.io/v1beta1 ResourceFlavor":
		return new(resourceFlavor)
	case "kueue.x-k8s.io/v1beta1 ClusterQueue":
		return new(clusterQueue)
	case "kueue.x-k8s.io/v1beta1 LocalQueue":
		return new(localQueue)
	case "cert-manager.io/v1 Issuer":
		return new(issuer)
	case "cert-manager.io/v1 Certificate":
		return new(certificate)
	}
	return nil
}

// decode reads a document as a cluster does that validates strictly: letters of other case and fields that are there twice are
// errors too.
func decode(doc string) (any, error) {
	data, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil {
		return nil, err
	}
	var kind meta.TypeMeta
	if err := json.UnmarshalCaseSensitivePreserveInts(data, &kind); err != nil {
		return nil, err
	}
	o := newObject(kind.APIVersion, kind.Kind)
	if o == nil {
		return nil, fmt.Errorf("%s %s: this test does not know it", kind.APIVersion, kind.Kind)
	}
	strict, err := json.UnmarshalStrict(data, o)
	if err != nil {
		return nil, err
	}
	if len(strict) > 0 {
		return nil, fmt.Errorf("%s: %w", kind.Kind, strict[0])
	}
	if checked, ok := o.(interface{ check() error }); ok {
		return o, checked.check()
	}
	return o, nil
}

func documents(text string) []string { return strings.Split(text, "\n---\n") }

// objects are those of a kustomization.
func objects(t *testing.T, dir string) []object {
	t.Helper()
	var out []object
	for _, doc := range documents(built(t, dir)) {
		o, err := decode(doc)
		if err != nil {
			t.Fatalf("%s: %v\n%s", dir, err, doc)
		}
		m := o.(meta.Object)
		out = append(out, object{fmt.Sprintf("%s: %T %s", dir, o, m.GetName()), o})
	}
	return out
}

func all(t *testing.T) []object {
	t.Helper()
	var out []object
	for _, dir := range kustomizations {
		out = append(out, objects(t, dir)...)
	}
	return out
}

func TestKustomizationsComeToWhatTheyDid(t *testing.T) {
	for _, dir := range kustomizations {
		path := filepath.Join("testdata", strings.ReplaceAll(dir, "/", "-")+".yaml")
		got := built(t, dir)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got), -update takes it over:\n%s", path, diff)
		}
	}
}

func TestEveryKustomizationIsTested(t *testing.T) {
	components := map[string]bool{}
	for _, pattern := range []string{"base", "overlays/*", "examples/*", "components/*"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			if strings.HasPrefix(dir, "components/") {
				components[filepath.Base(dir)] = false
			} else if !slices.Contains(kustomizations, dir) {
				t.Errorf("%s is not in the table of this test", dir)
			}
		}
	}
	for _, dir := range kustomizations {
		text, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for name := range components {
			if bytes.Contains(text, []byte("components/"+name)) {
				components[name] = true
			}
		}
	}
	for name, used := range components {
		if !used {
			t.Errorf("components/%s is in no kustomization", name)
		}
	}
}

func TestStrictDecodingRefusesWhatIsMisspelt(t *testing.T) {
	for _, tc := range []struct{ dir, right, wrong string }{
		{"overlays/dev", "podManagementPolicy: Parallel", "podManagmentPolicy: Parallel"},
		{"overlays/dev", "terminationGracePeriodSeconds:", "terminationGracePeriod:"},
		{"overlays/dev", "readOnlyRootFilesystem:", "readonlyRootFilesystem:"},
		{"overlays/dev", "publishNotReadyAddresses:", "publishNotReady:"},
		{"overlays/dev", "unhealthyPodEvictionPolicy:", "unhealthyEvictionPolicy:"},
		{"examples/replicas", "backoffLimitPerIndex:", "backOffLimitPerIndex:"},
		{"examples/replicas", "onPodConditions:", "onPodCondition:"},
		{"examples/replicas", "runAsNonRoot:", "runAsNonroot:"},
		{"examples/replicas", "completions: 5", "completions: 5\n  completions: 6"},
		{"examples/kueue", "podFailurePolicy:", "podFailurePolicies:"},
		{"examples/kueue", "replicatedJobs:", "replicatedJob:"},
		{"examples/kueue", "action: FailJobSet", "action: FailJobset"},
		{"examples/kueue", "nominalQuota:", "quota:"},
		{"overlays/prod", "rotationPolicy:", "rotation:"},
		{"overlays/prod", "resourceNames:", "resourcesNames:"},
	} {
		good := built(t, tc.dir)
		bad := strings.Replace(good, tc.right, tc.wrong, 1)
		if good == bad {
			t.Errorf("%s has no %q", tc.dir, tc.right)
			continue
		}
		refused := slices.ContainsFunc(documents(bad), func(doc string) bool { _, err := decode(doc); return err != nil })
		if !refused {
			t.Errorf("%s: %q in place of %q is accepted", tc.dir, tc.wrong, tc.right)
		}
	}
}
