//go:build linux

package kubelet

import (
	"encoding/json"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// snapshot is what the status of a pod is worked out from.
type snapshot struct {
	object  *core.Pod
	nodeIP  string
	ip      string // "": no sandbox
	started meta.Time
	main    []core.ContainerStatus
	ended   bool   // nothing of it will run again
	failure string // why it failed as a whole, a reason; "" if it did not
	message string
	before  []core.PodCondition // for the times at which they changed
	now     meta.Time
}

// status is what a kubelet would report.
func (s snapshot) status() core.PodStatus {
	out := core.PodStatus{
		Phase:              s.phase(),
		Reason:             s.failure,
		Message:            s.message,
		HostIP:             s.nodeIP,
		HostIPs:            []core.HostIP{{IP: s.nodeIP}},
		StartTime:          &s.started,
		ContainerStatuses:  s.main,
		ObservedGeneration: s.object.Generation,
	}
	if s.ip != "" {
		out.PodIP, out.PodIPs = s.ip, []core.PodIP{{IP: s.ip}}
	}
	ready := len(s.main) > 0
	for _, c := range s.main {
		ready = ready && c.Ready
	}
	why := ""
	switch {
	case out.Phase == core.PodSucceeded:
		ready, why = false, "PodCompleted"
	case out.Phase == core.PodFailed:
		ready, why = false, "PodFailed"
	case !ready:
		why = "ContainersNotReady"
	}
	out.Conditions = []core.PodCondition{
		s.condition(core.PodReadyToStartContainers, s.ip != "", ""),
		s.condition(core.PodInitialized, true, ""),
		s.condition(core.PodReady, ready, why),
		s.condition(core.ContainersReady, ready, why),
	}
	return out
}

func (s snapshot) condition(kind core.PodConditionType, holds bool, reason string) core.PodCondition {
	c := core.PodCondition{Type: kind, Status: core.ConditionFalse, Reason: reason, LastTransitionTime: s.now, ObservedGeneration: s.object.Generation}
	if holds {
		c.Status = core.ConditionTrue
	}
	for _, b := range s.before {
		if b.Type == kind && b.Status == c.Status {
			c.LastTransitionTime = b.LastTransitionTime
		}
	}
	return c
}

func (s snapshot) phase() core.PodPhase {
	if s.failure != "" && s.ended {
		return core.PodFailed
	}
	waiting, failed := false, false
	for _, c := range s.main {
		switch t := c.State.Terminated; {
		case t != nil:
			failed = failed || t.ExitCode != 0
		case c.State.Waiting != nil:
			waiting = waiting || c.LastTerminationState.Terminated == nil
		}
	}
	switch {
	case s.ended && failed:
		return core.PodFailed
	case s.ended:
		return core.PodSucceeded
	case waiting:
		return core.PodPending
	}
	return core.PodRunning
}

// terminal says that a pod will not run again.
func terminal(phase core.PodPhase) bool { return phase == core.PodSucceeded || phase == core.PodFailed }

// patch changes the status of this very pod, and not of another with its name. Conditions of others' stay; those given lose a
// reason that they had before.
func patch(object *core.Pod, status core.PodStatus) ([]byte, error) {
	type condition struct {
		core.PodCondition
		Reason *string `json:"reason"`
	}
	var conditions []condition
	for _, c := range status.Conditions {
		conditions = append(conditions, condition{PodCondition: c})
		if c.Reason != "" {
			conditions[len(conditions)-1].Reason = &c.Reason
		}
	}
	type shown struct {
		core.PodStatus
		Conditions []condition `json:"conditions"`
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{"uid": object.UID}, "status": shown{status, conditions}})
}
