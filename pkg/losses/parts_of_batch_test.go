package losses_test

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/gomlx/gomlx/pkg/core/dtypes"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// The gradient of a loss is the mean of those of equal parts of its batch, for every kind that does not say otherwise.
func TestPartsOfABatchMakeItsGradient(t *testing.T) {
	const batch, dim, parts = 6, 2, 3
	config := models.MLPConfig{Hidden: []int{4}, Activation: "silu", Init: "torch"}
	energy, err := models.NewMLP(dim, config)
	if err != nil {
		t.Fatal(err)
	}
	field, err := models.NewFieldMLP(dim, config)
	if err != nil {
		t.Fatal(err)
	}
	wave := func(from, to float64, dims ...int) testutil.Tensor {
		out := testutil.Filled(0, dims...)
		for i := range out.Data {
			out.Data[i] = from + (to-from)*(0.5+0.5*math.Sin(float64(3*i+1)))
		}
		return out
	}
	every := maps.Clone(everyLoss())
	every["energy_matching of plain means"] = losses.Config{Kind: "energy_matching", CDTrimFraction: new(0.0), CDClamp: new(-1.0)}
	for _, name := range slices.Sorted(maps.Keys(every)) {
		t.Run(name, func(t *testing.T) {
			loss, err := every[name].Build()
			if err != nil {
				t.Fatal(err)
			}
			needs, part := loss.Needs(batch, dim), loss.Needs(batch/parts, dim)
			network := models.Network(energy)
			if needs.Field || needs.Hidden {
				network = field
			}
			in := []testutil.Tensor{wave(-2, 2, batch, dim)}
			axes := []int{0} // of the batch, in every input that has one
			flat := models.InitParams(network, 1)
			var weights []testutil.Tensor
			for _, p := range network.Params() {
				weights = append(weights, testutil.Array(flat[:p.Size()], p.Shape...))
				flat = flat[p.Size():]
			}
			for i, d := range needs.Draws {
				from, to := -2.0, 2.0
				if d.Uniform {
					from, to = 0.01, 0.99
				}
				in = append(in, wave(from, to, d.Dims...))
				axes = append(axes, slices.IndexFunc(d.Dims, func(n int) bool { return n == batch }))
				if part.Draws[i].Dims[axes[len(axes)-1]] != batch/parts {
					t.Fatalf("draw %s of a part is %v, of the whole %v", d.Name, part.Draws[i].Dims, d.Dims)
				}
			}
			if needs.Source {
				// With mean 1 over the batch, and not over its parts.
				in, axes = append(in, wave(-2, 2, batch, dim), testutil.Array([]float64{0.2, 0.4, 1, 1.4, 1.5, 1.5}, batch)), append(axes, 0, 0)
			}
			if needs.Chains != nil {
				in, axes = append(in, wave(-2, 2, batch, dim)), append(axes, 0)
			}
			all := slices.Concat(in, weights)
			for _, s := range needs.Scalars {
				all = append(all, testutil.Filled(s.At.At(0)))
			}
			out := testutil.Eval(t, testutil.Backend(t, backend.Go), dtypes.Float64, all, func(nodes []*Node) []*Node {
				w, scalars := nodes[len(in):len(in)+len(weights)], nodes[len(in)+len(weights):]
				of := func(rows []*Node) []*Node {
					b := losses.Batch{X: rows[0], Draws: rows[1 : 1+len(needs.Draws)], Scalars: scalars}
					rest := rows[1+len(needs.Draws):]
					if needs.Source {
						b.Source, b.Weights, rest = rest[0], rest[1], rest[2:]
					}
					if needs.Chains != nil {
						b.Negatives = rest[0]
					}
					r := loss.Build(modelOf(network, w), b)
					return append([]*Node{r.Loss}, Gradient(r.Loss, w...)...)
				}
				whole := of(nodes[:len(in)])
				var mean []*Node
				for i := range parts {
					var rows []*Node
					for j, x := range nodes[:len(in)] {
						n := batch / parts
						rows = append(rows, SliceAxis(x, axes[j], AxisRange(i*n, (i+1)*n)))
					}
					for j, g := range of(rows) {
						g = DivScalar(g, parts)
						if i == 0 {
							mean = append(mean, g)
						} else {
							mean[j] = Add(mean[j], g)
						}
					}
				}
				return append(whole, mean...)
			})
			n, largest := len(out)/2, 0.0
			for j := range n {
				for k, want := range out[j] {
					largest = max(largest, math.Abs(out[n+j][k]-want)/(1+math.Abs(want)))
				}
			}
			reason := ""
			if c, ok := loss.(losses.Coupled); ok {
				reason = c.Coupled()
			}
			if strings.HasPrefix(name, "energy_matching of") && reason != "" {
				t.Errorf("refused: %s", reason)
			}
			if reason == "" && largest > 1e-12 {
				t.Errorf("parts differ from the whole by %g, want nothing but rounding", largest)
			}
			if c, ok := loss.(losses.EquilibriumMatching); ok && c.Dispersion > 0 && !(reason != "" && largest > 1e-6) {
				t.Errorf("parts differ from the whole by %g, reason %q, want them to differ for the pairs of rows", largest, reason)
			}
		})
	}
}
