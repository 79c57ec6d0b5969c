package kube_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kelvin-ebm/kelvin/pkg/kube"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func some() kube.Replicas {
	return kube.Replicas{
		Experiment: "digits", Namespace: "kelvin", Replicas: 8, Standbys: 1, Image: "ghcr.io/kelvin-ebm/kelvin:0.1.0-cuda13",
		Coordinators: []string{"https://kelvin.kelvin.svc:8443"}, Secret: "kelvin-join", CPU: "2", Memory: "8Gi", GPU: true,
		Queue: "lab", Data: []kube.Claim{{Name: "digits", Path: "/data"}},
	}
}

// TestJobWithEverything; the Job without is the example in k8s/examples/replicas.
func TestJobWithEverything(t *testing.T) {
	job, err := kube.NewJob(some())
	if err != nil {
		t.Fatal(err)
	}
	text, err := kube.YAML(job)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "job.yaml", text)
}

func TestFaultsAreToldTogether(t *testing.T) {
	r := kube.Replicas{Experiment: "Two_Moons", Namespace: "a.b", Standbys: -1, Coordinators: []string{"http://kelvin:8443"}, Memory: "-1", CPU: "many",
		Queue: "A", Data: []kube.Claim{{Name: "x", Path: "/a"}, {Name: "y", Path: "/a"}, {Name: "z", Path: "rel"}}}
	err := r.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`name: "Two_Moons" cannot be that of a Job, want at most 58 lower-case letters`, `namespace: "a.b"`, "replicas: 0, want at least 1", "standbys: -1", `image: ""`,
		`coordinators: "http://kelvin:8443"`, `secret: ""`, `queue: "A"`, `cpu: "many"`, `memory: "-1"`, "claims x and y, both at /a", `claim z at "rel"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func TestNamesOfJobs(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "two-moons": true, "2026": true, strings.Repeat("a", 58): true, strings.Repeat("a", 59): false, "": false, "-a": false, "a-": false, "A": false, "a.b": false, "a_b": false,
	} {
		if err := kube.CheckName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestMostPods(t *testing.T) {
	r := some()
	r.Replicas, r.Standbys = 9_999, 1
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	r.Standbys++
	if err := r.Validate(); err == nil {
		t.Error("10001 pods are accepted")
	}
}

func TestParseClaim(t *testing.T) {
	for text, ok := range map[string]bool{
		"digits=/data": true, "a.b=/x/y": true, "digits": false, "=/data": false, "digits=": false, "digits=data": false, "digits=/": false, "digits=/tmp": false,
		"digits=/run/kelvin": false, "digits=/a/../b": false, "Digits=/data": false,
	} {
		if c, err := kube.ParseClaim(text); (err == nil) != ok || ok && c.Name+"="+c.Path != text {
			t.Errorf("%q: %v, %v", text, c, err)
		}
	}
}

func ExampleNewJob() {
	job, err := kube.NewJob(kube.Replicas{
		Experiment: "digits", Namespace: "kelvin", Replicas: 8, Standbys: 1, Image: "ghcr.io/kelvin-ebm/kelvin:0.1.0-cpu",
		Coordinators: []string{"https://kelvin.kelvin.svc:8443"}, Secret: "kelvin-join", CPU: "2", Memory: "8Gi",
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(*job.Spec.Completions, "indexes;", job.Spec.Template.Spec.Containers[0].Args[4])
	// Output: 9 indexes; --id=digits-$(JOB_COMPLETION_INDEX)
}
