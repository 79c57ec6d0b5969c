package losses_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// BenchmarkLoss is one loss and its gradient in the weights of an MLP dim-128-128, batch 256, on XLA's CPU backend.
func BenchmarkLoss(b *testing.B) {
	for _, bc := range []struct {
		name   string
		config losses.Config
		dim    int
	}{
		{"score_matching", losses.Config{Kind: "score_matching"}, 2},
		{"hutchinson", losses.Config{Kind: "score_matching", HessianMethod: "hutchinson"}, 2},
		{"sliced_1", losses.Config{Kind: "sliced_score_matching", NProjections: ptr(1)}, 2},
		{"sliced_5", losses.Config{Kind: "sliced_score_matching"}, 2},
		{"denoising", losses.Config{Kind: "denoising_score_matching"}, 2},
		{"equilibrium_matching", losses.Config{Kind: "equilibrium_matching"}, 2},
		{"equilibrium_matching_dot", losses.Config{Kind: "equilibrium_matching", EnergyType: "dot"}, 2},
		{"flow_matching", losses.Config{Kind: "flow_matching"}, 2},
		{"energy_matching", losses.Config{Kind: "energy_matching"}, 2},
		{"score_matching_64", losses.Config{Kind: "score_matching"}, 64},
	} {
		b.Run(bc.name, func(b *testing.B) { benchmark(b, bc.config, bc.dim) })
	}
}

func benchmark(b *testing.B, config losses.Config, dim int) {
	const batch = 256
	loss, err := config.Build()
	if err != nil {
		b.Fatal(err)
	}
	hidden := models.MLPConfig{Hidden: []int{128, 128}, Activation: "silu", Init: "torch"}
	needs := loss.Needs(batch, dim)
	var network models.Network
	if config.Kind == "flow_matching" || config.Kind == "equilibrium_matching" {
		network, err = models.NewFieldMLP(dim, hidden)
	} else {
		network, err = models.NewMLP(dim, hidden)
	}
	if err != nil {
		b.Fatal(err)
	}
	var inputs []backend.Input
	var args []*tensors.Tensor
	feed := func(data []float32, dims ...int) {
		inputs = append(inputs, backend.Input{Name: fmt.Sprintf("in%d", len(inputs)), Shape: shapes.Make(dtypes.Float32, dims...)})
		args = append(args, tensors.FromFlatDataAndDimensions(data, dims...))
	}
	values := func(dims ...int) (out []float32) {
		n := 1
		for _, d := range dims {
			n *= d
		}
		for i := range n {
			out = append(out, float32(i*37%101+1)/103)
		}
		return out
	}
	var theta []float32
	for _, v := range models.InitParams(network, 1) {
		theta = append(theta, float32(v))
	}
	dims := [][]int{{batch, dim}}
	for _, d := range needs.Draws {
		dims = append(dims, d.Dims)
	}
	for range needs.Scalars {
		dims = append(dims, nil)
	}
	dims = append(dims, []int{batch, dim}, []int{batch, dim})
	feed(theta, len(theta))
	for _, d := range dims {
		feed(values(d...), d...)
	}
	p, err := backend.Compile(testutil.Backend(b, backend.CPU), "bench", inputs, func(in []*Node) []*Node {
		weights := models.Unpack(network, in[0])
		all := losses.Batch{X: in[1], Source: in[len(in)-2], Negatives: in[len(in)-1]}
		all.Draws = in[2 : 2+len(needs.Draws)]
		all.Scalars = in[2+len(needs.Draws) : len(in)-2]
		result := loss.Build(modelOf(network, weights), all)
		return append([]*Node{result.Loss}, Gradient(result.Loss, weights...)...)
	})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		out, err := p.Run(args...)
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
		backend.Release(out...)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/10].Microseconds())/1e3, "p10-ms") // on a shared machine the mean says little
}
