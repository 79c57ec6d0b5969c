package kube

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Replicas say what the Job of an experiment's replicas is made of.
type Replicas struct {
	Experiment   string // its name, which becomes the Job's
	Namespace    string
	Replicas     int      // that have work
	Standbys     int      // that wait to take the place of one
	Image        string   // with the program replica
	Coordinators []string // https URLs
	Secret       string   // its keys: token, and ca.pem, the authority that signs for the coordinators
	CPU, Memory  string   // of each, as quantities of Kubernetes: 2, 500m, 4Gi
	GPU          bool     // one of NVIDIA's each
	Queue        string   // LocalQueue of Kueue; "": none
	Data         []Claim
}

// Claim is a PersistentVolumeClaim with data, which replicas see read-only at a path.
type Claim struct{ Name, Path string }

// ParseClaim reads NAME=/path.
func ParseClaim(s string) (Claim, error) {
	name, at, ok := strings.Cut(s, "=")
	c := Claim{name, at}
	if !ok {
		return c, fmt.Errorf("%q, want the name of a claim and a path, digits=/data", s)
	}
	return c, c.validate()
}

func (c Claim) validate() error {
	if faults := validation.IsDNS1123Subdomain(c.Name); len(faults) > 0 {
		return fmt.Errorf("claim %q, want the name of a PersistentVolumeClaim", c.Name)
	}
	if !path.IsAbs(c.Path) || path.Clean(c.Path) != c.Path || c.Path == "/" || c.Path == temporary || c.Path == credentials {
		return fmt.Errorf("claim %s at %q, want an absolute path such as /data", c.Name, c.Path)
	}
	return nil
}

const (
	// longestName leaves four digits for the index: a pod's host name has 63 letters at most.
	longestName = 58
	// mostPods is what Kubernetes allows with a limit of retries for each index.
	mostPods = 10_000

	temporary   = "/tmp"
	credentials = "/run/kelvin"
	healthPort  = 8081
	nobody      = 65532
)

// The exit codes of a replica, as its help lists them, and what they mean for its index.
var (
	hopeless  = []int32{42, 43} // the same again would fail again
	preempted = []int32{143}    // it was asked to end: that is no failure
)

// Validate says everything that is wrong.
func (r Replicas) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := CheckName(r.Experiment); err != nil {
		errs = append(errs, err)
	}
	if faults := validation.IsDNS1123Label(r.Namespace); len(faults) > 0 {
		wrong("namespace: %q, want lower-case letters, digits and dashes within", r.Namespace)
	}
	if r.Replicas < 1 {
		wrong("replicas: %d, want at least 1", r.Replicas)
	}
	if r.Standbys < 0 {
		wrong("standbys: %d, want 0 or more", r.Standbys)
	}
	if r.Replicas+r.Standbys > mostPods {
		wrong("replicas, standbys: %d together, want at most %d", r.Replicas+r.Standbys, mostPods)
	}
	if r.Image == "" || strings.ContainsAny(r.Image, " \t\n") {
		wrong("image: %q, want that with the program replica", r.Image)
	}
	if len(r.Coordinators) == 0 {
		wrong("coordinators: missing, want their URL")
	}
	for _, text := range r.Coordinators {
		if u, err := url.Parse(text); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			wrong("coordinators: %q, want a URL such as https://kelvin.kelvin.svc:8443", text)
		}
	}
	if faults := validation.IsDNS1123Subdomain(r.Secret); len(faults) > 0 {
		wrong("secret: %q, want the name of a Secret with the keys token and ca.pem", r.Secret)
	}
	if r.Queue != "" && len(validation.IsDNS1123Label(r.Queue)) > 0 {
		wrong("queue: %q, want the name of a LocalQueue", r.Queue)
	}
	for what, text := range map[string]string{"cpu": r.CPU, "memory": r.Memory} {
		if q, err := resource.ParseQuantity(text); err != nil || q.Sign() <= 0 {
			wrong("%s: %q, want a quantity such as 2, 500m or 4Gi", what, text)
		}
	}
	for i, c := range r.Data {
		if err := c.validate(); err != nil {
			errs = append(errs, fmt.Errorf("data: %w", err))
		}
		for _, other := range r.Data[:i] {
			if c.Path == other.Path {
				wrong("data: claims %s and %s, both at %s", other.Name, c.Name, c.Path)
			}
		}
	}
	return errors.Join(errs...)
}

// CheckName says whether an experiment's name can be a Job's.
func CheckName(name string) error {
	if len(name) > longestName || len(validation.IsDNS1123Label(name)) > 0 {
		return fmt.Errorf("name: %q cannot be that of a Job, want at most %d lower-case letters, digits and dashes within", name, longestName)
	}
	return nil
}

// Pods is how many pods there are, each with an index of its own.
func (r Replicas) Pods() int32 { return int32(r.Replicas + r.Standbys) }

// NewJob is the Job of an experiment's replicas: one index for each. Indexes fail one by one, so that the others go on.
func NewJob(r Replicas) (*batch.Job, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("kube: job: %w", err)
	}
	labels := Labels(r.Experiment)
	marked := Labels(r.Experiment)
	if r.Queue != "" {
		marked[queueLabel] = r.Queue
	}
	pods, week := r.Pods(), int32(7*24*3600)
	return &batch.Job{
		TypeMeta:   meta.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: meta.ObjectMeta{Name: r.Experiment, Namespace: r.Namespace, Labels: marked},
		Spec: batch.JobSpec{
			CompletionMode: new(batch.IndexedCompletion),
			// Equal, the two may be changed while the Job runs.
			Completions: &pods,
			Parallelism: &pods,
			// A device that fails again and again is one replica less; when half of them are, the rest goes too.
			BackoffLimitPerIndex: new(int32(20)),
			MaxFailedIndexes:     new(pods / 2),
			// Not before the old pod is gone: two of one index would be the same replica twice.
			PodReplacementPolicy:    new(batch.Failed),
			PodFailurePolicy:        failures(),
			TTLSecondsAfterFinished: &week, // the logs stay so long
			Template: core.PodTemplateSpec{
				ObjectMeta: meta.ObjectMeta{Labels: labels},
				Spec:       r.pod(),
			},
		},
	}, nil
}

// Labels are those of the pods of an experiment's replicas.
func Labels(experiment string) map[string]string {
	return map[string]string{
		"app.kubernetes.io/name":      "kelvin",
		"app.kubernetes.io/component": "replica",
		"app.kubernetes.io/instance":  experiment,
	}
}

func failures() *batch.PodFailurePolicy {
	exits := func(codes []int32) *batch.PodFailurePolicyOnExitCodesRequirement {
		return &batch.PodFailurePolicyOnExitCodesRequirement{ContainerName: new(container), Operator: batch.PodFailurePolicyOnExitCodesOpIn, Values: codes}
	}
	return &batch.PodFailurePolicy{Rules: []batch.PodFailurePolicyRule{
		{Action: batch.PodFailurePolicyActionIgnore, OnPodConditions: []batch.PodFailurePolicyOnPodConditionsPattern{
			{Type: core.DisruptionTarget, Status: core.ConditionTrue},
		}},
		{Action: batch.PodFailurePolicyActionFailIndex, OnExitCodes: exits(hopeless)},
		{Action: batch.PodFailurePolicyActionIgnore, OnExitCodes: exits(preempted)},
	}}
}

const container = "replica"

func (r Replicas) pod() core.PodSpec {
	cpu, memory := resource.MustParse(r.CPU), resource.MustParse(r.Memory) // validated
	size := core.ResourceList{core.ResourceCPU: cpu, core.ResourceMemory: memory}
	pod := core.PodSpec{
		RestartPolicy:                 core.RestartPolicyNever, // the Job's rules decide
		TerminationGracePeriodSeconds: new(int64(30)),
		ServiceAccountName:            "kelvin-replica",
		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false),
		SecurityContext: &core.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: new(int64(nobody)), RunAsGroup: new(int64(nobody)), FSGroup: new(int64(nobody)),
			SeccompProfile: &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault},
		},
		Volumes: []core.Volume{
			{Name: "tmp", VolumeSource: core.VolumeSource{EmptyDir: &core.EmptyDirVolumeSource{SizeLimit: new(resource.MustParse("2Gi"))}}},
			{Name: "credentials", VolumeSource: core.VolumeSource{Secret: &core.SecretVolumeSource{SecretName: r.Secret, DefaultMode: new(int32(0o440))}}},
		},
	}
	c := core.Container{
		Name:    container,
		Image:   r.Image,
		Command: []string{"replica"},
		Args: []string{
			"--coordinator=" + strings.Join(r.Coordinators, ","),
			"--token-file=" + credentials + "/token",
			"--ca=" + credentials + "/ca.pem",
			"--experiment=" + r.Experiment,
			"--id=" + r.Experiment + "-$(JOB_COMPLETION_INDEX)", // unique among the replicas of all experiments
			fmt.Sprintf("--health=:%d", healthPort),
			"--grace=25s", // below the grace of the pod
		},
		Env: []core.EnvVar{
			{Name: "HOME", Value: temporary}, // caches of compilers
			{Name: "KELVIN_NO_INSTALL", Value: "1"},
		},
		Ports:     []core.ContainerPort{{Name: "health", ContainerPort: healthPort, Protocol: core.ProtocolTCP}},
		Resources: core.ResourceRequirements{Requests: size, Limits: size.DeepCopy()},
		// A program is compiled before the first step. From then on /livez says whether steps come, or what is waited for.
		StartupProbe:   probe("/livez", 5, 120),
		LivenessProbe:  probe("/livez", 10, 3),
		ReadinessProbe: probe("/readyz", 5, 1),
		SecurityContext: &core.SecurityContext{
			AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
			Capabilities: &core.Capabilities{Drop: []core.Capability{"ALL"}},
		},
		VolumeMounts: []core.VolumeMount{{Name: "tmp", MountPath: temporary}, {Name: "credentials", MountPath: credentials, ReadOnly: true}},
	}
	if r.GPU {
		one := resource.MustParse("1")
		c.Resources.Requests[nvidiaGPU], c.Resources.Limits[nvidiaGPU] = one, one
		pod.Tolerations = []core.Toleration{{Key: nvidiaGPU, Operator: core.TolerationOpExists, Effect: core.TaintEffectNoSchedule}}
	}
	for i, claim := range r.Data {
		name := fmt.Sprintf("data-%d", i)
		pod.Volumes = append(pod.Volumes, core.Volume{Name: name, VolumeSource: core.VolumeSource{
			PersistentVolumeClaim: &core.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name, ReadOnly: true}}})
		c.VolumeMounts = append(c.VolumeMounts, core.VolumeMount{Name: name, MountPath: claim.Path, ReadOnly: true})
	}
	pod.Containers = []core.Container{c}
	return pod
}

const (
	nvidiaGPU  = "nvidia.com/gpu"
	queueLabel = "kueue.x-k8s.io/queue-name"
)

func probe(path string, period, failures int32) *core.Probe {
	return &core.Probe{
		ProbeHandler:  core.ProbeHandler{HTTPGet: &core.HTTPGetAction{Path: path, Port: intstr.FromString("health"), Scheme: core.URISchemeHTTP}},
		PeriodSeconds: period, FailureThreshold: failures, TimeoutSeconds: cmp.Or(period/2, 1),
	}
}
