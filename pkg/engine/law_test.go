package engine

import (
	"slices"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// A law of nodes is the Gaussian of the same numbers, and the ratio of two laws is summed coordinate by coordinate: the
// log of that of a law to itself is 0 but for the rounding of single terms, 1e-7 each, while the two sums of 3072 terms are
// near −5000 and rounded to 5e-4.
func TestLawIsTheGaussian(t *testing.T) {
	const dim = 3072
	q := models.Gaussian{Mean: make([]float64, dim), Std: slices.Repeat([]float64{1.25}, dim)}
	near := models.Gaussian{Mean: slices.Clone(q.Mean), Std: slices.Clone(q.Std)}
	near.Mean[0], near.Std[1] = 0.25, 1.5
	x := make([]float64, 2*dim)
	for i := range x {
		x[i] = 2 * float64(i%7-3) / 4
	}
	packed := make([]float64, 0, lawSize(dim))
	for _, v := range packLaw(q) {
		packed = append(packed, float64(v))
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float32, []testutil.Tensor{testutil.Array(x, 2, dim), testutil.Array(packed, lawSize(dim))}, func(in []*Node) []*Node {
			x, moved := in[0], readLaw(in[1], dim)
			return []*Node{q.LogDensity(x), moved.logDensity(x), moved.logRatio(&q, x), moved.logRatio(&near, x), moved.fromNormal(x), constantLaw(x, &q).fromNormal(x)}
		})
		testutil.Compare(t, "log density", out[1], testutil.Array(out[0], 2), testutil.Tolerance{RTol: 1e-6})
		testutil.Compare(t, "log ratio to itself", out[2], testutil.Filled(0, 2), testutil.Tolerance{ATol: 5e-5})
		// log near/q: the first coordinate gives (x² − (x−¼)²)/(2·1.25²), the second x²/2(1/1.25² − 1/1.5²) − log(1.5/1.25).
		var want []float64
		for _, row := range [][]float64{x[:dim], x[dim:]} {
			want = append(want, (row[0]*row[0]-(row[0]-0.25)*(row[0]-0.25))/(2*1.25*1.25)+row[1]*row[1]/2*(1/1.5625-1/2.25)-0.1823215567939546)
		}
		testutil.Compare(t, "log ratio", out[3], testutil.Array(want, 2), testutil.Tolerance{ATol: 5e-4}) // of the two normalisers' rounding
		testutil.Compare(t, "draws", out[4], testutil.Array(out[5], 2, dim), testutil.Tolerance{RTol: 1e-6})
	})
}

// A shard whose reference is an input does what one does that has it compiled in, with a base and without, also after the
// reference moved. Langevin steps have no test that rounding could turn.
func TestReferenceMovesWithoutANewProgram(t *testing.T) {
	const chains = 8
	q := &models.Gaussian{Mean: []float64{1, 0}, Std: []float64{2, 1.5}}
	moved := &models.Gaussian{Mean: []float64{0.5, -0.25}, Std: []float64{1.25, 3}}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for name, base := range map[string]*models.Gaussian{"no base": nil, "base": q} {
			spec := Spec{Network: bowl{dim: 2, κ: 2, fixed: true}, Base: base, Reference: q, Rungs: 3, Chains: chains, Pool: chains,
				Sampler: samplers.Config{Kind: "langevin", Steps: 1}, Seed: 7}
			scan := func(s *Shard) []float64 {
				t.Helper()
				r, err := s.Scan(3, Draw{Perm: identity(3 * chains)})
				if err != nil {
					t.Fatal(err)
				}
				live, err := s.Live()
				if err != nil {
					t.Fatal(err)
				}
				return slices.Concat(to64(live), r.V, r.V0)
			}
			shard := func(reference *models.Gaussian, variational bool) *Shard {
				spec.Reference, spec.Variational = reference, variational
				return start(t, b, spec, []float64{0, 0.25, 1}, []float64{0.2, 0.1, 0.05})
			}
			variational := shard(q, true)
			first, err := variational.State()
			if err != nil {
				t.Fatal(err)
			}
			for _, reference := range []*models.Gaussian{q, moved} {
				want := scan(shard(reference, false))
				variational.SetReference(*reference)
				if err := variational.Load(first); err != nil {
					t.Fatal(err)
				}
				testutil.Compare(t, name, scan(variational), testutil.Array(want, len(want)), testutil.Tolerance{RTol: 1e-5, ATol: 1e-5})
			}
		}
	})
}
