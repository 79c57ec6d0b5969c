package local

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// tiltedWell is a double well, and a ladder from N(0, 2²) to it.
func tiltedWell(t *testing.T, b *backend.Backend, rungs int) engine.SamplerConfig {
	t.Helper()
	e, err := AnalyticEnergy("double_well_tilted", 1, map[string]any{"a": 4, "c": 0.5})
	if err != nil {
		t.Fatal(err)
	}
	return SampleOptions{ReferenceStd: 2, Seed: 1, Tempering: tempering.Config{Rungs: rungs, Chains: 16}.WithDefaults(),
		Sampler: samplers.Config{Kind: "mala", Steps: 5, StepSize: schedules.Constant(0.05)}.WithDefaults()}.ladder(e)
}

// expiring is a context that is cancelled when it was asked so many times.
type expiring struct {
	context.Context
	left int
}

func (c *expiring) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// Cancelled while it measures, a tempering ends with what there is.
func TestInterruptedTempering(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	got, err := Temper(&expiring{t.Context(), 60}, b, tiltedWell(t, b, 4), nil, TemperOptions{AdaptScans: 14, Scans: 1000, Samples: 160, Gap: 2})
	if err != nil {
		t.Fatal(err)
	}
	last := got.Final()
	if got.Ended != "interrupted" || last.Kind != "measure" || last.Scans < 20 || last.Scans > 60 || last.LogZ == nil || len(got.X) != 160 || len(got.Energy) != 160 {
		t.Errorf("ended by %s, a %s round of %d scans, log Z %v, %d samples", got.Ended, last.Kind, last.Scans, last.LogZ, len(got.X))
	}
	if _, err := Temper(&expiring{t.Context(), 5}, b, tiltedWell(t, b, 4), nil, TemperOptions{AdaptScans: 14, Scans: 10}); err == nil {
		t.Error("cancelled while it adapted: no error")
	}
}

// A ladder far longer than its barrier asks for is cut, one that is far too short grows, and the rungs of the new one begin
// where hotter ones left off.
func TestTuningChangesTheNumberOfRungs(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	for _, rungs := range []int{14, 2} {
		got, err := Temper(t.Context(), b, tiltedWell(t, b, rungs), nil, TemperOptions{AdaptScans: 250, Tune: true, Scans: 100})
		if err != nil {
			t.Fatal(err)
		}
		// Λ = 1.15 by quadrature for c = 0: four rungs.
		if n := len(got.Final().Betas); n < 3 || n > 6 || len(got.Rounds[0].Betas) != rungs {
			t.Errorf("from %d to %d rungs, want 3 to 6", rungs, n)
		}
	}
	short := &tempering.Round{Ladders: 16, Attempts: 30*16 - 1, SuggestedRungs: 4}
	if n := resized(short, 14); n != 14 {
		t.Errorf("%d rungs by 29 attempts a ladder, want the 14 that there are", n)
	}
}

func TestLooksAtRHat(t *testing.T) {
	var at []int
	for scans := range 500 {
		if rhatAt(scans) {
			at = append(at, scans)
		}
	}
	if len(at) != 6 || at[0] != 64 || at[1] != 96 || at[5] != 486 {
		t.Errorf("looks after %v scans, want 64, 96, 144, 216, 324, 486", at)
	}
	b := testutil.Backend(t, backend.Go)
	got, err := Temper(t.Context(), b, tiltedWell(t, b, 4), nil, TemperOptions{Scans: 2000, Stop: Until{RHat: 1.1}})
	if err != nil {
		t.Fatal(err)
	}
	if last := got.Final(); got.Ended != "rhat" || !rhatAt(last.Scans) || strings.HasPrefix(last.Verdict(), "too short") {
		t.Errorf("ended by %s after %d scans: %s", got.Ended, last.Scans, last.Verdict())
	}
	if got, err = Temper(t.Context(), b, tiltedWell(t, b, 4), nil, TemperOptions{Scans: 2000, Stop: Until{Time: time.Nanosecond}}); err != nil || got.Ended != "time" || got.Final().Scans != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// The second time another sampler takes over in the middle: it has to come to the same bits, and does not where the energy
// is another one whenever it is built.
func TestCheckSerialOfALadder(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	o := TemperOptions{CheckSerial: 3, Scans: 1}
	cfg := tiltedWell(t, b, 3)
	if err := checkSerial(t.Context(), b, cfg, nil, o); err != nil {
		t.Error(err)
	}
	cfg.Tempering.Reference, cfg.Tempering.Exchange = "variational", "label"
	o.CheckSerial = 8
	if err := checkSerial(t.Context(), b, cfg, nil, o); err != nil {
		t.Errorf("labels, variational: %v", err)
	}
	cfg.Spec.Network = drifting{cfg.Spec.Network, cfg.Spec.Network, new(int)}
	if err := checkSerial(t.Context(), b, cfg, nil, o); !errors.Is(err, ErrSerial) || !strings.Contains(err.Error(), "after round 1 the digests") {
		t.Errorf("an energy that changes: %v, want ErrSerial after round 1", err)
	}
}
