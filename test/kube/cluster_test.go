//go:build linux

// Package kube_test goes the way of docs/kubernetes.md on a control plane that is real, from the first manifest to removal, with
// nodes that run the programs of pods as processes of this machine.
package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"

	"github.com/kelvin-ebm/kelvin/test/kube/controlplane"
	"github.com/kelvin-ebm/kelvin/test/kube/kubelet"
)

const (
	namespace = "kelvin"
	goImage   = "ghcr.io/kelvin-ebm/kelvin:0.1.0-go"
	cpuImage  = "ghcr.io/kelvin-ebm/kelvin:0.1.0-cpu"
)

func TestMain(m *testing.M) {
	kubelet.Init()
	os.Exit(m.Run())
}

// Each part goes on with the cluster as the one before left it.
func TestKelvinOnKubernetes(t *testing.T) {
	c := newCluster(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"Manifests", checkManifests},
		{"Experiment", firstExperiment},
		{"NewToken", newToken},
		{"NewCertificate", newCertificate},
		{"Failures", failures},
		{"Explanations", explanations},
		{"Disturbances", disturbances},
		{"Removal", removal},
		{"Production", production},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, c) }) {
			t.Fatalf("the parts after %s need it; logs of all programs and pods are in %s", part.name, c.dir)
		}
	}
}

// cluster is a Kubernetes of one control plane and three nodes, with Kelvin's programs as they are built here.
type cluster struct {
	dir        string // logs, data and the working folder of the commands
	kubeconfig string
	nodes      *kubelet.Kubelet
	client     kubernetes.Interface
	dynamic    dynamic.Interface
	mapper     *restmapper.DeferredDiscoveryRESTMapper
	warnings   warnings
	life       context.Context // of what is there for all parts
	servers    []string        // URLs that lead to the coordinators
	speed      float64         // of the first experiment in the pods, in steps a second
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	binaries := controlplane.Cache()
	if missing := controlplane.Missing(binaries); len(missing) > 0 {
		t.Skipf("%s has no %v: make kube-test builds them", binaries, missing)
	}
	if err := kubelet.Supported(); err != nil {
		t.Skip(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	plugins := filepath.Join(home, ".local", "lib", "go-xla")
	if _, err := os.Stat(filepath.Join(plugins, "pjrt_c_api_cpu_plugin.so")); err != nil {
		t.Skipf("%v: make xla installs it", err)
	}
	c := &cluster{dir: keptFolder(t), life: t.Context()}
	images := c.build(t, plugins)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	plane, err := controlplane.Start(ctx, controlplane.Config{Binaries: binaries, Dir: c.path("plane")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Close(); err != nil {
			t.Error(err)
		}
	})
	log, err := os.Create(c.path("kubelet.log"))
	if err != nil {
		t.Fatal(err)
	}
	c.nodes, err = kubelet.Start(ctx, kubelet.Config{
		API: plane.REST(), Dir: c.path("nodes"), Images: images, Log: slog.New(slog.NewTextHandler(log, nil)),
		Nodes: []kubelet.Node{{Name: "a", CPU: "4", Memory: "16Gi"}, {Name: "b", CPU: "4", Memory: "16Gi"}, {Name: "c", CPU: "4", Memory: "16Gi"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.nodes.Close(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	c.kubeconfig = plane.Kubeconfig()
	config := plane.REST()
	config.WarningHandler = &c.warnings
	c.client, c.dynamic = kubernetes.NewForConfigOrDie(config), dynamic.NewForConfigOrDie(config)
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.client.Discovery()))
	t.Cleanup(func() {
		if t.Failed() {
			c.keepEvents(t)
		}
	})
	return c
}

// keepEvents writes what controllers, scheduler and nodes said beside the logs.
func (c *cluster) keepEvents(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := c.client.CoreV1().Events(meta.NamespaceAll).List(ctx, meta.ListOptions{})
	if err != nil {
		t.Logf("events are lost: %v", err)
		return
	}
	var text strings.Builder
	for _, e := range list.Items {
		fmt.Fprintf(&text, "%s %s %s/%s %s: %s\n", e.LastTimestamp.Format(time.TimeOnly), e.Type, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
	if err := os.WriteFile(c.path("events.txt"), []byte(text.String()), 0o644); err != nil {
		t.Log(err)
	}
}

// keptFolder is a new folder: in KELVIN_KUBE_DIR, where it stays, or one that is removed unless the test fails.
func keptFolder(t *testing.T) string {
	t.Helper()
	parent := os.Getenv("KELVIN_KUBE_DIR")
	dir, err := os.MkdirTemp(parent, "kelvin-kube-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // volumes in it are for the users of pods
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if parent == "" && !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	return dir
}

func (c *cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// build builds Kelvin's programs as its images have them, for coordinators and for replicas, which train with XLA's plugins.
func (c *cluster) build(t *testing.T, plugins string) map[string]kubelet.Image {
	t.Helper()
	image := func(folder, cgo string, mounts map[string]string) kubelet.Image {
		cmd := exec.Command("go", "build", "-o", c.path(folder)+"/", "./cmd/coordinator", "./cmd/replica")
		cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build of Kelvin: %v\n%s", err, out)
		}
		return kubelet.Image{
			Binaries: map[string]string{"/usr/local/bin/coordinator": c.path(folder, "coordinator"), "/usr/local/bin/replica": c.path(folder, "replica")},
			Env:      map[string]string{"HOME": "/tmp", "KELVIN_NO_INSTALL": "1"},
			Mounts:   mounts,
		}
	}
	if err := os.MkdirAll(c.path("work"), 0o755); err != nil {
		t.Fatal(err)
	}
	return map[string]kubelet.Image{
		goImage:  image("go", "0", nil),
		cpuImage: image("cpu", "1", map[string]string{"/usr/local/lib/go-xla": plugins}),
	}
}

// command prepares a run of the program coordinator, as people have it on their own machine.
func (c *cluster) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path("cpu", "coordinator"), args...)
	cmd.Dir = c.path("work")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "KELVIN_CONFIG="+c.path("work", "config.yaml"), "KELVIN_NO_INSTALL=1")
	return cmd
}

// coordinator runs the program, which must succeed, and returns what it printed.
func (c *cluster) coordinator(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(t, args...)
	if err != nil {
		t.Fatalf("coordinator %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *cluster) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := c.command(t.Context(), args...).CombinedOutput()
	return string(out), err
}

// experiment is what is looked at of one.
type experiment struct {
	Phase        string `json:"phase"`
	Step         uint64 `json:"step"`
	StepsRedone  uint64 `json:"steps_redone"`
	Generation   uint64 `json:"generation"`
	LiveReplicas int    `json:"live_replicas"`
}

func (c *cluster) experiment(t *testing.T, name string) (experiment, error) {
	t.Helper()
	out, err := c.command(t.Context(), "get", "experiment", name, "-o", "json").Output()
	if err != nil {
		return experiment{}, fmt.Errorf("coordinator get experiment %s: %w", name, err)
	}
	var e experiment
	return e, json.Unmarshal(out, &e)
}

// patience is for what takes seconds. It is used up only when something is wrong, or the machine has much else to do.
const patience = 3 * time.Minute

// until polls a condition, whose error says what is missing.
func (c *cluster) until(t *testing.T, what string, condition func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s: %v; logs are in %s", patience, what, err, c.dir)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// untilReady waits until all three coordinators are of the newest template and ready.
func (c *cluster) untilReady(t *testing.T) {
	t.Helper()
	c.until(t, "three coordinators are ready", func() error {
		set, err := c.client.AppsV1().StatefulSets(namespace).Get(t.Context(), "kelvin", meta.GetOptions{})
		if err != nil {
			return err
		}
		if s := set.Status; s.ObservedGeneration != set.Generation || s.ReadyReplicas != 3 || s.UpdateRevision != s.CurrentRevision {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}

// untilStep waits until an experiment has made so many steps, and fails if it ends before.
func (c *cluster) untilStep(t *testing.T, name string, step uint64) {
	t.Helper()
	c.until(t, fmt.Sprintf("%s makes step %d", name, step), func() error {
		e, err := c.experiment(t, name)
		if err == nil && (e.Phase == "completed" || e.Phase == "failed") {
			t.Fatalf("%s is %s, want it running at step %d", name, e.Phase, step)
		}
		if err == nil && e.Step < step {
			err = fmt.Errorf("it is %s at step %d", e.Phase, e.Step)
		}
		return err
	})
}

// warnings are those that the API server sends beside its answers.
type warnings struct {
	mu   sync.Mutex
	said []string
}

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	said := w.said
	w.said = nil
	return said
}
