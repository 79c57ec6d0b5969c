//go:build linux

package kube_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// disturbances does to a training all that clusters do to pods. It must come to the numbers of a run in which nothing happened.
func disturbances(t *testing.T, c *cluster) {
	const name = "disturbed"
	// Twelve shards, and as many steps as take so long undisturbed: they must last until the end of this.
	longer := []string{"--set", "tempering.split=2", "--set", fmt.Sprintf("train.steps=%.0f", 100*c.speed)}
	alone := c.train(t, "alone-"+name, longer...)
	c.coordinator(t, append([]string{"k8s", "submit", c.file(t, twoMoons), "--name", name, "--replicas", "4", "--memory", "1Gi", "--cpu", "500m",
		"--image", cpuImage}, longer...)...)
	c.untilStep(t, name, 100)
	pods := c.client.CoreV1().Pods(namespace)

	deleted := c.replica(t, name, 0)
	if err := pods.Delete(t.Context(), deleted.Name, meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.untilReplaced(t, name, deleted)

	killed := c.replica(t, name, 1)
	if err := c.nodes.Kill(namespace, killed.Name); err != nil {
		t.Fatal(err)
	}
	c.untilReplaced(t, name, killed)

	evicted := c.replica(t, name, 2)
	if err := c.evict(t, evicted.Name); err != nil {
		t.Fatal(err)
	}
	c.untilReplaced(t, name, evicted)
	if job := c.job(t, name); job.Status.Failed != 1 {
		t.Errorf("%d failures are counted, want that of the pod that was killed alone", job.Status.Failed)
	}

	first, second := c.leaderAndAnother(t)
	if err := c.evict(t, first); err != nil {
		t.Fatal(err)
	}
	if err := c.evict(t, second); !apierrors.IsTooManyRequests(err) {
		t.Errorf("eviction of %s while %s is away: %v, want that the budget refuses it", second, first, err)
	}
	c.untilReady(t)
	c.goesOn(t, name)

	c.drain(t, "b")
	c.untilReady(t)
	c.goesOn(t, name)

	c.restartCoordinators(t)
	c.untilReady(t)
	c.goesOn(t, name)

	for _, n := range []int{8, 3} {
		c.coordinator(t, "k8s", "scale", name, "--replicas", fmt.Sprint(n))
		c.until(t, fmt.Sprintf("%d replicas have work", n), func() error {
			if holders := strings.Fields(c.coordinator(t, "get", "shards", name, "-o", "jsonpath={.items[*].replica}")); distinct(holders) != n {
				return fmt.Errorf("shards are held by %v", holders)
			}
			return nil
		})
		c.goesOn(t, name)
	}
	c.coordinator(t, "wait", name, "--timeout", "5m")
	c.untilComplete(t, name, "0-2")
	c.sameNumbers(t, name, alone)
}

func distinct(words []string) int {
	slices.Sort(words)
	return len(slices.Compact(words))
}

func (c *cluster) job(t *testing.T, name string) *batch.Job {
	t.Helper()
	job, err := c.client.BatchV1().Jobs(namespace).Get(t.Context(), name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// podsOf are the pods of an index of a Job, those that have ended too.
func (c *cluster) podsOf(t *testing.T, job string, index int) []core.Pod {
	t.Helper()
	list, err := c.client.CoreV1().Pods(namespace).List(t.Context(), meta.ListOptions{
		LabelSelector: fmt.Sprintf("%s=%s,%s=%d", batch.JobNameLabel, job, batch.JobCompletionIndexAnnotation, index)})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// replica waits for the pod of an index that runs.
func (c *cluster) replica(t *testing.T, job string, index int) *core.Pod {
	t.Helper()
	var found *core.Pod
	c.until(t, fmt.Sprintf("index %d of %s runs", index, job), func() error {
		for _, pod := range c.podsOf(t, job, index) {
			if pod.Status.Phase == core.PodRunning && pod.DeletionTimestamp == nil {
				found = &pod
				return nil
			}
		}
		return errors.New("no pod of it does")
	})
	return found
}

// untilReplaced waits until another pod of a replica's index has a lease, and the training has gone on.
func (c *cluster) untilReplaced(t *testing.T, job string, old *core.Pod) {
	t.Helper()
	var index int
	if err := json.Unmarshal([]byte(old.Annotations[batch.JobCompletionIndexAnnotation]), &index); err != nil {
		t.Fatal(err)
	}
	c.until(t, fmt.Sprintf("another pod takes the place of %s", old.Name), func() error {
		for _, pod := range c.podsOf(t, job, index) {
			if pod.UID != old.UID && ready(&pod) {
				return nil
			}
		}
		return errors.New("none is ready")
	})
	c.goesOn(t, job)
}

func ready(pod *core.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == core.PodReady {
			return c.Status == core.ConditionTrue
		}
	}
	return false
}

// goesOn waits until an experiment has made steps from here.
func (c *cluster) goesOn(t *testing.T, name string) {
	t.Helper()
	var from experiment
	c.until(t, "a coordinator knows "+name, func() (err error) {
		from, err = c.experiment(t, name)
		return err
	})
	c.untilStep(t, name, from.Step+10)
}

func (c *cluster) evict(t *testing.T, pod string) error {
	t.Helper()
	return c.client.PolicyV1().Evictions(namespace).Evict(t.Context(), &policy.Eviction{ObjectMeta: meta.ObjectMeta{Name: pod, Namespace: namespace}})
}

func (c *cluster) leaderAndAnother(t *testing.T) (leader, other string) {
	t.Helper()
	var members struct {
		Items []struct {
			Name   string `json:"name"`
			Leader bool   `json:"leader"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(c.coordinator(t, "get", "members", "-o", "json")), &members); err != nil {
		t.Fatal(err)
	}
	for _, m := range members.Items {
		if m.Leader {
			leader = m.Name
		} else {
			other = m.Name
		}
	}
	if leader == "" || other == "" {
		t.Fatalf("members %+v, want a leader among them", members)
	}
	return leader, other
}

// drain takes all pods off a node, as fast as budgets let it, and gives it back.
func (c *cluster) drain(t *testing.T, node string) {
	t.Helper()
	c.patch(t, "nodes", node, `{"spec": {"unschedulable": true}}`)
	c.until(t, "node "+node+" is drained", func() error {
		list, err := c.client.CoreV1().Pods(namespace).List(t.Context(), meta.ListOptions{FieldSelector: "spec.nodeName=" + node})
		if err != nil {
			return err
		}
		var left []string
		for _, pod := range list.Items {
			if pod.Status.Phase == core.PodSucceeded || pod.Status.Phase == core.PodFailed {
				continue
			}
			left = append(left, pod.Name)
			if err := c.evict(t, pod.Name); err != nil && !apierrors.IsTooManyRequests(err) && !apierrors.IsNotFound(err) {
				return err
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("it has %v", left)
		}
		return nil
	})
	c.patch(t, "nodes", node, `{"spec": {"unschedulable": null}}`)
}

// restartCoordinators does what kubectl rollout restart does.
func (c *cluster) restartCoordinators(t *testing.T) {
	t.Helper()
	c.patch(t, "statefulsets", "kelvin", fmt.Sprintf(`{"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": %q}}}}}`, time.Now().Format(time.RFC3339)))
}

func (c *cluster) patch(t *testing.T, resource, name, change string) {
	t.Helper()
	var err error
	switch resource {
	case "nodes":
		_, err = c.client.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, []byte(change), meta.PatchOptions{})
	case "statefulsets":
		_, err = c.client.AppsV1().StatefulSets(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(change), meta.PatchOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}
