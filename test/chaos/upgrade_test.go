//go:build linux

package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// An upgrade as docs/operations.md has it: the coordinators of KELVIN_UPGRADE_FROM, a revision of this repository, are replaced
// one after the other, the leader last, the first of them put back once in between; then the replicas of a training that is
// paused. It comes to the numbers of one that was left alone. Both versions must train alike.
func TestRollingUpgrade(t *testing.T) {
	from := os.Getenv("KELVIN_UPGRADE_FROM")
	if from == "" {
		t.Skip("KELVIN_UPGRADE_FROM names no revision to upgrade from")
	}
	before, after := programsOf(t, from), programs(t)
	text := strings.Replace(ladder, "STEPS", "4000", 1)
	experiment := undisturbed(t, after, text)
	if old := undisturbed(t, before, text); old.Digest != experiment.Digest {
		t.Fatalf("%s comes to %s, this version to %s: a training cannot go from one to the other", from, old.Digest, experiment.Digest)
	}
	cluster, err := Start(t.Context(), ClusterConfig{Dir: t.TempDir(), Programs: before, Coordinators: 3, Replicas: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	r := cluster.newRun([]Experiment{experiment}, t.Logf)
	defer r.leave()
	if err := r.upgrade(t.Context(), before, after); err != nil {
		t.Errorf("%v\n%s\n%s", err, r.history(t.Context()), cluster.Logs(30))
	}
}

// programsOf builds the programs of a revision.
func programsOf(t *testing.T, revision string) string {
	t.Helper()
	source, out := t.TempDir(), t.TempDir()
	script := `git -C "$(git rev-parse --show-toplevel)" archive "$1" | tar -x -C "$2" && cd "$2" && go build -o "$3/" ./cmd/coordinator ./cmd/replica`
	if said, err := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", revision, source, out).CombinedOutput(); err != nil {
		t.Fatalf("programs of %s: %v\n%s", revision, err, said)
	}
	return out
}

// upgrade begins a training, pauses it in its midst, replaces all programs, and lets it end.
func (r *run) upgrade(ctx context.Context, before, after string) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	if _, err := r.watch.until(ctx, patience, func(e api.Experiment) bool { return e.Step >= 500 }); err != nil {
		return err
	}
	if err := r.want(ctx, api.Pause, api.Paused); err != nil {
		return err
	}
	leader, followers, err := r.roles(ctx)
	if err != nil {
		return err
	}
	for _, to := range []string{after, before, after} { // there and back: no level was reached that the old ones lack
		if err := r.replace(ctx, followers[0], to); err != nil {
			return err
		}
	}
	if err := r.replace(ctx, followers[1], after); err != nil {
		return err
	}
	if err := r.handOver(ctx, leader, followers[0]); err != nil {
		return err
	}
	if err := r.replace(ctx, leader, after); err != nil {
		return err
	}
	for _, replica := range r.Replicas {
		if err := exchange(replica, filepath.Join(after, "replica")); err != nil {
			return err
		}
	}
	if err := r.want(ctx, api.Run, api.Running); err != nil {
		return err
	}
	return r.finish(ctx)
}

// want says what is wanted of the experiment, and waits for the phase.
func (r *run) want(ctx context.Context, desired, phase string) error {
	quick, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := r.client.Patch(quick, r.watch.name, api.Patch{Desired: desired}, 0); err != nil {
		return err
	}
	_, err := r.watch.until(ctx, patience, func(e api.Experiment) bool { return e.Phase == phase })
	return err
}

// handOver lets another coordinator lead.
func (r *run) handOver(ctx context.Context, from, to *Coordinator) error {
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	for {
		leader, _, err := r.roles(ctx)
		if err != nil || leader != from {
			return err
		}
		if err := r.client.Lead(ctx, to.Name); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("chaos: %s leads on, want %s: %w", from.Name, to.Name, ctx.Err())
		case <-time.After(look):
		}
	}
}

// exchange lets a place run another program.
func exchange(p *Place, program string) error {
	if err := p.Ask(); err != nil {
		return err
	}
	if _, err := p.Wait(patience); err != nil {
		return err
	}
	p.Use(program)
	return p.Start()
}

// replace lets a coordinator run the program of a folder, and waits until it answers, and the leader finds all of them well.
func (r *run) replace(ctx context.Context, co *Coordinator, programs string) error {
	if err := exchange(co.Place, filepath.Join(programs, "coordinator")); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		members, err := co.Client.Members(ctx) // it answers by itself, too
		well := err == nil && len(members.Items) == len(r.Coordinators)
		for _, m := range members.Items {
			well = well && m.Healthy && m.Behind == 0
		}
		if well {
			r.say("%s runs %s", co.Name, programs)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("chaos: %s is not well with the program of %s: %+v: %w", co.Name, programs, members.Items, err)
		case <-time.After(look):
		}
	}
}
