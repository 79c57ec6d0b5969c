package kube_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kelvin-ebm/kelvin/pkg/kube"
)

// pod is one of the Job digits, in whatever state edit puts it.
func pod(index int, edit func(p *core.Pod)) core.Pod {
	p := core.Pod{
		ObjectMeta: meta.ObjectMeta{
			Name: fmt.Sprintf("digits-%d-x", index), Namespace: "lab", UID: types.UID(fmt.Sprint("pod ", index)),
			CreationTimestamp: meta.NewTime(time.Unix(1_700_000_000, 0)), Annotations: map[string]string{batch.JobCompletionIndexAnnotation: fmt.Sprint(index)},
		},
		Spec:   core.PodSpec{NodeName: "n1", Containers: []core.Container{{Image: "ghcr.io/kelvin-ebm/kelvin:0.1.0-cpu"}}},
		Status: core.PodStatus{Phase: core.PodRunning, ContainerStatuses: []core.ContainerStatus{{}}},
	}
	edit(&p)
	return p
}

func unschedulable(message string) func(p *core.Pod) {
	return func(p *core.Pod) {
		p.Spec.NodeName, p.Status.Phase, p.Status.ContainerStatuses = "", core.PodPending, nil
		p.Status.Conditions = []core.PodCondition{{Type: core.PodScheduled, Status: core.ConditionFalse, Reason: core.PodReasonUnschedulable, Message: message}}
	}
}

func waiting(reason, message string) func(p *core.Pod) {
	return func(p *core.Pod) {
		p.Status.Phase = core.PodPending
		p.Status.ContainerStatuses[0].State.Waiting = &core.ContainerStateWaiting{Reason: reason, Message: message}
	}
}

func ended(code int32, reason string) func(p *core.Pod) {
	return func(p *core.Pod) {
		p.Status.Phase = core.PodFailed
		p.Status.ContainerStatuses[0].State.Terminated = &core.ContainerStateTerminated{ExitCode: code, Reason: reason}
	}
}

func warning(uid, reason, message string, at int64) core.Event {
	return core.Event{InvolvedObject: core.ObjectReference{UID: types.UID(uid)}, Reason: reason, Message: message, LastTimestamp: meta.NewTime(time.Unix(at, 0))}
}

// look is what the client says of a Job, its pods and warnings.
func look(t *testing.T, job batch.Job, pods []core.Pod, events []core.Event) *kube.Seen {
	t.Helper()
	encode := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	c := &cluster{answers: map[string]string{
		"GET /apis/batch/v1/namespaces/lab/jobs/digits": encode(job),
		"GET /api/v1/namespaces/lab/pods":               encode(core.PodList{Items: pods}),
		"GET /api/v1/namespaces/lab/events":             encode(core.EventList{Items: events}),
	}}
	seen, err := c.open(t).Look(t.Context(), "digits")
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func digits(edit func(j *batch.Job)) batch.Job {
	j := batch.Job{
		ObjectMeta: meta.ObjectMeta{Name: "digits", Namespace: "lab", UID: "the job"},
		Spec:       batch.JobSpec{Completions: new(int32(24))},
		Status:     batch.JobStatus{Active: 24, Ready: new(int32(1))},
	}
	edit(&j)
	return j
}

// TestWhyPodsDoNotRun puts everything that is known to keep a pod from running into one Job.
func TestWhyPodsDoNotRun(t *testing.T) {
	const full = "0/5 nodes are available: %s. preemption: 0/5 nodes are available: 5 No preemption victims found for incoming pod."
	pods := []core.Pod{
		pod(0, unschedulable(fmt.Sprintf(full, "2 node(s) had untolerated taint {gpu: yes}, 3 Insufficient nvidia.com/gpu"))),
		pod(1, unschedulable(fmt.Sprintf(full, "2 node(s) had untolerated taint {gpu: yes}, 3 Insufficient nvidia.com/gpu"))),
		pod(2, unschedulable(fmt.Sprintf(full, "5 Insufficient memory"))),
		pod(3, unschedulable(`0/5 nodes are available: persistentvolumeclaim "digits" not found. not found`)),
		pod(4, unschedulable(fmt.Sprintf(full, "5 node(s) had untolerated taint {maintenance: }"))),
		pod(5, unschedulable(fmt.Sprintf(full, "5 node(s) didn't match Pod's node affinity/selector"))),
		pod(6, func(p *core.Pod) {
			unschedulable("")(p)
			p.Status.Conditions[0].Reason = core.PodReasonSchedulingGated
		}),
		pod(7, func(p *core.Pod) { p.Spec.NodeName = "" }),
		pod(8, waiting("ImagePullBackOff", `Back-off pulling image "ghcr.io/kelvin-ebm/kelvin:0.1.0-cpu"`)),
		pod(9, waiting("CreateContainerConfigError", `secret "kelvin-join" not found`)),
		pod(10, waiting("ContainerCreating", "")),
		pod(11, waiting("ContainerCreating", "")),
		pod(12, func(p *core.Pod) {
			p.Status.ContainerStatuses[0].State.Running = &core.ContainerStateRunning{}
			p.Status.ContainerStatuses[0].Ready = true
		}),
		pod(13, func(p *core.Pod) { p.Status.ContainerStatuses[0].State.Running = &core.ContainerStateRunning{} }),
		pod(14, func(p *core.Pod) { p.Status.ContainerStatuses[0].State.Running = &core.ContainerStateRunning{} }),
		pod(15, ended(42, "Error")),
		pod(16, ended(43, "Error")),
		pod(17, ended(75, "Error")),
		pod(18, ended(137, "OOMKilled")),
		pod(19, ended(143, "Error")),
		pod(20, ended(1, "Error")),
		pod(21, func(p *core.Pod) {
			p.Status.Phase, p.Status.Message, p.Status.ContainerStatuses = core.PodFailed, "Pod was rejected: node is\nshutting down", nil
		}),
		pod(22, func(p *core.Pod) { p.Status.Phase = core.PodSucceeded }),
		pod(23, func(p *core.Pod) { p.DeletionTimestamp = new(meta.NewTime(time.Unix(1_700_000_100, 0))) }),
		// An older pod of an index that runs again is no problem any more.
		pod(12, func(p *core.Pod) {
			ended(1, "Error")(p)
			p.Name, p.CreationTimestamp = "digits-12-old", meta.NewTime(time.Unix(1_600_000_000, 0))
		}),
	}
	events := []core.Event{
		warning("pod 11", "FailedMount", `MountVolume.SetUp failed for volume "credentials" : secret "kelvin-join" not found`, 10),
		warning("pod 14", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 503", 30),
		warning("pod 14", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", 20),
		warning("other", "FailedMount", "of another pod", 40),
	}
	job := digits(func(j *batch.Job) {
		j.Status.Failed, j.Status.FailedIndexes, j.Status.CompletedIndexes = 6, new("15,16"), "22"
	})
	seen := look(t, job, pods, events)
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s: %d of %d ready, done %s, failed %s, %d attempts\n", seen.State, seen.Ready, seen.Pods, seen.Done, seen.Failed, seen.Attempts)
	for _, p := range seen.Replicas {
		fmt.Fprintf(&out, "%2d %-9s %-2s %s\n", p.Index, p.State, p.Node, p.Why)
	}
	for _, f := range seen.Findings {
		fmt.Fprintf(&out, "%v: %s\n    %s\n", f.Pods, f.What, f.Fix)
	}
	golden(t, "status.txt", out.Bytes())
}

func TestWhatIsWrongWithTheJob(t *testing.T) {
	condition := func(kind batch.JobConditionType, reason, message string) func(j *batch.Job) {
		return func(j *batch.Job) {
			j.Status.Active = 0
			j.Status.Conditions = []batch.JobCondition{{Type: kind, Status: core.ConditionTrue, Reason: reason, Message: message}}
		}
	}
	refused := func(text string) []core.Event {
		return []core.Event{warning("the job", "FailedCreate", `Error creating: pods "digits-0-x" is forbidden: `+text, 1)}
	}
	none := func(j *batch.Job) { j.Status.Active = 0 }
	for _, tc := range []struct {
		name      string
		edit      func(j *batch.Job)
		events    []core.Event
		state     string
		what, fix string
	}{
		{"nothing", func(*batch.Job) {}, nil, "running", "", ""},
		{"it is done", condition(batch.JobComplete, "", ""), nil, "complete", "", ""},
		{"it is nearly done", condition(batch.JobSuccessCriteriaMet, "", ""), nil, "ending", "", ""},
		{"it failed", condition(batch.JobFailed, "FailedIndexes", "Job has failed indexes"), nil, "failed",
			"the Job has failed: FailedIndexes: Job has failed indexes", "the pods below say why; `coordinator k8s job digits` starts another once this one is deleted"},
		{"suspended", condition(batch.JobSuspended, "", ""), nil, "suspended", "the Job is suspended", "spec.suspend: false lets it start"},
		{"queued", func(j *batch.Job) {
			condition(batch.JobSuspended, "", "")(j)
			j.Labels = map[string]string{"kueue.x-k8s.io/queue-name": "lab"}
		}, nil, "suspended", "the Job is suspended", "queue lab has to admit it: kubectl describe workloads says what it waits for"},
		{"over quota", none, refused("exceeded quota: lab, requested: cpu=2, used: cpu=8, limited: cpu=8"), "running",
			"pods cannot be made: exceeded quota: lab, requested: cpu=2, used: cpu=8, limited: cpu=8", "a larger ResourceQuota in lab, or fewer pods: coordinator k8s scale digits --replicas N"},
		{"no account", none, refused(`error looking up service account lab/kelvin-replica: serviceaccount "kelvin-replica" not found`), "running",
			`pods cannot be made: error looking up service account lab/kelvin-replica: serviceaccount "kelvin-replica" not found`, "kubectl apply -k k8s/base makes the ServiceAccount kelvin-replica"},
		{"a policy", none, refused(`violates PodSecurity "restricted:latest": privileged`), "running",
			`pods cannot be made: violates PodSecurity "restricted:latest": privileged`, "the namespace forbids such pods: compare the Job with `coordinator k8s render`"},
		{"a refusal that is over", func(*batch.Job) {}, refused("exceeded quota: lab"), "running", "", ""},
	} {
		seen := look(t, digits(tc.edit), nil, tc.events)
		if seen.State != tc.state {
			t.Errorf("%s: %s, want %s", tc.name, seen.State, tc.state)
		}
		var got kube.Finding
		if len(seen.Findings) > 0 {
			got = seen.Findings[0]
		}
		if len(seen.Findings) > 1 || got.What != tc.what || got.Fix != tc.fix {
			t.Errorf("%s: %+v, want %s; %s", tc.name, seen.Findings, tc.what, tc.fix)
		}
	}
}
