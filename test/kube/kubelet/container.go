//go:build linux

package kubelet

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// container runs one container of a pod, again and again if its policy says so.
type container struct {
	pod  *pod
	spec *core.Container

	// The pod's mu guards these.
	status  core.ContainerStatus
	process *process
	forced  *int // exit code to be reported, whatever the real one
}

const (
	firstBackOff   = time.Second
	longestBackOff = 20 * time.Second
	longRun        = 10 * time.Minute // after which a failure is the first one again
)

func newContainer(p *pod, spec *core.Container) *container {
	return &container{pod: p, spec: spec, status: core.ContainerStatus{
		Name: spec.Name, Image: spec.Image, Started: new(false),
		State: core.ContainerState{Waiting: &core.ContainerStateWaiting{Reason: "ContainerCreating"}},
	}}
}

// settle gives a container that never ran an end, as its pod has one. The pod's mu is held.
func (c *container) settle() {
	if c.status.State.Terminated == nil {
		c.status.State = core.ContainerState{Terminated: &core.ContainerStateTerminated{
			ExitCode: 137, Reason: "ContainerStatusUnknown", Message: "The container could not be located when the pod was terminated",
		}}
	}
}

// run returns when the container will not run again.
func (c *container) run() {
	backOff := time.Duration(0)
	for first := true; ; first = false {
		if !first {
			c.wait(backOff)
			backOff = min(max(2*backOff, firstBackOff), longestBackOff)
		}
		if c.pod.ending.Err() != nil {
			return
		}
		spec, log, ok := c.prepare()
		if !ok {
			return
		}
		if !first {
			c.pod.update(func() {
				c.status.RestartCount++
			})
		}
		began := time.Now()
		code := c.once(spec, log)
		log.Close()
		if !c.again(code) {
			return
		}
		if time.Since(began) > longRun {
			backOff = 0
		}
	}
}

// again says whether the container is to be started once more after this exit code.
func (c *container) again(code int) bool {
	if c.pod.ending.Err() != nil {
		return false
	}
	switch c.pod.object.Spec.RestartPolicy {
	case core.RestartPolicyNever:
		return false
	case core.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

// wait lets a back-off pass, which the status shows.
func (c *container) wait(backOff time.Duration) {
	c.pod.update(func() {
		c.status.LastTerminationState = core.ContainerState{Terminated: c.status.State.Terminated}
		if backOff > 0 {
			c.status.State = core.ContainerState{Waiting: &core.ContainerStateWaiting{Reason: "CrashLoopBackOff",
				Message: fmt.Sprintf("back-off %v restarting failed container=%s pod=%s", backOff, c.spec.Name, c.pod.object.Name)}}
		}
	})
	c.pod.await(nil, backOff)
}

// waiting says in the status why the container does not run, and waits a little.
func (c *container) waiting(reason, message string) {
	c.pod.update(func() {
		if t := c.status.State.Terminated; t != nil {
			c.status.LastTerminationState = core.ContainerState{Terminated: t}
		}
		c.status.State = core.ContainerState{Waiting: &core.ContainerStateWaiting{Reason: reason, Message: message}}
	})
	c.pod.await(nil, retry)
}

// prepare gathers what the container is started with. It waits for what is missing; not ok: the pod is ending.
func (c *container) prepare() (spec containerSpec, log *os.File, ok bool) {
	for tries := 0; c.pod.ending.Err() == nil; tries++ {
		image, known := c.pod.k.config.Images[c.spec.Image]
		if !known {
			fault := fmt.Sprintf("failed to pull image %q: %s: not found", c.spec.Image, c.spec.Image)
			if tries == 0 {
				c.pod.event(core.EventTypeWarning, "Failed", "Failed to pull image %q: %s: not found", c.spec.Image, c.spec.Image)
				c.waiting("ErrImagePull", fault)
			} else {
				c.waiting("ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", c.spec.Image, fault))
			}
			continue
		}
		spec, err := c.containerSpec(image)
		if err != nil {
			c.pod.event(core.EventTypeWarning, "Failed", "Error: %v", err)
			c.waiting("CreateContainerConfigError", err.Error())
			continue
		}
		log, err := c.pod.k.openLog(c.pod.object)
		if err != nil {
			c.waiting("CreateContainerError", err.Error())
			continue
		}
		return spec, log, true
	}
	return containerSpec{}, nil, false
}

// containerSpec puts together what Kubernetes promises to the container.
func (c *container) containerSpec(image Image) (containerSpec, error) {
	p := c.pod
	base := map[string]string{
		"PATH":     "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOSTNAME": hostname(p.object),
	}
	maps.Copy(base, p.k.apiServerEnv())
	maps.Copy(base, image.Env)
	environment, err := p.k.sources.environment(p.volumes.facts, c.spec, base)
	if err != nil {
		return containerSpec{}, err
	}
	args := expandAll(slices.Concat(c.spec.Command, c.spec.Args), environment)
	if len(args) == 0 {
		return containerSpec{}, errors.New("no command specified: images here have none of their own")
	}
	spec := containerSpec{
		Root: filepath.Join(p.dir, "root", c.spec.Name), Args: args, Env: environment, Dir: c.spec.WorkingDir,
	}
	if err := spec.secure(p.object.Spec.SecurityContext, c.spec.SecurityContext); err != nil {
		return containerSpec{}, err
	}
	for _, path := range slices.Sorted(maps.Keys(p.etcFiles())) {
		spec.Mounts = append(spec.Mounts, mount{filepath.Join(p.dir, "etc", path), filepath.Join("/etc", path), path != "hosts"})
	}
	message := c.messageFile()
	if err := os.MkdirAll(filepath.Dir(message), 0o755); err != nil {
		return containerSpec{}, err
	}
	if err := os.WriteFile(message, nil, 0o666); err != nil {
		return containerSpec{}, err
	}
	if err := os.Chmod(message, 0o666); err != nil { // whatever the umask
		return containerSpec{}, err
	}
	spec.Mounts = append(spec.Mounts, mount{message, cmp.Or(c.spec.TerminationMessagePath, core.TerminationMessagePathDefault), false})
	for path, file := range image.Binaries {
		spec.Mounts = append(spec.Mounts, mount{file, path, true})
	}
	for path, folder := range image.Mounts {
		spec.Mounts = append(spec.Mounts, mount{folder, path, true})
	}
	mounts, err := p.volumes.mounts(c.spec)
	spec.Mounts = append(spec.Mounts, mounts...)
	return spec, err
}

func (c *container) messageFile() string { return filepath.Join(c.pod.dir, "messages", c.spec.Name) }

// secure takes over the user and the rights.
func (s *containerSpec) secure(pod *core.PodSecurityContext, own *core.SecurityContext) error {
	if pod == nil {
		pod = &core.PodSecurityContext{}
	}
	if own == nil {
		own = &core.SecurityContext{}
	}
	if user := cmp.Or(own.RunAsUser, pod.RunAsUser); user != nil {
		s.User = int(*user)
	}
	if group := cmp.Or(own.RunAsGroup, pod.RunAsGroup); group != nil {
		s.Group = int(*group)
	}
	if must := cmp.Or(own.RunAsNonRoot, pod.RunAsNonRoot); must != nil && *must && s.User == 0 {
		return errors.New("container has runAsNonRoot and image will run as root")
	}
	s.Groups = []int{}
	if pod.FSGroup != nil {
		s.Groups = append(s.Groups, int(*pod.FSGroup))
	}
	for _, group := range pod.SupplementalGroups {
		s.Groups = append(s.Groups, int(group))
	}
	s.ReadOnlyRoot = own.ReadOnlyRootFilesystem != nil && *own.ReadOnlyRootFilesystem
	s.NoNewPrivs = own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation
	s.DropAll = own.Capabilities != nil && slices.Contains(own.Capabilities.Drop, "ALL")
	return nil
}

// once runs the container once and returns its exit code, which the status has too.
func (c *container) once(spec containerSpec, log *os.File) int {
	began := meta.Now()
	fmt.Fprintf(log, "--- %s container %s of pod %s starts, number %d\n", began.UTC().Format(time.RFC3339Nano), c.spec.Name, c.pod.object.UID, c.status.RestartCount)
	from, err := log.Seek(0, io.SeekEnd)
	var p *process
	if err == nil {
		p, err = c.pod.k.launcher.container(spec, c.pod.sandbox, log)
	}
	if err != nil {
		c.pod.event(core.EventTypeWarning, "Failed", "Error: %v", err)
		c.pod.update(func() {
			c.status.State = core.ContainerState{Terminated: &core.ContainerStateTerminated{
				ExitCode: setupFailed, Reason: "StartError", Message: err.Error(), StartedAt: began, FinishedAt: meta.Now()}}
		})
		return setupFailed
	}
	c.pod.update(func() {
		c.process, c.forced = p, nil
		c.status.State = core.ContainerState{Running: &core.ContainerStateRunning{StartedAt: began}}
		c.status.ContainerID, c.status.ImageID = fmt.Sprintf("processes://%d-%d", p.pid, began.UnixNano()), c.spec.Image
		c.status.Started = new(c.spec.StartupProbe == nil)
		c.status.Ready = c.spec.StartupProbe == nil && c.spec.ReadinessProbe == nil
	})
	c.supervise(p)
	ended := &core.ContainerStateTerminated{ExitCode: int32(p.code), Reason: "Completed", StartedAt: began, FinishedAt: meta.Now(), ContainerID: c.status.ContainerID}
	c.pod.update(func() {
		if c.forced != nil {
			ended.ExitCode = int32(*c.forced)
		}
		if ended.ExitCode != 0 {
			ended.Reason = "Error"
		}
		ended.Message = c.lastWords(log, from, ended.ExitCode != 0)
		c.process = nil
		c.status.State = core.ContainerState{Terminated: ended}
		c.status.Ready, c.status.Started = false, new(false)
	})
	return int(ended.ExitCode)
}

// supervise probes the container until it has ended: by itself, because it does not live any more, or with its pod.
func (c *container) supervise(p *process) {
	ctx, cancel := context.WithCancel(context.Background())
	var probes sync.WaitGroup
	defer probes.Wait()
	defer cancel()
	dead := make(chan struct{}, 1)
	probes.Go(func() { c.probe(ctx, dead) })
	select {
	case <-p.exited:
	case <-dead:
		c.stop(p, c.probeGrace())
	case <-c.pod.ending.Done():
		c.stop(p, longestGrace)
	}
}

// longestGrace leaves it to the pod when containers are killed.
const longestGrace = 365 * 24 * time.Hour

func (c *container) probeGrace() time.Duration {
	return time.Duration(*c.pod.object.Spec.TerminationGracePeriodSeconds) * time.Second
}

// probe runs the probes of a container until ctx ends: that of the start first, then the others together.
func (c *container) probe(ctx context.Context, dead chan struct{}) {
	run := func(ctx context.Context, what string, probe *core.Probe, found func(bool)) {
		try := func(ctx context.Context) error { return c.httpGet(ctx, probe.HTTPGet) }
		probing(ctx, probe, try, found, func(err error) {
			c.pod.event(core.EventTypeWarning, "Unhealthy", "%s probe failed: %v", what, err)
		})
	}
	kill := func(what string) {
		c.pod.event(core.EventTypeNormal, "Killing", "Container %s failed %s probe, will be restarted", c.spec.Name, what)
		notify(dead)
	}
	if startup := c.spec.StartupProbe; startup != nil {
		started := false
		starting, stop := context.WithCancel(ctx)
		run(starting, "Startup", startup, func(good bool) {
			if started = good; !good {
				kill("startup")
			}
			stop()
		})
		stop()
		if !started || ctx.Err() != nil {
			return
		}
		c.pod.update(func() {
			c.status.Started = new(true)
			c.status.Ready = c.spec.ReadinessProbe == nil
		})
	}
	var rest sync.WaitGroup
	defer rest.Wait()
	if liveness := c.spec.LivenessProbe; liveness != nil {
		rest.Go(func() {
			run(ctx, "Liveness", liveness, func(good bool) {
				if !good {
					kill("liveness")
				}
			})
		})
	}
	if readiness := c.spec.ReadinessProbe; readiness != nil {
		rest.Go(func() {
			run(ctx, "Readiness", readiness, func(good bool) { c.pod.update(func() { c.status.Ready = good }) })
		})
	}
}

// stop ends the process, kindly at first.
func (c *container) stop(p *process, grace time.Duration) {
	ctx, cancel := context.WithTimeout(c.pod.killed, grace)
	defer cancel()
	if l := c.spec.Lifecycle; l != nil && l.PreStop != nil {
		timer := time.NewTimer(time.Duration(l.PreStop.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.exited: // of no use any more
		case <-ctx.Done():
		}
	}
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.signal(syscall.SIGKILL)
		<-p.exited
	}
}

// lastWords are what the container wrote for those who ask why it ended; after a failure, if it wrote nothing and is allowed to, the
// end of its log.
func (c *container) lastWords(log *os.File, from int64, failed bool) string {
	const most, mostLines = 2048, 80
	text, err := os.ReadFile(c.messageFile())
	if err != nil || len(text) > 0 {
		return string(text[:min(len(text), 4096)])
	}
	if !failed || c.spec.TerminationMessagePolicy != core.TerminationMessageFallbackToLogsOnError {
		return ""
	}
	size, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	tail := make([]byte, min(size-from, most))
	if _, err := log.ReadAt(tail, size-int64(len(tail))); err != nil {
		return ""
	}
	lines := bytes.SplitAfter(tail, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-mostLines):], nil))
}
