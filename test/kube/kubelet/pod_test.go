//go:build linux

package kubelet

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
)

// bench is a Kubelet with one node, an API server that is none, and a folder that pods of the image "app" see.
type bench struct {
	t   *testing.T
	k   *Kubelet
	api *fake.Clientset
}

func newBench(t *testing.T, objects ...runtime.Object) *bench {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, api: fake.NewClientset(objects...)}
	b.k, err = start(t.Context(), Config{
		Dir:     t.TempDir(),
		Nodes:   []Node{{Name: "one", CPU: "4", Memory: "8Gi"}},
		Images:  map[string]Image{"app": {Binaries: map[string]string{"/usr/local/bin/program": self}, Env: map[string]string{"FROM_IMAGE": "yes"}}},
		PodCIDR: "10.89.0.0/24", ServiceCIDR: "10.97.0.0/16",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}, b.api)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.k.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// podOf is a pod that runs the program with these arguments. Its policy is not to run it again.
func podOf(name string, args ...string) *core.Pod {
	return &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: name, Namespace: "test", UID: types.UID("uid-" + name)},
		Spec: core.PodSpec{
			NodeName: "one", RestartPolicy: core.RestartPolicyNever, TerminationGracePeriodSeconds: new(int64(30)),
			Containers: []core.Container{{Name: "main", Image: "app", Command: []string{"program", "as"}, Args: args}},
		},
	}
}

func (b *bench) create(p *core.Pod) {
	b.t.Helper()
	if _, err := b.api.CoreV1().Pods(p.Namespace).Create(b.t.Context(), p, meta.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

// delete does what an API server does to a pod that a node has.
func (b *bench) delete(name string, grace int64) {
	b.t.Helper()
	p := b.get(name)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = new(meta.Now()), &grace
	if _, err := b.api.CoreV1().Pods(p.Namespace).Update(b.t.Context(), p, meta.UpdateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) get(name string) *core.Pod {
	b.t.Helper()
	p, err := b.api.CoreV1().Pods("test").Get(b.t.Context(), name, meta.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// eventually polls for what other goroutines bring about. The limit is for those that never do.
func (b *bench) eventually(what string, holds func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			b.t.Fatalf("never: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// until returns the pod when its status is as wanted.
func (b *bench) until(name, what string, wanted func(*core.Pod) bool) (p *core.Pod) {
	b.t.Helper()
	defer func() {
		if b.t.Failed() {
			b.t.Logf("pod %s: %+v", name, p.Status)
		}
	}()
	b.eventually("pod "+name+" "+what, func() bool {
		p = b.get(name)
		return wanted(p)
	})
	return p
}

func (b *bench) untilGone(name string) {
	b.t.Helper()
	b.eventually("pod "+name+" is gone", func() bool {
		_, err := b.api.CoreV1().Pods("test").Get(b.t.Context(), name, meta.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// untilSaid waits until a pod has written something.
func (b *bench) untilSaid(name, words string) {
	b.t.Helper()
	b.eventually("pod "+name+" says "+words, func() bool {
		text, err := os.ReadFile(b.k.Logs("test", name))
		return err == nil && strings.Contains(string(text), words)
	})
}

func running(p *core.Pod) bool   { return p.Status.Phase == core.PodRunning }
func ready(p *core.Pod) bool     { return running(p) && p.Status.ContainerStatuses[0].Ready }
func failed(p *core.Pod) bool    { return p.Status.Phase == core.PodFailed }
func succeeded(p *core.Pod) bool { return p.Status.Phase == core.PodSucceeded }

func ended(t *testing.T, p *core.Pod) *core.ContainerStateTerminated {
	t.Helper()
	ended := p.Status.ContainerStatuses[0].State.Terminated
	if ended == nil {
		t.Fatalf("pod %s: container has not ended: %+v", p.Name, p.Status.ContainerStatuses[0])
	}
	return ended
}

func TestContainerSeesWhatKubernetesPromises(t *testing.T) {
	b := newBench(t,
		&core.Secret{ObjectMeta: meta.ObjectMeta{Name: "keys", Namespace: "test"}, Data: map[string][]byte{"token": []byte("abc")}},
		&core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: "settings", Namespace: "test"}, Data: map[string]string{"rate": "7"}})
	p := podOf("sees-0", "look", "/secret/token", "/etc/hosts", "$(RATE)-$$(RATE)-$(NONE)")
	p.Spec.Hostname, p.Spec.Subdomain = "sees-0", "peers"
	p.Spec.SecurityContext = &core.PodSecurityContext{RunAsUser: new(int64(65532)), RunAsGroup: new(int64(65531)), FSGroup: new(int64(65530)), RunAsNonRoot: new(true)}
	p.Spec.Volumes = []core.Volume{
		{Name: "out", VolumeSource: core.VolumeSource{EmptyDir: &core.EmptyDirVolumeSource{}}},
		{Name: "secret", VolumeSource: core.VolumeSource{Secret: &core.SecretVolumeSource{SecretName: "keys", DefaultMode: new(int32(0o400))}}},
	}
	c := &p.Spec.Containers[0]
	c.WorkingDir = "/out"
	c.SecurityContext = &core.SecurityContext{ReadOnlyRootFilesystem: new(true), AllowPrivilegeEscalation: new(false), Capabilities: &core.Capabilities{Drop: []core.Capability{"ALL"}}}
	c.VolumeMounts = []core.VolumeMount{{Name: "out", MountPath: "/out"}, {Name: "secret", MountPath: "/secret"}}
	c.Env = []core.EnvVar{
		{Name: "RATE", ValueFrom: &core.EnvVarSource{ConfigMapKeyRef: &core.ConfigMapKeySelector{LocalObjectReference: core.LocalObjectReference{Name: "settings"}, Key: "rate"}}},
		{Name: "IP", ValueFrom: &core.EnvVarSource{FieldRef: &core.ObjectFieldSelector{FieldPath: "status.podIP"}}},
	}
	b.create(p)
	p = b.until("sees-0", "is ready", ready)
	pod, err := b.k.find("test", "sees-0")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(pod.dir, "volumes", "out", "seen.json")
	var seen sight
	b.eventually("the program has looked", func() bool {
		text, err := os.ReadFile(out)
		return err == nil && json.Unmarshal(text, &seen) == nil
	})
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"address", seen.Address, p.Status.PodIP},
		{"address in the environment", seen.Env["IP"], p.Status.PodIP},
		{"host name", seen.Host, "sees-0"},
		{"user", seen.UID, 65532},
		{"group", seen.GID, 65531},
		{"number of the process", seen.PID, 1},
		{"working directory", seen.Dir, "/out"},
		{"capabilities", seen.Status["CapEff"] + seen.Status["CapBnd"], strings.Repeat("0", 32)},
		{"new privileges", seen.Status["NoNewPrivs"], "1"},
		{"root", seen.Wrote["/"], "read-only file system"},
		{"host's programs", seen.Wrote["/usr"], "read-only file system"},
		{"emptyDir", seen.Wrote["/out"], "yes"},
		{"secret volume", seen.Wrote["/secret"], "read-only file system"},
		{"secret", seen.Files["/secret/token"], "abc"},
		{"argument", seen.Files["7-$(RATE)-$(NONE)"] != "", true},
		{"environment of the image", seen.Env["FROM_IMAGE"], "yes"},
		{"resolv.conf", strings.Contains(seen.Resolv, "search test.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.89.0.1\noptions ndots:5"), true},
		{"hosts", strings.Contains(seen.Files["/etc/hosts"], p.Status.PodIP+"\tsees-0.peers.test.svc.cluster.local\tsees-0"), true},
	} {
		if check.got != check.want {
			t.Errorf("%s: %v, want %v", check.what, check.got, check.want)
		}
	}
	if t.Failed() {
		t.Logf("%+v", seen)
	}

	b.delete("sees-0", 30)
	b.untilGone("sees-0")
	if _, err := os.Stat(pod.dir); !os.IsNotExist(err) {
		t.Errorf("folder of a pod that is gone: %v, want none", err)
	}
}

func TestExitCodes(t *testing.T) {
	b := newBench(t)
	for _, tc := range []struct {
		name  string
		code  string
		phase func(*core.Pod) bool
	}{{"good", "0", succeeded}, {"hopeless", "42", failed}} {
		p := podOf(tc.name, "exit", tc.code)
		p.Spec.Containers[0].TerminationMessagePolicy = core.TerminationMessageFallbackToLogsOnError
		b.create(p)
	}
	if got := ended(t, b.until("good", "has succeeded", succeeded)); got.ExitCode != 0 || got.Reason != "Completed" || got.Message != "" {
		t.Errorf("exit 0: %+v", got)
	}
	if got := ended(t, b.until("hopeless", "has failed", failed)); got.ExitCode != 42 || got.Reason != "Error" || got.Message != "last words\n" {
		t.Errorf("exit 42: %+v", got)
	}

	b.create(podOf("none", "exit"))
	none := podOf("missing")
	none.Spec.Containers[0].Command = []string{"absent"}
	b.create(none)
	if got := ended(t, b.until("missing", "has failed", failed)); got.ExitCode != 128 || got.Reason != "StartError" || !strings.Contains(got.Message, `"absent" is not in PATH`) {
		t.Errorf("a program that is not there: %+v", got)
	}

	for name, strike := range map[string]func() error{
		"struck": func() error { return b.k.Exit("test", "struck", 43) },
		"killed": func() error { return b.k.Kill("test", "killed") },
	} {
		b.create(podOf(name, "deaf"))
		b.until(name, "runs", running)
		b.untilSaid(name, "hears nothing")
		if err := strike(); err != nil {
			t.Fatal(err)
		}
	}
	if got := ended(t, b.until("struck", "has failed", failed)); got.ExitCode != 43 {
		t.Errorf("ended with 43: %+v", got)
	}
	if got := ended(t, b.until("killed", "has failed", failed)); got.ExitCode != 137 {
		t.Errorf("killed: %+v", got)
	}
}

func TestDeletionKillsWhatDoesNotListen(t *testing.T) {
	b := newBench(t)
	b.create(podOf("deaf", "deaf"))
	b.until("deaf", "runs", running)
	b.untilSaid("deaf", "hears nothing")
	pod, err := b.k.find("test", "deaf")
	if err != nil {
		t.Fatal(err)
	}
	b.delete("deaf", 3600)
	<-pod.ending.Done()
	b.get("deaf") // still there: it has an hour
	b.delete("deaf", 1)
	b.untilGone("deaf")
	if code := pod.main[0].status.State.Terminated.ExitCode; code != 137 {
		t.Errorf("exit code %d, want that of a kill", code)
	}
}

func TestRestarts(t *testing.T) {
	b := newBench(t)
	p := podOf("again", "exit", "3")
	p.Spec.RestartPolicy = core.RestartPolicyAlways
	b.create(p)
	p = b.until("again", "backs off", func(p *core.Pod) bool {
		return p.Status.ContainerStatuses != nil && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil
	})
	s := p.Status.ContainerStatuses[0]
	if s.State.Waiting.Reason != "CrashLoopBackOff" || s.LastTerminationState.Terminated.ExitCode != 3 || p.Status.Phase != core.PodRunning {
		t.Errorf("status %+v in phase %s, want a back-off after exit code 3 of a running pod", s, p.Status.Phase)
	}
}

func TestWhatKeepsAPodWaiting(t *testing.T) {
	b := newBench(t)
	waits := func(reason string) func(*core.Pod) bool {
		return func(p *core.Pod) bool {
			return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == reason
		}
	}
	image := podOf("image", "deaf")
	image.Spec.Containers[0].Image = "unknown:1"
	b.create(image)

	env := podOf("env", "deaf")
	env.Spec.Containers[0].Env = []core.EnvVar{{Name: "RATE", ValueFrom: &core.EnvVarSource{ConfigMapKeyRef: &core.ConfigMapKeySelector{LocalObjectReference: core.LocalObjectReference{Name: "later"}, Key: "rate"}}}}
	b.create(env)

	volume := podOf("volume", "deaf")
	volume.Spec.Volumes = []core.Volume{{Name: "keys", VolumeSource: core.VolumeSource{Secret: &core.SecretVolumeSource{SecretName: "later"}}}}
	b.create(volume)

	host := podOf("host", "deaf")
	host.Spec.HostNetwork = true
	b.create(host)

	p := b.until("image", "waits for its image", waits("ImagePullBackOff"))
	if p.Status.Phase != core.PodPending || !strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, "unknown:1") {
		t.Errorf("status %+v, want it pending, with the name of the image", p.Status)
	}
	b.until("env", "waits for its environment", waits("CreateContainerConfigError"))
	b.eventually("an event says which Secret a volume lacks", func() bool {
		events, err := b.api.CoreV1().Events("test").List(t.Context(), meta.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Name == "volume" && e.Reason == "FailedMount" && strings.Contains(e.Message, `secret "later" not found`) {
				return true
			}
		}
		return false
	})
	if p := b.until("host", "has failed", failed); !strings.Contains(p.Status.Message, "namespaces of the host") {
		t.Errorf("message %q, want what is not supported", p.Status.Message)
	}

	_, err := b.api.CoreV1().Secrets("test").Create(t.Context(), &core.Secret{ObjectMeta: meta.ObjectMeta{Name: "later", Namespace: "test"}}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.api.CoreV1().ConfigMaps("test").Create(t.Context(), &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: "later", Namespace: "test"}, Data: map[string]string{"rate": "7"}}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.until("env", "runs", running)
	b.until("volume", "runs", running)
}

func TestProbesOfARealContainer(t *testing.T) {
	b := newBench(t)
	answers := func(path string) *core.Probe {
		return &core.Probe{ProbeHandler: core.ProbeHandler{HTTPGet: &core.HTTPGetAction{Path: path, Port: intstr.FromString("api")}}, PeriodSeconds: 1}
	}
	p := podOf("probed", "serve", "0.0.0.0:7000")
	p.Spec.Containers[0].Ports = []core.ContainerPort{{Name: "api", ContainerPort: 7000}}
	p.Spec.Containers[0].StartupProbe, p.Spec.Containers[0].ReadinessProbe = answers("/"), answers("/")
	p.Spec.Containers[0].StartupProbe.FailureThreshold = 60
	b.create(p)
	p = b.until("probed", "is ready", ready)
	if s := p.Status.ContainerStatuses[0]; s.Started == nil || !*s.Started {
		t.Errorf("status %+v, want it started", s)
	}

	sick := podOf("sick", "serve", "0.0.0.0:7000")
	sick.Spec.RestartPolicy = core.RestartPolicyAlways
	sick.Spec.TerminationGracePeriodSeconds = new(int64(1)) // a first process that is just starting does not hear SIGTERM
	sick.Spec.Containers[0].Ports = []core.ContainerPort{{Name: "api", ContainerPort: 7000}}
	sick.Spec.Containers[0].LivenessProbe = answers("/sick")
	sick.Spec.Containers[0].LivenessProbe.FailureThreshold = 1
	b.create(sick)
	p = b.until("sick", "runs once more", func(p *core.Pod) bool {
		return running(p) && p.Status.ContainerStatuses[0].RestartCount > 0 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode == 0 {
		t.Errorf("last state %+v, want that it was ended", last)
	}
}

func TestForwardLeadsToThePodsLoopback(t *testing.T) {
	b := newBench(t)
	b.create(podOf("server", "serve", "127.0.0.1:7001"))
	b.until("server", "runs", running)
	address, err := b.k.Forward(t.Context(), "test", "server", 7001)
	if err != nil {
		t.Fatal(err)
	}
	var said string
	b.eventually("the pod answers", func() bool {
		answer, err := http.Get("http://" + address)
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		said = string(text)
		return err == nil
	})
	if said != "server" {
		t.Errorf("%q answers, want the pod server", said)
	}
}
