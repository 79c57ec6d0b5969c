package samplers_test

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// Two thousand chains on the energy x²/8, that of N(0, 4), all started at 0.
func ExampleMALA() {
	const rows, dim, steps = 2000, 1, 50
	b, err := backend.Open(context.Background(), backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		panic(err)
	}
	inputs := []backend.Input{{Name: "key", Shape: samplers.KeyShape}}
	chains, err := backend.Compile(b, "chains", inputs, func(in []*Node) []*Node {
		g := in[0].Graph()
		kernel := samplers.MALA{}
		all := func(v float64) *Node { return BroadcastToDims(Scalar(g, dtypes.Float32, v), rows) }
		source := samplers.NewSource(in[0], dtypes.Float32, steps*samplers.StepCount(kernel, rows, dim))
		energy := func(x *Node) *Node { return DivScalar(ReduceSum(Square(x), -1), 8) }

		target := samplers.Target{Beta: all(1), Path: samplers.Power(energy)}
		p := target.At(BroadcastToDims(Scalar(g, dtypes.Float32, 0), rows, dim))
		var info samplers.Info
		for range steps {
			p, info = kernel.Step(target, p, all(2), source.Step(kernel, rows, dim))
		}
		return []*Node{ReduceAllMean(Square(p.X)), ReduceAllMean(info.Accept)}
	})
	if err != nil {
		panic(err)
	}
	defer chains.Close()
	out, err := chains.Run(tensors.FromValue([]uint64{1, 2, 3}))
	if err != nil {
		panic(err)
	}
	fmt.Printf("E x² = %.0f, acceptance %.1f\n", out[0].Value(), out[1].Value())
	// Output: E x² = 4, acceptance 0.9
}

// Hamiltonian Monte Carlo on E = ½·4·x², the energy of N(0, ¼), with a step size that falls over the run.
func ExampleRun() {
	ctx := context.Background()
	b, err := backend.Open(ctx, backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		panic(err)
	}
	energy, err := models.New("harmonic", 1, map[string]any{"k": 4})
	if err != nil {
		panic(err)
	}
	trace, err := samplers.Run(ctx, b, samplers.RunOptions{
		Sampler: samplers.Config{Kind: "hmc", Steps: 20, LeapfrogSteps: 4, StepSize: schedules.Config{Kind: "linear", Start: 0.4, End: 0.2, Steps: schedules.WholeRun}},
		Network: energy, Chains: 4000, Burn: 10, Thin: 10, Diagnostics: true, Seed: 1,
	})
	if err != nil {
		panic(err)
	}
	fmt.Printf("kept %d steps, variance %.2f at the last\n", trace.Kept, trace.Variance[1])
	// Output: kept 2 steps, variance 0.25 at the last
}
