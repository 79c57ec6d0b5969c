package diagnostics_test

import (
	"math"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
)

// With minus the log density of a toy law as the energy, log Z is 0 and the NLL is the law's entropy: nothing can score
// better than 0.289 nats on two moons.
func TestNLLOfALawIsItsEntropy(t *testing.T) {
	for _, cfg := range []datasets.Config{
		{Dataset: "two_moons"}, {Dataset: "circle"}, {Dataset: "eight_gaussians"}, {Dataset: "grid", PerDim: new(3), Noise: new(0.1)},
	} {
		t.Run(cfg.Dataset, func(t *testing.T) {
			_, test, err := datasets.Load(cfg, 1, "")
			if err != nil {
				t.Fatal(err)
			}
			energies := func(points []float64) ([]float64, error) {
				out := make([]float64, len(points)/2)
				for i := range out {
					out[i] = -test.Law.LogDensity(points[2*i : 2*i+2])
				}
				return out, nil
			}
			got, err := diagnostics.NLL2D(energies, test.Rows, diagnostics.Quadrature{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("NLL %.4f ± %.4f, entropy %.4f, log Z %.2g, %d points", got.NLL, got.StdErr, test.Law.Entropy(), got.LogZ, got.Points)
			if math.Abs(got.LogZ) > 1e-6 || math.Abs(got.NLL-test.Law.Entropy()) > 4*got.StdErr {
				t.Errorf("NLL %.4f ± %.4f, want %.4f; log Z %g, want 0", got.NLL, got.StdErr, test.Law.Entropy(), got.LogZ)
			}
		})
	}
}
