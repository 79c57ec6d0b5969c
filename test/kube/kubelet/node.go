//go:build linux

package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	heartbeat     = 10 * time.Second
	leaseDuration = int32(40) // seconds
	nvidiaGPU     = core.ResourceName("nvidia.com/gpu")
)

// node is one of Config's, with its heartbeat.
type node struct {
	Node
	size core.ResourceList
}

func newNode(n Node) (*node, error) {
	size := core.ResourceList{
		core.ResourcePods:             resource.MustParse("110"),
		core.ResourceEphemeralStorage: resource.MustParse("100Gi"),
	}
	for name, text := range map[core.ResourceName]string{core.ResourceCPU: n.CPU, core.ResourceMemory: n.Memory} {
		q, err := resource.ParseQuantity(text)
		if err != nil || q.Sign() <= 0 {
			return nil, fmt.Errorf("node %s: %s: %q, want a quantity such as 4 or 16Gi", n.Name, name, text)
		}
		size[name] = q
	}
	if n.GPUs > 0 {
		size[nvidiaGPU] = *resource.NewQuantity(int64(n.GPUs), resource.DecimalSI)
	}
	return &node{Node: n, size: size}, nil
}

// start makes the node known and keeps it ready, until the Kubelet ends.
func (n *node) start(k *Kubelet) error {
	ctx := k.life
	if err := n.register(ctx, k); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	k.tasks.Go(func() {
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			if err := n.renew(ctx, k); err != nil && ctx.Err() == nil {
				k.log.WarnContext(ctx, "heartbeat of a node", "node", n.Name, "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
	return nil
}

func (n *node) register(ctx context.Context, k *Kubelet) error {
	nodes := k.client.CoreV1().Nodes()
	names := map[string]string{core.LabelHostname: n.Name, core.LabelOSStable: runtime.GOOS, core.LabelArchStable: runtime.GOARCH}
	maps.Copy(names, n.Labels)
	_, err := nodes.Create(ctx, &core.Node{
		ObjectMeta: meta.ObjectMeta{Name: n.Name, Labels: names},
		Spec:       core.NodeSpec{Taints: n.Taints},
	}, meta.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return n.reportReady(ctx, k)
}

func (n *node) reportReady(ctx context.Context, k *Kubelet) error {
	now := meta.Now()
	condition := func(kind core.NodeConditionType, status core.ConditionStatus, reason string) core.NodeCondition {
		return core.NodeCondition{Type: kind, Status: status, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	patch, err := json.Marshal(map[string]any{"status": core.NodeStatus{
		Capacity:    n.size,
		Allocatable: n.size,
		Addresses:   []core.NodeAddress{{Type: core.NodeInternalIP, Address: k.HostIP()}, {Type: core.NodeHostName, Address: n.Name}},
		NodeInfo:    core.NodeSystemInfo{OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH, KubeletVersion: "v1.37.2", ContainerRuntimeVersion: "processes://1"},
		Conditions: []core.NodeCondition{
			condition(core.NodeReady, core.ConditionTrue, "KubeletReady"),
			condition(core.NodeMemoryPressure, core.ConditionFalse, "KubeletHasSufficientMemory"),
			condition(core.NodeDiskPressure, core.ConditionFalse, "KubeletHasNoDiskPressure"),
			condition(core.NodePIDPressure, core.ConditionFalse, "KubeletHasSufficientPID"),
		},
	}})
	if err != nil {
		return err
	}
	_, err = k.client.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patch, meta.PatchOptions{}, "status")
	return err
}

// renew renews the lease. A node that was taken for dead is ready again.
func (n *node) renew(ctx context.Context, k *Kubelet) error {
	object, err := k.client.CoreV1().Nodes().Get(ctx, n.Name, meta.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range object.Status.Conditions {
		if c.Type == core.NodeReady && c.Status != core.ConditionTrue {
			if err := n.reportReady(ctx, k); err != nil {
				return err
			}
		}
	}
	leases := k.client.CoordinationV1().Leases(core.NamespaceNodeLease)
	now := meta.NowMicro()
	lease, err := leases.Get(ctx, n.Name, meta.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordination.Lease{
			ObjectMeta: meta.ObjectMeta{Name: n.Name, OwnerReferences: []meta.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: object.UID}}},
			Spec:       coordination.LeaseSpec{HolderIdentity: &n.Name, LeaseDurationSeconds: new(leaseDuration), RenewTime: &now},
		}, meta.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &now
	_, err = leases.Update(ctx, lease, meta.UpdateOptions{})
	return err
}
