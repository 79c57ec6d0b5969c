//go:build linux

package kube_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lasting is an experiment that is there until the end.
const lasting = "lasting"

// failures ends pods of a Job in the ways that its policy tells apart.
func failures(t *testing.T, c *cluster) {
	c.coordinator(t, "k8s", "submit", c.file(t, twoMoons), "--name", lasting, "--replicas", "4", "--memory", "1Gi", "--cpu", "500m", "--image", cpuImage,
		"--set", "train.steps=1000000")
	c.untilStep(t, lasting, 10)
	c.coordinator(t, "pause", lasting, "--wait") // the pods stay, and leave the processors to others
	var before [4]*core.Pod
	for i := range before {
		before[i] = c.replica(t, lasting, i)
	}
	for i, code := range []int{42, 143, 1} {
		if err := c.nodes.Exit(namespace, before[i].Name, code); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.evict(t, before[3].Name); err != nil {
		t.Fatal(err)
	}

	// What Kubernetes has counted for each index is written on the pod that takes its place.
	for index, counted := range map[int]string{1: "0", 2: "1", 3: "0"} {
		c.until(t, fmt.Sprintf("index %d runs again", index), func() error {
			for _, pod := range c.podsOf(t, lasting, index) {
				if pod.UID == before[index].UID || pod.Status.Phase != core.PodRunning {
					continue
				}
				if got := pod.Annotations[batch.JobIndexFailureCountAnnotation]; got != counted {
					t.Errorf("index %d: %s failures counted, want %s", index, got, counted)
				}
				return nil
			}
			return fmt.Errorf("job %+v", c.job(t, lasting).Status)
		})
	}
	status := c.job(t, lasting).Status
	if status.FailedIndexes == nil || *status.FailedIndexes != "0" || len(c.podsOf(t, lasting, 0)) != 1 {
		t.Errorf("after exit code 42 of index 0: indexes %v are given up, and it has had %d pods; want index 0 and one pod", status.FailedIndexes, len(c.podsOf(t, lasting, 0)))
	}
	c.says(t, lasting, "2 pods have failed; indexes given up: 0", "exit code 42: the experiment cannot be had here", "kubectl logs "+before[0].Name)

	// The experiment can have another Job, without a word of the first one.
	c.deleteJob(t, lasting)
	c.coordinator(t, "k8s", "job", lasting, "--replicas", "3", "--memory", "1Gi", "--cpu", "500m", "--image", cpuImage)
	c.until(t, "three replicas of the second Job run", func() error {
		job := c.job(t, lasting)
		for index := range 3 {
			if !slices.ContainsFunc(c.podsOf(t, lasting, index), func(pod core.Pod) bool { return meta.IsControlledBy(&pod, job) && pod.Status.Phase == core.PodRunning }) {
				return fmt.Errorf("index %d does not", index)
			}
		}
		return nil
	})
}

func (c *cluster) deleteJob(t *testing.T, name string) {
	t.Helper()
	if err := c.client.BatchV1().Jobs(namespace).Delete(t.Context(), name, meta.DeleteOptions{PropagationPolicy: new(meta.DeletePropagationBackground)}); err != nil {
		t.Fatal(err)
	}
}

// says waits until `coordinator k8s status` has all these words.
func (c *cluster) says(t *testing.T, job string, words ...string) {
	t.Helper()
	c.until(t, "coordinator k8s status "+job+" explains it", func() error {
		text := c.coordinator(t, "k8s", "status", job)
		for _, w := range words {
			if !strings.Contains(text, w) {
				return fmt.Errorf("no %q in:\n%s", w, text)
			}
		}
		return nil
	})
}

// explanations brings about what keeps pods from running, and has it explained.
func explanations(t *testing.T, c *cluster) {
	submit := func(name string, more ...string) {
		t.Helper()
		c.coordinator(t, append([]string{"k8s", "submit", c.file(t, twoMoons), "--name", name, "--replicas", "2", "--memory", "1Gi", "--cpu", "500m"}, more...)...)
	}
	submit("gpu", "--gpu")
	submit("image", "--image", "ghcr.io/kelvin-ebm/kelvin:9.9.9-cpu")
	submit("secret", "--image", cpuImage, "--secret", "kelvin-other")
	submit("large", "--image", cpuImage, "--memory", "100Gi")
	c.says(t, "gpu", "2 of 2: no node takes it: 3 Insufficient nvidia.com/gpu", "fix: more nodes with GPUs", "coordinator k8s scale gpu --replicas N")
	c.says(t, "image", "2 of 2: the image ghcr.io/kelvin-ebm/kelvin:9.9.9-cpu cannot be had", "fix: --image names another")
	c.says(t, "secret", `2 of 2: the container cannot start: MountVolume.SetUp failed for volume "credentials" : secret "kelvin-other" not found`, "fix: coordinator k8s token -n kelvin --secret kelvin-other")
	c.says(t, "large", "2 of 2: no node takes it: 3 Insufficient memory", "fix: more nodes, smaller replicas")

	quotas := c.client.CoreV1().ResourceQuotas(namespace)
	_, err := quotas.Create(t.Context(), &core.ResourceQuota{
		ObjectMeta: meta.ObjectMeta{Name: "lab"}, Spec: core.ResourceQuotaSpec{Hard: core.ResourceList{core.ResourcePods: resource.MustParse("1")}},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.until(t, "the quota is in force", func() error {
		quota, err := quotas.Get(t.Context(), "lab", meta.GetOptions{})
		if err == nil && len(quota.Status.Used) == 0 {
			err = fmt.Errorf("status %+v", quota.Status)
		}
		return err
	})
	submit("quota", "--image", cpuImage)
	c.says(t, "quota", "problem: pods cannot be made: exceeded quota: lab", "fix: a larger ResourceQuota in kelvin", "coordinator k8s scale quota --replicas N")
	if err := quotas.Delete(t.Context(), "lab", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"gpu", "image", "secret", "large", "quota"} {
		c.coordinator(t, "cancel", name, "--wait")
		c.deleteJob(t, name)
	}
}
