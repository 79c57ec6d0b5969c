package reference_test

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// The Go of docs/coming-from-torchebm.md, which a test compares with this file.

func open() *backend.Backend {
	b, err := backend.Open(context.Background(), backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		panic(err)
	}
	return b
}

func row(dims ...int) shapes.Shape { return shapes.Make(dtypes.Float32, dims...) }

func Example_energyAndGradient() {
	b := open()
	defer b.Close()

	energy, err := models.New("double_well", 2, map[string]any{"h": 2.0, "b": 1.0})
	if err != nil {
		panic(err)
	}
	inputs := []backend.Input{{Name: "x", Shape: row(3, 2)}}
	program, err := backend.Compile(b, "double well", inputs, func(in []*Node) []*Node {
		e, grad := models.EnergyAndGrad(models.At(energy, nil), in[0])
		return []*Node{e, Neg(grad)} // the score is −∇E
	})
	if err != nil {
		panic(err)
	}
	defer program.Close()
	out, err := program.Run(tensors.FromValue([][]float32{{1, 1}, {0, 0}, {0.5, 0}}))
	if err != nil {
		panic(err)
	}
	fmt.Println(out[0].Value(), out[1].Value())
	// Output: [0 4 3.125] [[-0 -0] [0 0] [3 0]]
}

func Example_run() {
	ctx := context.Background()
	b := open()
	defer b.Close()
	energy, err := models.New("harmonic", 2, nil)
	if err != nil {
		panic(err)
	}

	trace, err := samplers.Run(ctx, b, samplers.RunOptions{
		Sampler: samplers.Config{Kind: "hmc", Steps: 40, StepSize: schedules.Constant(0.3), LeapfrogSteps: 5},
		Network: energy, Chains: 1000, Burn: 10, Thin: 10, Trajectory: true, Diagnostics: true, Seed: 1,
	})
	if err != nil {
		panic(err)
	}

	fmt.Println(len(trace.X), len(trace.Trajectory), len(trace.Energy), trace.AcceptRate > 0.95)
	// Output: 2000 8000 4 true
}

func Example_transformer() {
	b := open()
	defer b.Close()

	field, err := models.NewDiT(models.TransformerConfig{
		InChannels: 1, Size: [2]int{4, 4}, PatchSize: 2, EmbedDim: 8, Depth: 1, NumHeads: 2, MLPRatio: 4,
		PosEmbed: "sincos", NumClasses: 10, Frequencies: 16, TimeScale: 1000,
	})
	if err != nil {
		panic(err)
	}
	block := models.AdaLNZeroBlock{EmbedDim: 8, NumHeads: 2, CondDim: 8, MLPRatio: 4}
	build := func(x, t, y, theta *Node) *Node {
		f := models.FieldAt(field, models.Unpack(field, theta))
		guided := models.ClassifierFreeGuidance(f, models.Guidance{Scale: 2, Null: 10})
		return guided(x, t, y)
	}

	n := models.NumParams(field)
	inputs := []backend.Input{{Name: "x", Shape: row(2, 16)}, {Name: "t", Shape: row(2)}, {Name: "y", Shape: shapes.Make(dtypes.Int32, 2)}, {Name: "theta", Shape: row(n)}}
	program, err := backend.Compile(b, "guided", inputs, func(in []*Node) []*Node { return []*Node{build(in[0], in[1], in[2], in[3])} })
	if err != nil {
		panic(err)
	}
	defer program.Close()
	fmt.Println(len(block.Params()), field.Dim())
	// Output: 10 16
}

func Example_interpolantAndIntegrator() {
	b := open()
	defer b.Close()
	path := interpolants.Linear{}
	heun, err := integrators.ByName("heun")
	if err != nil {
		panic(err)
	}
	inputs := []backend.Input{{Name: "x0", Shape: row(1, 2)}, {Name: "x1", Shape: row(1, 2)}}
	program, err := backend.Compile(b, "step", inputs, func(in []*Node) []*Node {
		x0, x1 := in[0], in[1]
		t := Const(x0.Graph(), []float32{0.5})

		xt, ut := interpolants.At(path, x0, x1, t)
		drift := func(x, t *Node) *Node { return Neg(x) }
		next := heun.Step(drift, xt, t, Scalar(x0.Graph(), dtypes.Float32, 0.1))

		return []*Node{xt, ut, next}
	})
	if err != nil {
		panic(err)
	}
	defer program.Close()
	out, err := program.Run(tensors.FromValue([][]float32{{0, 0}}), tensors.FromValue([][]float32{{2, 4}}))
	if err != nil {
		panic(err)
	}
	fmt.Println(out[0].Value(), out[1].Value(), out[2].Value())
	// Output: [[1 2]] [[2 4]] [[0.905 1.81]]
}
