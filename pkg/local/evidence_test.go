package local

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// twoModesIn3D is an energy whose log Z is known at all its parameters, in a dimension without quadrature.
const twoModesIn3D = `
name: modes-3d
seed: 5
data: {dataset: mixture, samples: 600, means: [[-3, 0, 0], [3, 0, 0]], weights: [0.3, 0.7], std: 1, test_samples: 400}
model: {kind: mixture, means: [[-2, 0, 0], [2, 0, 0]], logits: [0]}
sampler: {kind: mala, steps: 4, step_size: 0.5}
tempering: {rungs: 5, chains: 64}
optimizer: {kind: adam, lr: 0.02}
train: {steps: 30, batch: 64, cut_every: 0, log_every: 10, frames: 0}
evaluate: {samples: 64, scans: 60, measure: 200, every: 10, projections: 8}
backend: {kind: KIND}
`

// A trained energy has a likelihood in any dimension, at the end and on the way, within its error of the exact one.
func TestLikelihoodWithoutQuadrature(t *testing.T) {
	dir := t.TempDir() + "/run"
	s, err := Train(context.Background(), parse(t, "go", twoModesIn3D), Options{Out: dir})
	if err != nil {
		t.Fatal(err)
	}
	ev := s.Evaluation
	if ev.NLLKind != "bridge" || ev.Evidence == nil {
		t.Fatalf("likelihood %q, evidence %v, want those of a ladder", ev.NLLKind, ev.Evidence)
	}
	tensors, _, err := checkpoint.ReadSafetensors(dir + "/params.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	logit, err := checkpoint.Values[float32](tensors, "logits", 1)
	if err != nil {
		t.Fatal(err)
	}
	want := math.Log(math.Exp(float64(logit[0]))+1) + 1.5*math.Log(2*math.Pi)
	if z := ev.Evidence; math.Abs(z.Bridge-want) > 0.05 || !(z.BridgeErr < 0.02) {
		t.Errorf("log Z %.4f ± %.4f, want %.4f ± 0.05", z.Bridge, z.BridgeErr, want)
	}
	if bits := (*ev.NLL) / 3 / math.Ln2; math.Abs(*ev.BitsPer-bits) > 1e-12 { // the rows are not scaled
		t.Errorf("%g bits a number, want %g", *ev.BitsPer, bits)
	}
	records, err := runlog.ReadMetrics(dir)
	if err != nil {
		t.Fatal(err)
	}
	steps, nll := runlog.Series(records, "test_nll")
	_, logZ := runlog.Series(records, "log_z")
	if len(steps) != 2 || steps[0] != 10 || steps[1] != 20 || len(logZ) != 2 {
		t.Fatalf("likelihoods on the way at steps %v, %d log Z, want 10 and 20", steps, len(logZ))
	}
	if !(nll[0] > nll[1]) || math.Abs(nll[1]-*ev.NLL) > 0.3 {
		t.Errorf("likelihoods %v on the way to %g", nll, *ev.NLL)
	}
}

// Looking at the test rows on the way changes no bit of the training.
func TestLookingChangesNothing(t *testing.T) {
	looked, err := Train(context.Background(), parse(t, "go", twoModesIn3D), Options{Out: t.TempDir() + "/a"})
	if err != nil {
		t.Fatal(err)
	}
	blind, err := Train(context.Background(), parse(t, "go", twoModesIn3D, "evaluate.every=0"), Options{Out: t.TempDir() + "/b"})
	if err != nil {
		t.Fatal(err)
	}
	if looked.Digest != blind.Digest {
		t.Errorf("digests %.12s and %.12s, want one", looked.Digest, blind.Digest)
	}
}

// A ladder of the power path has no log Z, and an interrupted look loses nothing.
func TestLikelihoodOnThePowerPath(t *testing.T) {
	dir := t.TempDir() + "/run"
	sets := []string{"tempering.path=power", "train.steps=12"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Train(ctx, parse(t, "go", twoModesIn3D, sets...), Options{Out: dir, afterStep: interruptAt(10, cancel)})
	if !errors.Is(err, ErrInterrupted) {
		t.Fatalf("interrupted within a look: %v, want %v", err, ErrInterrupted)
	}
	s, err := Train(t.Context(), parse(t, "go", twoModesIn3D, sets...), Options{Out: dir, Resume: true})
	if err != nil {
		t.Fatal(err)
	}
	if ev := s.Evaluation; ev.NLLKind != "bridge" || ev.Evidence == nil || !(ev.Evidence.BridgeErr < 0.05) {
		t.Errorf("likelihood %q, evidence %+v, want those of a ladder from a reference", ev.NLLKind, ev.Evidence)
	}
}
