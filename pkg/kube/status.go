package kube

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
)

// Seen is the Job of an experiment, with its pods.
type Seen struct {
	Name      string    `json:"name"`
	Namespace string    `json:"namespace"`
	State     string    `json:"state"`    // running, suspended, ending, complete or failed
	Pods      int       `json:"pods"`     // that there are to be
	Active    int       `json:"active"`   // that there are
	Ready     int       `json:"ready"`    // whose replicas have a lease
	Done      string    `json:"done"`     // indexes that came to a good end, as 0-3,5
	Failed    string    `json:"failed"`   // indexes that are given up
	Attempts  int       `json:"attempts"` // pods that failed, and were or are to be replaced
	Started   time.Time `json:"started,omitzero"`
	Replicas  []Pod     `json:"replicas"` // by index, the newest first
	Findings  []Finding `json:"findings"` // why something does not run
}

// Pod is one of a Job.
type Pod struct {
	Name  string `json:"name"`
	Index int    `json:"index"` // -1: it has none
	State string `json:"state"` // pending, starting, running, ready, ending, succeeded or failed
	Node  string `json:"node"`
	Why   string `json:"why,omitempty"` // why it is not ready
}

// Finding is something that is in the way, with what helps.
type Finding struct {
	What string   `json:"what"`
	Fix  string   `json:"fix"`
	Pods []string `json:"pods,omitempty"` // that it holds up; none: the Job
}

// see makes a summary. Of the warnings it takes those of the Job and of its pods.
func see(job *batch.Job, pods []core.Pod, warnings []core.Event) *Seen {
	s := &Seen{
		Name: job.Name, Namespace: job.Namespace, State: "running", Active: int(job.Status.Active), Done: job.Status.CompletedIndexes,
		Attempts: int(job.Status.Failed), Replicas: []Pod{}, Findings: []Finding{},
	}
	if job.Spec.Completions != nil {
		s.Pods = int(*job.Spec.Completions)
	}
	if job.Status.Ready != nil {
		s.Ready = int(*job.Status.Ready)
	}
	if job.Status.FailedIndexes != nil {
		s.Failed = *job.Status.FailedIndexes
	}
	if job.Status.StartTime != nil {
		s.Started = job.Status.StartTime.Time
	}
	warned := lastWarnings(warnings)
	s.judgeJob(job, warned[string(job.UID)])
	slices.SortFunc(pods, func(a, b core.Pod) int {
		return cmp.Or(cmp.Compare(index(&a), index(&b)), b.CreationTimestamp.Compare(a.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	for i := range pods {
		pod := Pod{Name: pods[i].Name, Index: index(&pods[i]), Node: pods[i].Spec.NodeName}
		// A pod that another of its index took the place of is history.
		old := i > 0 && pod.Index >= 0 && index(&pods[i-1]) == pod.Index
		found := judgePod(job, &pods[i], &pod, warned[string(pods[i].UID)])
		s.Replicas = append(s.Replicas, pod)
		if found != nil && !old {
			s.add(*found, pod.Name)
		}
	}
	return s
}

// add adds a finding; the same of several pods is one, with the fix of the first.
func (s *Seen) add(f Finding, pod string) {
	i := slices.IndexFunc(s.Findings, func(o Finding) bool { return o.What == f.What && len(o.Pods) > 0 })
	if i < 0 {
		i = len(s.Findings)
		s.Findings = append(s.Findings, f)
	}
	if pod != "" {
		s.Findings[i].Pods = append(s.Findings[i].Pods, pod)
	}
}

// index is the replica that a pod is.
func index(p *core.Pod) int {
	text, ok := p.Annotations[batch.JobCompletionIndexAnnotation]
	n, err := strconv.Atoi(text)
	if !ok || err != nil {
		return -1
	}
	return n
}

// lastWarnings are the newest of each object, by its uid and then the reason.
func lastWarnings(events []core.Event) map[string]map[string]string {
	at := func(e *core.Event) time.Time {
		if e.Series != nil {
			return e.Series.LastObservedTime.Time
		}
		if !e.LastTimestamp.IsZero() {
			return e.LastTimestamp.Time
		}
		return e.EventTime.Time
	}
	slices.SortStableFunc(events, func(a, b core.Event) int { return at(&a).Compare(at(&b)) })
	last := map[string]map[string]string{}
	for _, e := range events {
		uid := string(e.InvolvedObject.UID)
		if last[uid] == nil {
			last[uid] = map[string]string{}
		}
		last[uid][e.Reason] = oneLine(e.Message)
	}
	return last
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (s *Seen) judgeJob(job *batch.Job, warned map[string]string) {
	for _, c := range job.Status.Conditions {
		if c.Status != core.ConditionTrue {
			continue
		}
		switch c.Type {
		case batch.JobComplete:
			s.State = "complete"
		case batch.JobFailed:
			s.State = "failed"
			s.add(Finding{What: fmt.Sprintf("the Job has failed: %s: %s", c.Reason, oneLine(c.Message)),
				Fix: "the pods below say why; `coordinator k8s job " + job.Name + "` starts another once this one is deleted"}, "")
		case batch.JobFailureTarget, batch.JobSuccessCriteriaMet:
			if s.State == "running" {
				s.State = "ending"
			}
		case batch.JobSuspended:
			s.State = "suspended"
			fix := "spec.suspend: false lets it start"
			if queue := job.Labels[queueLabel]; queue != "" {
				fix = fmt.Sprintf("queue %s has to admit it: kubectl describe workloads says what it waits for", queue)
			}
			s.add(Finding{What: "the Job is suspended", Fix: fix}, "")
		}
	}
	if text := warned["FailedCreate"]; text != "" && s.State == "running" && s.Active < s.Pods {
		_, why, _ := strings.Cut(text, "is forbidden: ")
		s.add(Finding{What: "pods cannot be made: " + cmp.Or(why, text), Fix: creationFix(job, text)}, "")
	}
}

func creationFix(job *batch.Job, text string) string {
	switch {
	case strings.Contains(text, "exceeded quota"):
		return fmt.Sprintf("a larger ResourceQuota in %s, or fewer pods: coordinator k8s scale %s --replicas N", job.Namespace, job.Name)
	case strings.Contains(text, "serviceaccount"):
		return "kubectl apply -k k8s/base makes the ServiceAccount kelvin-replica"
	case strings.Contains(text, "PodSecurity"):
		return "the namespace forbids such pods: compare the Job with `coordinator k8s render`"
	}
	return "kubectl describe job " + job.Name + " -n " + job.Namespace
}

// judgePod fills in the state, and says what is in the way, nil for nothing.
func judgePod(job *batch.Job, p *core.Pod, out *Pod, warned map[string]string) *Finding {
	found := func(what, fix string) *Finding {
		out.Why = what
		return &Finding{What: what, Fix: fix}
	}
	describe := fmt.Sprintf("kubectl describe pod %s -n %s", p.Name, p.Namespace)
	logs := fmt.Sprintf("kubectl logs %s -n %s", p.Name, p.Namespace)
	var status core.ContainerStatus
	if len(p.Status.ContainerStatuses) > 0 {
		status = p.Status.ContainerStatuses[0]
	}
	switch ended := status.State.Terminated; {
	case p.DeletionTimestamp != nil:
		out.State = "ending"
		return nil
	case p.Status.Phase == core.PodSucceeded:
		out.State = "succeeded"
		return nil
	case p.Status.Phase == core.PodFailed:
		out.State = "failed"
		if ended == nil {
			return found(cmp.Or(oneLine(p.Status.Message), p.Status.Reason, "it was ended by the cluster"), describe)
		}
		what, fix := exit(ended, logs)
		out.Why = what
		if fix == "" {
			return nil
		}
		return found(what, fix)
	}
	for _, c := range p.Status.Conditions {
		if c.Type != core.PodScheduled || c.Status != core.ConditionFalse {
			continue
		}
		out.State = "pending"
		if c.Reason == core.PodReasonSchedulingGated {
			return found("it is held back by a gate", "whoever set it has to take it away: a queue admits the Job first")
		}
		return found(unschedulable(job, c.Message))
	}
	if p.Spec.NodeName == "" {
		out.State = "pending"
		return found("no scheduler has looked at it yet", describe)
	}
	if status.Ready {
		out.State = "ready"
		return nil
	}
	if status.State.Running != nil {
		out.State = "running"
		out.Why = "it has no lease yet"
		if text := warned["Unhealthy"]; text != "" && !strings.Contains(text, "Readiness") && !strings.Contains(text, "Startup") {
			return found("it does not get on: "+text, logs)
		}
		return nil // compiling, waiting for work or for coordinators: its log says which
	}
	out.State = "starting"
	return starting(p, status.State.Waiting, warned, found, describe)
}

// starting says why a container does not start.
func starting(p *core.Pod, waiting *core.ContainerStateWaiting, warned map[string]string, found func(what, fix string) *Finding, describe string) *Finding {
	reason, message := "", ""
	if waiting != nil {
		reason, message = waiting.Reason, oneLine(waiting.Message)
	}
	switch reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable":
		return found(fmt.Sprintf("the image %s cannot be had: %s", p.Spec.Containers[0].Image, cmp.Or(message, reason)),
			"--image names another; a private registry wants imagePullSecrets in the ServiceAccount kelvin-replica")
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
		return found(fmt.Sprintf("the container cannot be made: %s", cmp.Or(message, reason)), secretFix(p, message, describe))
	}
	for _, event := range []string{"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"} {
		if text := warned[event]; text != "" {
			return found("the container cannot start: "+text, secretFix(p, text, describe))
		}
	}
	return nil // it is being made
}

// joinSecret is what `coordinator k8s token` makes unless told otherwise.
const joinSecret = "kelvin-join"

func secretFix(p *core.Pod, text, describe string) string {
	if !strings.Contains(text, "secret") {
		return describe
	}
	flags := "-n " + p.Namespace
	for _, v := range p.Spec.Volumes {
		if v.Secret != nil && v.Secret.SecretName != joinSecret {
			flags += " --secret " + v.Secret.SecretName
		}
	}
	return fmt.Sprintf("coordinator k8s token %s makes the Secret of the replicas", flags)
}

// unschedulable says in words why no node takes a pod.
func unschedulable(job *batch.Job, message string) (what, fix string) {
	text := oneLine(message)
	if _, rest, ok := strings.Cut(text, "nodes are available: "); ok {
		text, _, _ = strings.Cut(rest, " preemption: ")
	}
	text = strings.TrimSuffix(text, ".")
	scale := fmt.Sprintf("or fewer replicas: coordinator k8s scale %s --replicas N", job.Name)
	switch {
	case strings.Contains(text, "Insufficient "+nvidiaGPU):
		fix = "more nodes with GPUs, on which NVIDIA's device plugin runs, " + scale
	case strings.Contains(text, "persistentvolumeclaim") || strings.Contains(text, "PersistentVolumeClaim"):
		fix = fmt.Sprintf("kubectl get pvc -n %s: a claim must exist, and be bound", job.Namespace)
	case strings.Contains(text, "Insufficient cpu"), strings.Contains(text, "Insufficient memory"), strings.Contains(text, "Too many pods"):
		fix = "more nodes, smaller replicas (--cpu, --memory), " + scale
	case strings.Contains(text, "untolerated taint"):
		fix = "nodes without that taint, or a toleration for it in the Job"
	case strings.Contains(text, "affinity"), strings.Contains(text, "selector"):
		fix = "nodes with the labels that the pod asks for"
	default:
		fix = "more nodes, " + scale
	}
	return "no node takes it: " + text, fix
}

// exit says what an exit code means. An end that is no failure of the pod's own has no fix.
func exit(t *core.ContainerStateTerminated, logs string) (what, fix string) {
	code := fmt.Sprintf("exit code %d: ", t.ExitCode)
	switch {
	case t.Reason == "OOMKilled":
		return code + "it needed more memory than it may have", "more --memory, or a smaller experiment: `coordinator plan FILE` counts the bytes"
	case t.ExitCode == 42:
		return code + "the experiment cannot be had here, or came to a bad end", logs + "; `coordinator doctor`, in a pod of that image, says what it can run on"
	case t.ExitCode == 43:
		return code + "another program or kind of device than the other replicas'", "one image and one kind of node for all replicas; " + logs
	case t.ExitCode == 75:
		return code + "no coordinator answered", "kubectl get pods -l app.kubernetes.io/component=coordinator; " + logs
	case t.ExitCode == 143:
		return code + "it was asked to end", ""
	case t.ExitCode == 137:
		return code + "it was killed", logs
	}
	return code + cmp.Or(oneLine(t.Message), "it failed"), logs
}
