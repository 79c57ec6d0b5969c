package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// A change that fails behind the pause lets the experiment run again; one at rest is left at rest.
func TestLadderSetThatFails(t *testing.T) {
	const patch = "PATCH /v1/experiments/moons "
	resting := moons(api.Paused)
	resting.LiveReplicas, resting.YAML = 0, smallYAML
	for _, tc := range []struct {
		desired string
		asked   []string
	}{
		{api.Run, []string{patch + `{"desired":"pause"}`, patch + `{"desired":"run"}`}},
		{api.Pause, nil},
	} {
		resting.Desired = tc.desired
		f := newFakeCluster(t, map[string]any{"GET /v1/experiments/moons": resting, "PATCH /v1/experiments/moons": resting})
		_, stderr, code := execute(t.Context(), "ladder", "set", "moons", "--rungs", "8")
		if code != exitNotFound || strings.Contains(stderr, "stays paused") { // it has no cut
			t.Errorf("%s: code %d, %s", tc.desired, code, stderr)
		}
		var asked []string
		for _, line := range f.asked {
			if strings.HasPrefix(line, patch) {
				asked = append(asked, line)
			}
		}
		if !slices.Equal(asked, tc.asked) {
			t.Errorf("%s: asked for %q, want %q", tc.desired, asked, tc.asked)
		}
	}
}

// An experiment that comes to its end before its pause is not to run again.
func TestLadderSetOfOneThatEnds(t *testing.T) {
	f := newFakeCluster(t, map[string]any{"GET /v1/experiments/moons": moons(api.Running), "PATCH /v1/experiments/moons": moons(api.Running),
		"GET /v1/watch": clusterAnswers()["GET /v1/watch"]})
	_, stderr, code := execute(t.Context(), "ladder", "set", "moons", "--rungs", "8")
	if code != exitFailure || !strings.Contains(stderr, "moons is completed, and will not be paused") {
		t.Errorf("code %d, %s", code, stderr)
	}
	if slices.ContainsFunc(f.asked, func(line string) bool { return strings.Contains(line, `"run"`) }) {
		t.Errorf("asked for %q", f.asked)
	}
}

func TestLadderLinesOfARun(t *testing.T) {
	betas := func(n int) []float64 { return make([]float64, n) }
	for _, tc := range []struct {
		name  string
		run   string
		rungs int
		round tempering.Round
		want  string
	}{
		{"diagnosed with too few", "runs/a", 4, tempering.Round{Betas: betas(4), SuggestedRungs: 9}, "--run runs/a --rungs 9`"},
		{"diagnosed with about enough", "runs/a", 8, tempering.Round{Betas: betas(8), SuggestedRungs: 7}, ""},
		{"tuned to fewer", "runs/a", 16, tempering.Round{Betas: betas(5), SuggestedRungs: 4}, "--rungs 5`"},
		{"nothing known", "runs/a", 6, tempering.Round{Betas: betas(6)}, ""},
		{"an energy", "", 0, tempering.Round{Betas: betas(5), SuggestedRungs: 9}, ""},
	} {
		got := strings.Join(ladderLines(tc.run, tc.rungs, &tc.round), "\n")
		if !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
