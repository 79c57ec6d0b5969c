//go:build linux

package kube_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// twoMoons is the experiment, which is small enough for two cores.
var twoMoons = filepath.Join(root, "examples", "replicas.yaml")

// serial is a run of an experiment in one process, beside all others.
type serial struct {
	dir  string
	done chan error
}

func (c *cluster) train(t *testing.T, name string, more ...string) *serial {
	t.Helper()
	s := &serial{dir: c.path("work", name), done: make(chan error, 1)}
	cmd := c.command(t.Context(), append([]string{"train", c.file(t, twoMoons), "--quiet", "--out", s.dir}, more...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		err := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("coordinator train: %w\n%s", err, out.String())
		}
		s.done <- err
	}()
	return s
}

// file is the path of a file of the repository for commands, which run elsewhere.
func (c *cluster) file(t *testing.T, path string) string {
	t.Helper()
	absolute, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return absolute
}

// sameNumbers compares the exported run of an experiment with one in which nothing happened.
func (c *cluster) sameNumbers(t *testing.T, name string, s *serial) {
	t.Helper()
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
	c.coordinator(t, "export", name, "--out", "runs/"+name)
	if got, want := read(t, c.path("work", "runs", name)), read(t, s.dir); got.Digest != want.Digest {
		t.Errorf("%s: digest %s, want that of a run on this machine alone, %s", name, got.Digest, want.Digest)
	}
}

// run is what is looked at of a run's folder.
type run struct {
	Digest  string  `json:"digest"`
	Steps   uint64  `json:"steps"`
	Seconds float64 `json:"seconds"`
}

func read(t *testing.T, dir string) run {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r run
	if err := json.Unmarshal(text, &r); err != nil || r.Digest == "" || r.Steps == 0 || r.Seconds == 0 {
		t.Fatalf("%s/run.json: %v, want a digest, steps and seconds in %s", dir, err, text)
	}
	return r
}

// firstExperiment goes from nothing to the results of an experiment, with the commands of docs/kubernetes.md.
func firstExperiment(t *testing.T, c *cluster) {
	alone := c.train(t, "alone")
	c.mustApply(t, objects(t, dev)...)
	c.coordinator(t, "k8s", "certs")
	c.untilReady(t)
	c.reach(t)

	c.coordinator(t, "token", "bootstrap", "--server", c.servers[0], "--ca", "certs/ca.pem", "--out", "admin.token")
	c.coordinator(t, "ctx", "set", "kind", "--server", strings.Join(c.servers, ","), "--ca", "certs/ca.pem", "--token-file", "admin.token")
	c.coordinator(t, "ctx", "use", "kind")
	if members := strings.Fields(c.coordinator(t, "get", "members", "-o", "jsonpath={.items[*].name}")); len(members) != 3 {
		t.Errorf("members %v, want three", members)
	}
	c.coordinator(t, "k8s", "token")
	c.coordinator(t, "k8s", "submit", c.file(t, twoMoons), "--replicas", "4", "--standbys", "1", "--memory", "1Gi", "--cpu", "500m",
		"--image", cpuImage, "--wait=completed", "--timeout", "8m")
	c.untilComplete(t, "replicas", "0-4")

	c.sameNumbers(t, "replicas", alone)
	var score struct {
		NLL float64 `json:"nll"`
	}
	text := c.coordinator(t, "evaluate", "--run", "runs/replicas", "-o", "json")
	if err := json.Unmarshal([]byte(text), &score); err != nil || score.NLL == 0 || score.NLL > 0.36 {
		t.Errorf("evaluate: %v: NLL %v, want 0.36 nats at most\n%s", err, score.NLL, text)
	}
	r := read(t, c.path("work", "runs", "replicas"))
	c.speed = float64(r.Steps) / r.Seconds
	for _, name := range coordinators {
		log, err := os.ReadFile(c.nodes.Logs(namespace, name))
		if err != nil || strings.Contains(string(log), "handshake error") {
			t.Errorf("%v: %s has no log, or says that certificates were not taken", err, name)
		}
	}
}

var coordinators = []string{"kelvin-0", "kelvin-1", "kelvin-2"}

// reach leads ports of this machine to the coordinators.
func (c *cluster) reach(t *testing.T) {
	t.Helper()
	c.servers = nil
	for _, name := range coordinators {
		address, err := c.nodes.Forward(c.life, namespace, name, 8443)
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		c.servers = append(c.servers, "https://localhost:"+port)
	}
}

// untilComplete waits until a Job is, with these indexes.
func (c *cluster) untilComplete(t *testing.T, name, indexes string) {
	t.Helper()
	c.until(t, "the Job "+name+" is complete", func() error {
		job, err := c.client.BatchV1().Jobs(namespace).Get(t.Context(), name, meta.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range job.Status.Conditions {
			if condition.Type == batch.JobComplete && condition.Status == core.ConditionTrue && job.Status.CompletedIndexes == indexes {
				return nil
			}
		}
		return fmt.Errorf("status %+v", job.Status)
	})
}
