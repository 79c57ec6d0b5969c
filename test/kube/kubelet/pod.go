//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// pod runs one pod, from when it is bound to a node until it is gone.
type pod struct {
	k      *Kubelet
	node   *node
	object *core.Pod // as it was at first: its specification does not change
	log    *slog.Logger
	dir    string
	gone   chan struct{} // closed when nothing of it runs any more and all is said of it

	// Two steps down: containers are asked to end when ending is done, and killed when killed is.
	ending, killed context.Context
	end, kill      context.CancelFunc
	dismissed      chan struct{} // closed when the object is to go, or has gone
	dismiss        func()

	changed   chan struct{} // has one element while a status must be written
	refreshed chan struct{} // the same while a volume may have another content

	sandbox *sandbox // set once, before containers run
	volumes *volumes
	main    []*container

	mu         sync.Mutex
	latest     *core.Pod // as it was last seen
	deadline   time.Time // when killed will be done; zero: nothing ends it yet
	killing    *time.Timer
	silent     bool // nothing is to be said to the API server: the Kubelet ends, or the pod is not there any more
	started    meta.Time
	ended      bool
	failure    string
	message    string
	conditions []core.PodCondition
}

// retry is how long it takes to look again for what was missing. A change of it that is seen is quicker.
const retry = time.Second

func newPod(k *Kubelet, n *node, object *core.Pod) *pod {
	p := &pod{
		k: k, node: n, object: object, latest: object,
		log:  k.log.With("pod", object.Namespace+"/"+object.Name),
		dir:  filepath.Join(k.config.Dir, "pods", string(object.UID)),
		gone: make(chan struct{}), changed: make(chan struct{}, 1), refreshed: make(chan struct{}, 1),
		started: meta.Now(), conditions: object.Status.Conditions,
	}
	if t := object.Status.StartTime; t != nil {
		p.started = *t
	}
	p.ending, p.end = context.WithCancel(context.Background())
	p.killed, p.kill = context.WithCancel(context.Background())
	p.dismissed = make(chan struct{})
	p.dismiss = sync.OnceFunc(func() { close(p.dismissed) })
	for i := range object.Spec.Containers {
		p.main = append(p.main, newContainer(p, &object.Spec.Containers[i]))
	}
	return p
}

// see takes note of a newer version of the pod.
func (p *pod) see(object *core.Pod) {
	p.mu.Lock()
	p.latest = object
	p.mu.Unlock()
	if object.DeletionTimestamp != nil && object.DeletionGracePeriodSeconds != nil {
		p.endWithin(time.Duration(*object.DeletionGracePeriodSeconds) * time.Second)
		p.dismiss()
	}
	p.refresh()
}

// endWithin asks the containers to end, and kills those that have not when the grace is over. Of several graces the earliest end holds.
func (p *pod) endWithin(grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Now().Add(grace)
	if p.deadline.IsZero() {
		p.deadline, p.killing = at, time.AfterFunc(grace, p.kill)
	} else if at.Before(p.deadline) {
		p.deadline = at
		p.killing.Reset(grace)
	}
	p.end()
}

// abandon kills at once, and has nothing more said of the pod.
func (p *pod) abandon() {
	p.mu.Lock()
	p.silent = true
	p.mu.Unlock()
	p.kill()
	p.end()
	p.dismiss()
}

func (p *pod) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (p *pod) change()  { notify(p.changed) }
func (p *pod) refresh() { notify(p.refreshed) }

// update changes what the status is made of.
func (p *pod) update(change func()) {
	p.mu.Lock()
	change()
	p.mu.Unlock()
	p.change()
}

// run is the life of the pod.
func (p *pod) run() {
	defer close(p.gone)
	defer p.kill() // the timer has nothing left to do
	p.see(p.object)
	if !terminal(p.object.Status.Phase) {
		p.live()
	}
	<-p.dismissed // until then its status can be seen
	p.delete()
}

// live runs the containers, and returns when none of them will run again and the last status is written.
func (p *pod) live() {
	stop := make(chan struct{})
	var upkeep sync.WaitGroup
	if err := p.prepare(); err == nil {
		upkeep.Go(func() { p.keep(stop) })
		p.change()
		p.runContainers()
	}
	close(stop)
	upkeep.Wait()
	p.mu.Lock()
	for _, c := range p.main {
		c.settle()
	}
	p.ended = true
	p.mu.Unlock()
	p.writeStatusUntilDone()
	if p.sandbox != nil {
		p.sandbox.Close()
	}
	if err := os.RemoveAll(p.dir); err != nil {
		p.log.WarnContext(p.k.life, "folder of a pod left", "err", err)
	}
}

func (p *pod) runContainers() {
	var all sync.WaitGroup
	for _, c := range p.main {
		all.Go(c.run)
	}
	all.Wait()
}

// prepare makes what containers need. An error: there will be none.
func (p *pod) prepare() error {
	if err := unsupported(&p.object.Spec); err != nil {
		p.update(func() { p.failure, p.message = "Unsupported", err.Error() })
		return err
	}
	err := os.MkdirAll(p.dir, 0o755)
	if err == nil {
		err = p.openSandbox()
	}
	if err == nil {
		err = p.writeEtc()
	}
	if err != nil {
		p.event(core.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
		p.update(func() { p.failure, p.message = "FailedCreatePodSandBox", err.Error() })
		return err
	}
	p.volumes = &volumes{
		k: p.k, dir: filepath.Join(p.dir, "volumes"), paths: map[string]string{}, written: map[string][]projected{}, tokens: map[string]token{},
		facts: podFacts{pod: p.object, ip: p.sandbox.ip.String()},
	}
	p.writeStatus()
	for said := ""; ; {
		err := p.volumes.set(p.ending)
		if err == nil || p.ending.Err() != nil {
			return context.Cause(p.ending)
		}
		if err.Error() != said {
			said = err.Error()
			p.event(core.EventTypeWarning, "FailedMount", "%s", said)
		}
		p.await(p.refreshed, retry)
	}
}

func (p *pod) openSandbox() error {
	sandbox, err := p.k.network.sandbox(hostname(p.object))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sandbox = sandbox
	return err
}

// await waits for a notice, for so long at most, and not beyond the beginning of the pod's end.
func (p *pod) await(notice <-chan struct{}, atMost time.Duration) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-notice:
	case <-timer.C:
	case <-p.ending.Done():
	}
}

// keep writes the status when it changes, and brings projected volumes up to date, until stop is closed.
func (p *pod) keep(stop <-chan struct{}) {
	ticker := time.NewTicker(10 * time.Second) // for tokens, which grow old unseen
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-p.changed:
			if err := p.writeStatus(); err != nil {
				p.log.WarnContext(p.k.life, "status of a pod not written", "err", err)
				time.AfterFunc(retry, p.change)
			}
			continue
		case <-p.refreshed:
		case <-ticker.C:
		}
		if err := p.volumes.set(p.k.life); err != nil {
			// As a kubelet does: the volume stays as it is.
			p.event(core.EventTypeWarning, "FailedMount", "%v", err)
		}
	}
}

// writeStatus tells the API server. That the pod is not there is no error.
func (p *pod) writeStatus() error {
	p.mu.Lock()
	if p.silent {
		p.mu.Unlock()
		return nil
	}
	s := snapshot{object: p.latest, nodeIP: p.k.HostIP(), started: p.started, ended: p.ended, failure: p.failure, message: p.message, before: p.conditions, now: meta.Now()}
	if p.sandbox != nil {
		s.ip = p.sandbox.ip.String()
	}
	for _, c := range p.main {
		s.main = append(s.main, *c.status.DeepCopy())
	}
	status := s.status()
	p.conditions = status.Conditions
	p.mu.Unlock()
	text, err := patch(s.object, status)
	if err != nil {
		return err
	}
	_, err = p.k.client.CoreV1().Pods(s.object.Namespace).Patch(p.k.life, s.object.Name, types.StrategicMergePatchType, text, meta.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // another pod has the name by now
		return nil
	}
	return err
}

// writeStatusUntilDone is for the last status: without it a Job would wait for ever.
func (p *pod) writeStatusUntilDone() { p.persist("last status of a pod not written", p.writeStatus) }

// delete removes the object of a pod that was to end and has.
func (p *pod) delete() {
	p.mu.Lock()
	object := p.latest
	p.mu.Unlock()
	p.persist("pod not deleted", func() error {
		err := p.k.client.CoreV1().Pods(object.Namespace).Delete(p.k.life, object.Name,
			meta.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: meta.NewUIDPreconditions(string(object.UID))})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}

// persist tries until it works, or is of no use any more.
func (p *pod) persist(complaint string, try func() error) {
	for !p.isSilent() && p.k.life.Err() == nil {
		err := try()
		if err == nil {
			return
		}
		p.log.WarnContext(p.k.life, complaint, "err", err)
		select {
		case <-p.k.life.Done():
		case <-time.After(retry):
		}
	}
}

func (p *pod) event(kind, reason, format string, args ...any) {
	if !p.isSilent() {
		p.k.events.Eventf(p.object, kind, reason, format, args...)
	}
}

// unsupported names what a pod asks for that is not had here: better than something else in its place.
func unsupported(spec *core.PodSpec) error {
	var errs []error
	refuse := func(when bool, what string) {
		if when {
			errs = append(errs, fmt.Errorf("%s: not supported on these nodes", what))
		}
	}
	refuse(spec.HostNetwork || spec.HostPID || spec.HostIPC, "namespaces of the host")
	refuse(spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace, "shareProcessNamespace")
	refuse(spec.DNSPolicy != core.DNSClusterFirst && spec.DNSPolicy != "" || spec.DNSConfig != nil, "DNS settings of the pod's own")
	refuse(len(spec.HostAliases) > 0, "hostAliases")
	refuse(len(spec.InitContainers) > 0, "initContainers")
	refuse(spec.ActiveDeadlineSeconds != nil, "activeDeadlineSeconds")
	for _, v := range spec.Volumes {
		refuse(!isProjected(&v) && v.EmptyDir == nil && v.PersistentVolumeClaim == nil, "the kind of volume "+v.Name)
	}
	for _, c := range spec.Containers {
		refuse(len(c.EnvFrom) > 0, "envFrom of container "+c.Name)
		refuse(c.Lifecycle != nil && (c.Lifecycle.PostStart != nil || c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Sleep == nil), "a hook of container "+c.Name)
		for _, m := range c.VolumeMounts {
			refuse(m.SubPath != "" || m.SubPathExpr != "", "subPath of container "+c.Name)
		}
		for _, probe := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			refuse(probe != nil && (probe.HTTPGet == nil || probe.TerminationGracePeriodSeconds != nil), "a probe of container "+c.Name)
		}
	}
	return errors.Join(errs...)
}

func hostname(object *core.Pod) string {
	if object.Spec.Hostname != "" {
		return object.Spec.Hostname
	}
	return object.Name[:min(len(object.Name), 63)]
}

// etcFiles are shown in /etc of all containers.
func (p *pod) etcFiles() map[string]string {
	name, ip := hostname(p.object), p.sandbox.ip.String()
	full := name
	if p.object.Spec.Subdomain != "" {
		full = strings.Join([]string{name, p.object.Spec.Subdomain, p.object.Namespace, "svc", clusterDomain}, ".") + "\t" + name
	}
	return map[string]string{
		"hostname": name + "\n",
		"hosts":    "127.0.0.1\tlocalhost\n" + ip + "\t" + full + "\n",
		"resolv.conf": fmt.Sprintf("search %s.svc.%s svc.%s %s\nnameserver %s\noptions ndots:5\n",
			p.object.Namespace, clusterDomain, clusterDomain, clusterDomain, p.k.HostIP()),
		"nsswitch.conf": "hosts: files dns\n",
		"passwd":        "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
		"group":         "root:x:0:\nnogroup:x:65534:\n",
	}
}

func (p *pod) writeEtc() error {
	dir := filepath.Join(p.dir, "etc")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range p.etcFiles() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
