package main

import (
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestJobStartsThisProgram checks that the Job of the examples gives flags that there are, and an id of its own to each index.
func TestJobStartsThisProgram(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "k8s", "examples", "replicas", "job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var job struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct{ Command, Args []string }
				}
			}
		}
	}
	if err := yaml.Unmarshal(text, &job); err != nil {
		t.Fatal(err)
	}
	c := job.Spec.Template.Spec.Containers[0]
	if len(c.Command) != 1 || c.Command[0] != "replica" {
		t.Errorf("command %q, want replica", c.Command)
	}
	cmd := newCommand()
	if err := cmd.ParseFlags(c.Args); err != nil || cmd.Flags().NArg() > 0 {
		t.Fatalf("%q: %v", c.Args, err)
	}
	if id := cmd.Flag("id").Value.String(); id != "replicas-$("+indexVariable+")" {
		t.Errorf("id %s, want one of the index", id)
	}
}
