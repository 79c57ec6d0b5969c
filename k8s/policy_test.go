package k8s_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// workload is something that makes pods.
type workload struct {
	object
	pod  core.PodTemplateSpec
	runs bool // on and on, so that it must be looked after
}

func workloads(os []object) []workload {
	var out []workload
	for _, o := range os {
		switch w := o.any.(type) {
		case *apps.StatefulSet:
			out = append(out, workload{o, w.Spec.Template, true})
		case *batch.Job:
			out = append(out, workload{o, w.Spec.Template, true})
		case *jobSet:
			out = append(out, workload{o, w.Spec.ReplicatedJobs[0].Template.Spec.Template, true})
		case *batch.CronJob:
			out = append(out, workload{o, w.Spec.JobTemplate.Spec.Template, false})
		}
	}
	return out
}

// jobOf is the Job of replicas that an object is, or is about.
func jobOf(o object) *batch.JobSpec {
	switch w := o.any.(type) {
	case *batch.Job:
		return &w.Spec
	case *jobSet:
		return &w.Spec.ReplicatedJobs[0].Template.Spec
	}
	return nil
}

func is(b *bool, want bool) bool { return b != nil && *b == want }

// TestPodsAreRestricted checks what the standard "restricted" asks for, and some more.
func TestPodsAreRestricted(t *testing.T) {
	for _, w := range workloads(all(t)) {
		bad := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%s: %s", w.where, fmt.Sprintf(format, args...))
		}
		p := w.pod.Spec
		s := p.SecurityContext
		if s == nil || !is(s.RunAsNonRoot, true) || s.RunAsUser == nil || *s.RunAsUser == 0 || s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
			bad("the pod is not confined: %+v", s)
		}
		if p.HostNetwork || p.HostPID || p.HostIPC || p.NodeName != "" {
			bad("it is at home on its node")
		}
		if p.ServiceAccountName == "" || p.ServiceAccountName == "default" {
			bad("service account %q, want one of its own", p.ServiceAccountName)
		}
		if !is(p.EnableServiceLinks, false) {
			bad("services get into its environment")
		}
		for _, v := range p.Volumes {
			switch {
			case v.EmptyDir != nil:
				if v.EmptyDir.SizeLimit == nil {
					bad("volume %s has no limit", v.Name)
				}
			case v.Secret != nil:
				if v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440 {
					bad("volume %s can be read by all", v.Name)
				}
			case v.Projected != nil:
				if v.Projected.DefaultMode == nil || *v.Projected.DefaultMode != 0o440 {
					bad("volume %s can be read by all", v.Name)
				}
			case v.PersistentVolumeClaim != nil:
			default:
				bad("volume %s is of a kind that the standard forbids", v.Name)
			}
		}
		for _, c := range slices.Concat(p.InitContainers, p.Containers) {
			sc := c.SecurityContext
			if sc == nil || !is(sc.AllowPrivilegeEscalation, false) || !is(sc.ReadOnlyRootFilesystem, true) || sc.Privileged != nil && *sc.Privileged ||
				sc.Capabilities == nil || !slices.Equal(sc.Capabilities.Drop, []core.Capability{"ALL"}) || len(sc.Capabilities.Add) > 0 {
				bad("container %s is not confined: %+v", c.Name, sc)
			}
			if _, tag, ok := strings.Cut(c.Image, ":"); !ok || tag == "" || strings.HasPrefix(tag, "latest") {
				bad("image %q, want one with a version", c.Image)
			}
			for _, name := range []core.ResourceName{core.ResourceCPU, core.ResourceMemory} {
				limit, request := c.Resources.Limits[name], c.Resources.Requests[name]
				if limit.IsZero() || request.IsZero() || request.Cmp(limit) > 0 {
					bad("container %s: %s: request %s, limit %s", c.Name, name, &request, &limit)
				}
				if name == core.ResourceMemory && request.Cmp(limit) != 0 {
					bad("container %s: memory that was not asked for can be taken away: request %s, limit %s", c.Name, &request, &limit)
				}
			}
			gpus, asked := c.Resources.Limits["nvidia.com/gpu"], c.Resources.Requests["nvidia.com/gpu"]
			if gpus.Cmp(asked) != 0 {
				bad("container %s: GPUs: request %s, limit %s", c.Name, &asked, &gpus)
			}
			if !gpus.IsZero() && !strings.HasSuffix(c.Image, "-cuda13") {
				bad("container %s has a GPU and the image %s", c.Name, c.Image)
			}
			if w.runs && (c.StartupProbe == nil || c.LivenessProbe == nil || c.ReadinessProbe == nil) {
				bad("container %s is not looked after: want a probe of each kind", c.Name)
			}
			secret := regexp.MustCompile(`(?i)token|secret|password|key`)
			for _, e := range c.Env {
				if e.Value != "" && secret.MatchString(e.Name) {
					bad("container %s: %s is written down", c.Name, e.Name)
				}
			}
			for _, arg := range c.Args {
				if flag, _, _ := strings.Cut(arg, "="); secret.MatchString(flag) && !strings.HasSuffix(flag, "-file") && flag != "--tls-key" {
					bad("container %s: %s is written down", c.Name, arg)
				}
			}
			ports := map[string]bool{}
			for _, p := range c.Ports {
				ports[p.Name] = true
			}
			for _, probe := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				if probe != nil && !ports[probe.HTTPGet.Port.StrVal] {
					bad("container %s: a probe of a port that it does not have: %s", c.Name, probe.HTTPGet.Port.String())
				}
			}
		}
	}
}

// TestRights checks that no pod may do anything in the cluster but the one that renews the token, which may change that.
func TestRights(t *testing.T) {
	for _, w := range workloads(all(t)) {
		_, renews := w.any.(*batch.CronJob)
		if !is(w.pod.Spec.AutomountServiceAccountToken, renews) {
			t.Errorf("%s: automountServiceAccountToken: want %t", w.where, renews)
		}
	}
	for _, o := range all(t) {
		switch v := o.any.(type) {
		case *core.ServiceAccount:
			if !is(v.AutomountServiceAccountToken, false) {
				t.Errorf("%s: pods get its token without asking", o.where)
			}
		case *rbac.Role:
			for _, r := range v.Rules {
				if !slices.Equal(r.Resources, []string{"secrets"}) || !slices.Equal(r.ResourceNames, []string{"kelvin-join"}) || !slices.Equal(r.Verbs, []string{"patch"}) {
					t.Errorf("%s: %v, want the right to change one Secret", o.where, r)
				}
			}
		}
	}
}

// kindOf is the kind of an object.
func kindOf(o object) string {
	return o.any.(interface{ GetObjectKind() schema.ObjectKind }).GetObjectKind().GroupVersionKind().Kind
}

func TestObjectsAreMarked(t *testing.T) {
	for _, o := range all(t) {
		m := o.meta()
		_, isNamespace := o.any.(*core.Namespace)
		cluster := slices.Contains([]string{"ClusterQueue", "ResourceFlavor"}, kindOf(o))
		if want := "kelvin"; !isNamespace && !cluster && m.GetNamespace() != want {
			t.Errorf("%s: namespace %q, want %q", o.where, m.GetNamespace(), want)
		}
		if m.GetLabels()["app.kubernetes.io/name"] != "kelvin" && !isNamespace {
			t.Errorf("%s: labels %v, want app.kubernetes.io/name: kelvin", o.where, m.GetLabels())
		}
		if n, ok := o.any.(*core.Namespace); ok && n.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
			t.Errorf("%s: labels %v, want restricted pods", o.where, n.Labels)
		}
	}
}

func selects(t *testing.T, s *meta.LabelSelector, pod core.PodTemplateSpec) bool {
	t.Helper()
	selector, err := meta.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(labels.Set(pod.Labels))
}

// TestCoordinatorsFindEachOther checks the names, which are written down in several places.
func TestCoordinatorsFindEachOther(t *testing.T) {
	for _, dir := range kustomizations {
		os := objects(t, dir)
		for _, o := range os {
			set, ok := o.any.(*apps.StatefulSet)
			if !ok {
				continue
			}
			bad := func(format string, args ...any) {
				t.Helper()
				t.Errorf("%s: %s", o.where, fmt.Sprintf(format, args...))
			}
			n := int(*set.Spec.Replicas)
			c := set.Spec.Template.Spec.Containers[0]
			flags := map[string]string{}
			for _, arg := range c.Args {
				name, value, _ := strings.Cut(arg, "=")
				flags[name] = value
			}
			names := func(port string) string {
				var all []string
				for i := range n {
					all = append(all, fmt.Sprintf("%s-%d.%s.$(POD_NAMESPACE).svc:%s", set.Name, i, set.Spec.ServiceName, port))
				}
				return strings.Join(all, ",")
			}
			if flags["--bootstrap-expect"] != fmt.Sprint(n) || flags["--peers"] != names("7000") {
				bad("%d coordinators; --bootstrap-expect=%s --peers=%s", n, flags["--bootstrap-expect"], flags["--peers"])
			}
			if flags["--nats-url"] == "" && flags["--nats-routes"] != names("6222") {
				bad("%d coordinators; --nats-routes=%s", n, flags["--nats-routes"])
			}
			if (flags["--nats-url"] == "") != (flags["--nats-listen"] != "") {
				bad("want message servers of its own or others': %v", flags)
			}
			if set.Spec.PodManagementPolicy != apps.ParallelPodManagement {
				bad("they wait for each other")
			}
			if p := set.Spec.PersistentVolumeClaimRetentionPolicy; p == nil || p.WhenDeleted != apps.RetainPersistentVolumeClaimRetentionPolicyType || p.WhenScaled != apps.RetainPersistentVolumeClaimRetentionPolicyType {
				bad("the data does not stay")
			}
			mounts := map[string]string{}
			for _, m := range c.VolumeMounts {
				mounts[m.Name] = m.MountPath
			}
			for _, claim := range set.Spec.VolumeClaimTemplates {
				if path := mounts[claim.Name]; path == "" || path != flags["--data-dir"] && path != flags["--blob-dir"] {
					bad("volume %s is at %q, which no flag names", claim.Name, path)
				}
			}
			// Handing over takes five seconds, ending requests ten.
			grace, stop := *set.Spec.Template.Spec.TerminationGracePeriodSeconds, c.Lifecycle.PreStop.Sleep.Seconds
			if grace < stop+5+10+5 {
				bad("a grace of %d s, after a pause of %d s, is too little to end in good order", grace, stop)
			}
			checkServices(t, set, os)
		}
	}
}

func checkServices(t *testing.T, set *apps.StatefulSet, os []object) {
	t.Helper()
	ports := map[string]int32{}
	for _, p := range set.Spec.Template.Spec.Containers[0].Ports {
		ports[p.Name] = p.ContainerPort
	}
	headless, budget, clients := false, false, false
	for _, o := range os {
		switch v := o.any.(type) {
		case *core.Service:
			if !labels.SelectorFromSet(v.Spec.Selector).Matches(labels.Set(set.Spec.Template.Labels)) {
				t.Errorf("%s: selects no coordinator: %v", o.where, v.Spec.Selector)
			}
			for _, p := range v.Spec.Ports {
				if ports[p.TargetPort.StrVal] != p.Port {
					t.Errorf("%s: port %s is %d, which coordinators do not have", o.where, p.Name, p.Port)
				}
			}
			if v.Name == set.Spec.ServiceName {
				headless = v.Spec.ClusterIP == core.ClusterIPNone && v.Spec.PublishNotReadyAddresses
			} else {
				clients = !v.Spec.PublishNotReadyAddresses
			}
		case *policy.PodDisruptionBudget:
			budget = selects(t, v.Spec.Selector, set.Spec.Template) && v.Spec.MaxUnavailable != nil && *v.Spec.MaxUnavailable == intstr.FromInt32(1) &&
				*set.Spec.Replicas-1 > *set.Spec.Replicas/2
		}
	}
	if !headless || !budget || !clients {
		t.Errorf("%s: names before it is ready %t, a majority left by drains %t, a service of ready ones %t: want all", set.Name, headless, budget, clients)
	}
}

// TestNetwork checks who may talk to whom in the namespace of the coordinators.
func TestNetwork(t *testing.T) {
	for _, dir := range []string{"base", "overlays/dev", "overlays/prod", "overlays/slow-disk", "examples/external-nats"} {
		os := objects(t, dir)
		var policies []*networking.NetworkPolicy
		denied := false
		for _, o := range os {
			if p, ok := o.any.(*networking.NetworkPolicy); ok {
				policies = append(policies, p)
				denied = denied || len(p.Spec.PodSelector.MatchLabels)+len(p.Spec.PodSelector.MatchExpressions)+len(p.Spec.Ingress)+len(p.Spec.Egress) == 0 &&
					slices.Equal(p.Spec.PolicyTypes, []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress})
			}
		}
		if !denied {
			t.Errorf("%s: nothing is denied by default", dir)
		}
		pod := func(component string) core.PodTemplateSpec {
			return core.PodTemplateSpec{ObjectMeta: meta.ObjectMeta{Labels: map[string]string{
				"app.kubernetes.io/name": "kelvin", "app.kubernetes.io/component": component, "app.kubernetes.io/instance": "some"}}}
		}
		stranger := core.PodTemplateSpec{ObjectMeta: meta.ObjectMeta{Labels: map[string]string{"app": "web"}}}
		own := dir != "examples/external-nats" // message servers
		for _, tc := range []struct {
			from, to core.PodTemplateSpec
			port     int32
			want     bool
		}{
			{pod("coordinator"), pod("coordinator"), 7000, true},
			{pod("coordinator"), pod("coordinator"), 6222, true},
			{pod("replica"), pod("coordinator"), 8443, true},
			{pod("replica"), pod("coordinator"), 4222, true},
			{pod("client"), pod("coordinator"), 8443, true},
			{pod("client"), pod("coordinator"), 4222, false},
			{pod("replica"), pod("coordinator"), 7000, false},
			{pod("replica"), pod("coordinator"), 6222, false},
			{pod("replica"), pod("replica"), 8081, false},
			{pod("coordinator"), pod("replica"), 8081, false},
			{stranger, pod("coordinator"), 8443, false},
			{stranger, pod("coordinator"), 7000, false},
		} {
			if got := reaches(t, policies, tc.from, tc.to, tc.port); got != tc.want {
				t.Errorf("%s: %v to port %d of %v: %t, want %t", dir, tc.from.Labels, tc.port, tc.to.Labels, got, tc.want)
			}
		}
		if outside := slices.ContainsFunc(policies, func(p *networking.NetworkPolicy) bool { return p.Name == "kelvin-nats" }); outside == own {
			t.Errorf("%s: a way to message servers elsewhere: %t", dir, outside)
		}
	}
}

// reaches says whether the policies let one pod of the namespace reach a port of another.
func reaches(t *testing.T, policies []*networking.NetworkPolicy, from, to core.PodTemplateSpec, port int32) bool {
	t.Helper()
	open := func(ports []networking.NetworkPolicyPort) bool {
		return len(ports) == 0 || slices.ContainsFunc(ports, func(p networking.NetworkPolicyPort) bool { return p.Port.IntVal == port })
	}
	meets := func(peers []networking.NetworkPolicyPeer, pod core.PodTemplateSpec) bool {
		return len(peers) == 0 || slices.ContainsFunc(peers, func(p networking.NetworkPolicyPeer) bool {
			return p.NamespaceSelector == nil && p.PodSelector != nil && selects(t, p.PodSelector, pod)
		})
	}
	out, in := false, false
	for _, p := range policies {
		if selects(t, &p.Spec.PodSelector, from) {
			for _, r := range p.Spec.Egress {
				out = out || open(r.Ports) && meets(r.To, to)
			}
		}
		if selects(t, &p.Spec.PodSelector, to) {
			for _, r := range p.Spec.Ingress {
				in = in || open(r.Ports) && meets(r.From, from)
			}
		}
	}
	return out && in
}

// TestReplicaJobs checks the rules by which pods of replicas are replaced or not.
func TestReplicaJobs(t *testing.T) {
	found := 0
	for _, o := range all(t) {
		j := jobOf(o)
		if j == nil {
			continue
		}
		found++
		bad := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%s: %s", o.where, fmt.Sprintf(format, args...))
		}
		if j.CompletionMode == nil || *j.CompletionMode != batch.IndexedCompletion || j.Completions == nil || j.Parallelism == nil || *j.Completions != *j.Parallelism {
			bad("want as many indexes as pods at a time")
		}
		if j.PodReplacementPolicy == nil || *j.PodReplacementPolicy != batch.Failed {
			bad("two pods of one index may run side by side")
		}
		if j.BackoffLimitPerIndex == nil || j.MaxFailedIndexes == nil || *j.MaxFailedIndexes > *j.Completions || j.Template.Spec.RestartPolicy != core.RestartPolicyNever {
			bad("want indexes that fail one by one, in new pods")
		}
		for _, tc := range []struct {
			code    int32
			evicted bool
			want    batch.PodFailurePolicyAction // "": counted, and tried again
		}{
			{1, false, ""}, {1, true, batch.PodFailurePolicyActionIgnore}, {42, false, batch.PodFailurePolicyActionFailIndex}, {43, false, batch.PodFailurePolicyActionFailIndex},
			{75, false, ""}, {137, false, ""}, {137, true, batch.PodFailurePolicyActionIgnore}, {143, false, batch.PodFailurePolicyActionIgnore},
		} {
			if got := verdict(j.PodFailurePolicy, tc.code, tc.evicted); got != tc.want {
				bad("exit code %d, evicted %t: %q, want %q", tc.code, tc.evicted, got, tc.want)
			}
		}
		if grace := j.Template.Spec.TerminationGracePeriodSeconds; grace == nil || *grace < 30 {
			bad("less than 30 s to leave in good order")
		}
	}
	if found < 4 {
		t.Errorf("%d Jobs of replicas, want those of the examples", found)
	}
}

// verdict is what the first rule that fits says of a pod that failed.
func verdict(p *batch.PodFailurePolicy, code int32, evicted bool) batch.PodFailurePolicyAction {
	for _, r := range p.Rules {
		if r.OnExitCodes != nil && slices.Contains(r.OnExitCodes.Values, code) {
			return r.Action
		}
		if evicted && slices.ContainsFunc(r.OnPodConditions, func(c batch.PodFailurePolicyOnPodConditionsPattern) bool { return c.Type == core.DisruptionTarget }) {
			return r.Action
		}
	}
	return ""
}

// TestCertificates checks that cert-manager's certificates are those that coordinators ask for, and lie where the flags say.
func TestCertificates(t *testing.T) {
	os := objects(t, "overlays/prod")
	secrets := map[string]*certificate{}
	for _, o := range os {
		if c, ok := o.any.(*certificate); ok {
			secrets[c.Spec.SecretName] = c
		}
	}
	for _, w := range workloads(os) {
		set, ok := w.any.(*apps.StatefulSet)
		if !ok {
			continue
		}
		files := map[string]string{}
		for _, v := range w.pod.Spec.Volumes {
			if v.Name != "tls" {
				continue
			}
			for _, s := range v.Projected.Sources {
				for _, item := range s.Secret.Items {
					files[item.Path] = s.Secret.Name
				}
			}
		}
		for i := range int(*set.Spec.Replicas) {
			name := fmt.Sprintf("%s-%d", set.Name, i)
			c := secrets[files[name+".pem"]]
			if c == nil || files[name+"-key.pem"] != c.Spec.SecretName {
				t.Errorf("%s has no certificate: %v", name, files)
				continue
			}
			host := fmt.Sprintf("%s.%s.kelvin.svc", name, set.Spec.ServiceName)
			if !slices.Equal(c.Spec.URIs, []string{"kelvin://kelvin/coordinator/" + name}) || !slices.Contains(c.Spec.DNSNames, host) || !slices.Contains(c.Spec.DNSNames, "kelvin.kelvin.svc") {
				t.Errorf("%s: certificate for %v, %v", name, c.Spec.URIs, c.Spec.DNSNames)
			}
		}
		if files["ca.pem"] == "" {
			t.Errorf("no authority: %v", files)
		}
	}
}
