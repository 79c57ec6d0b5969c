package engine

import (
	"fmt"
	"math"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Exploration and a single sweep leave the law of every rung as it is. On the linear path from N(0, 1) to precision 10 rung
// β is a Gaussian of precision p = 1 + 9β. Independent chains of these laws make a scan, a sweep of either parity and
// another scan; then p‖x‖² of each rung must still be χ² with 4 degrees of freedom, whose distribution function is
// 1 − e^{−y/2}(1 + y/2), by a Kolmogorov–Smirnov test at level 0.001 over all rungs and cases. A sweep that takes Δ with
// the wrong sign must fail. A variational reference comes to N(0, 1) from elsewhere.
func TestOneSweepKeepsTheLawOfEveryRung(t *testing.T) {
	const dim, rungs, precision = 4, 5, 10.0
	energy, err := models.NewHarmonic(dim, precision)
	if err != nil {
		t.Fatal(err)
	}
	q := &models.Gaussian{Mean: make([]float64, dim), Std: ones(dim)}
	elsewhere := &models.Gaussian{Mean: []float64{1, 0, -1, 2}, Std: []float64{2, 3, 1, 2}}
	at := func(beta float64) float64 { return 1 + (precision-1)*beta }
	betas := make([]float64, rungs)
	for k := range betas {
		betas[k] = (math.Pow(precision, float64(k)/(rungs-1)) - 1) / (precision - 1) // equal rejection
	}
	ladder, err := tempering.LadderOf(betas)
	if err != nil {
		t.Fatal(err)
	}
	chiSquared := func(y float64) float64 { return 1 - math.Exp(-y/2)*(1+y/2) }
	kernels := map[string]func(beta float64) float64{ // to step sizes
		"mala": func(beta float64) float64 { return 0.4 / at(beta) },
		"hmc":  func(beta float64) float64 { return 0.9 / math.Sqrt(at(beta)) },
	}
	level := 0.001 / float64(2*rungs*len(kernels)*len(Exchanges())*2)

	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		chains := 20_000
		if b.Kind() == backend.Go {
			chains = 2000
		}
		live := to32(rng.New(8, rng.InitChains, 0, 0).Normals(rungs * chains * dim))
		for i := range live {
			live[i] /= float32(math.Sqrt(at(betas[i/(chains*dim)])))
		}
		// smallest is the smallest p-value of a rung, after a sweep that decides by V times sign.
		smallest := func(s *Shard, parity uint64, sign float64) (smallest float64) {
			t.Helper()
			if err := s.Load(s.NewState(nil, live, nil)); err != nil {
				t.Fatal(err)
			}
			first, err := s.Scan(2*parity, Draw{Perm: identity(rungs * chains)})
			if err != nil {
				t.Fatal(err)
			}
			for i := range first.V {
				first.V[i] *= sign
			}
			ensemble, err := tempering.NewEnsemble(tempering.Settings{Ladder: ladder, Columns: chains, Seed: 21, Fresh: true})
			if err != nil {
				t.Fatal(err)
			}
			var swept tempering.Swept
			for scan := range parity + 1 { // every sweep is of the other parity
				if swept, err = ensemble.Sweep(scan, nil, first.V); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Scan(2*parity+1, Draw{Perm: swept.Perm}); err != nil {
				t.Fatal(err)
			}
			x, err := s.Live()
			if err != nil {
				t.Fatal(err)
			}
			smallest = 1
			y := make([]float64, chains)
			for k, beta := range betas {
				for j := range y {
					y[j] = 0
					for _, xi := range x[(k*chains+j)*dim : (k*chains+j+1)*dim] {
						y[j] += at(beta) * float64(xi) * float64(xi)
					}
				}
				_, p := diagnostics.KolmogorovSmirnov(y, chiSquared)
				smallest = min(smallest, p)
			}
			return smallest
		}
		for kernel, step := range kernels {
			steps := make([]float64, rungs)
			for k, beta := range betas {
				steps[k] = step(beta)
			}
			for _, exchange := range Exchanges() {
				for _, variational := range []bool{false, true} {
					name := fmt.Sprintf("%s, exchange of %s, variational %t", kernel, exchange, variational)
					spec := Spec{Network: energy, Reference: q, Rungs: rungs, Chains: chains, Pool: chains, Exchange: exchange, Variational: variational,
						Sampler: samplers.Config{Kind: kernel, Steps: 1, LeapfrogSteps: 2}, Seed: 21}
					if variational {
						spec.Reference = elsewhere
					}
					s := start(t, b, spec, betas, steps)
					if variational {
						s.SetReference(*q)
					}
					for parity := range uint64(2) {
						if p := smallest(s, parity, 1); !(p > level) {
							t.Errorf("%s, parity %d: p = %.2g, want above %.2g", name, parity, p, level)
						}
					}
					if p := smallest(s, 0, -1); !(p < level) {
						t.Errorf("%s, Δ of the wrong sign: p = %.2g, want below %.2g", name, p, level)
					}
				}
			}
		}
	})
}
