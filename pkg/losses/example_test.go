package losses_test

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// Discrepancy is energy discrepancy: mean log(Weight/M + 1/M Σᵢ exp(E(x) − E(x + σz + σzᵢ))) with M points around a noisy
// row, which pushes energies up near the data and down at it (Schröder et al. 2023).
type Discrepancy struct {
	Points int                // M
	Sigma  schedules.Schedule // σ over the training steps
	Weight float64            // keeps the logarithm from −∞
	losses.Penalties
}

func (l Discrepancy) Needs(batch, dim int) losses.Needs {
	return losses.Needs{Energy: true, Scalars: []losses.Setting{{Name: "sigma", At: l.Sigma}}, Draws: []losses.Draw{
		{Name: "noise", Dims: []int{1, batch, dim}},
		{Name: "around", Dims: []int{l.Points, batch, dim}},
	}}
}

func (l Discrepancy) Build(m losses.Model, in losses.Batch) losses.Result {
	batch, dim := in.X.Shape().Dimensions[0], in.X.Shape().Dimensions[1]
	noise := Mul(Add(in.Draws[0], in.Draws[1]), in.Scalars[0])
	around := Reshape(Add(InsertAxes(in.X, 0), noise), l.Points*batch, dim)
	difference := Sub(InsertAxes(m.Energy(in.X), 0), Reshape(m.Energy(around), l.Points, batch))
	inside := AddScalar(ReduceMean(Exp(difference), 0), l.Weight/float64(l.Points))
	return l.Add(m, in, losses.Result{Loss: ReduceAllMean(Log(inside))})
}

// A loss of one's own is a type with two methods. Here it is, with an energy w‖x‖² that is flat at first: the loss is
// log(1 + 1/4), and its gradient the mean of (‖x‖² − mean ‖x + noise‖²)/(1 + 1/4).
func ExampleLoss() {
	sigma, err := schedules.Constant(0.5).Build()
	if err != nil {
		panic(err)
	}
	var loss losses.Loss = Discrepancy{Points: 4, Sigma: sigma, Weight: 1}
	const batch, dim = 2, 1
	needs := loss.Needs(batch, dim)
	inputs := []backend.Input{
		{Name: "weight", Shape: shapes.Make(dtypes.Float32)},
		{Name: "rows", Shape: shapes.Make(dtypes.Float32, batch, dim)},
	}
	for _, s := range needs.Scalars {
		inputs = append(inputs, backend.Input{Name: s.Name, Shape: shapes.Make(dtypes.Float32)})
	}
	for _, d := range needs.Draws {
		inputs = append(inputs, backend.Input{Name: d.Name, Shape: shapes.Make(dtypes.Float32, d.Dims...)})
	}
	b, err := backend.Open(context.Background(), backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		panic(err)
	}
	program, err := backend.Compile(b, "loss", inputs, func(in []*Node) []*Node {
		energy := func(x *Node) *Node { return Mul(in[0], ReduceSum(Square(x), -1)) }
		result := loss.Build(losses.Model{Energy: energy}, losses.Batch{X: in[1], Scalars: in[2:3], Draws: in[3:]})
		return []*Node{result.Loss, Gradient(result.Loss, in[0])[0]}
	})
	if err != nil {
		panic(err)
	}
	defer program.Close()
	out, err := program.Run(tensors.FromValue(float32(0)), tensors.FromValue([][]float32{{1}, {-1}}),
		tensors.FromValue(float32(needs.Scalars[0].At.At(0))), tensors.FromValue([][][]float32{{{0}, {0}}}),
		tensors.FromValue([][][]float32{{{2}, {2}}, {{-2}, {-2}}, {{2}, {2}}, {{-2}, {-2}}}))
	if err != nil {
		panic(err)
	}
	fmt.Printf("loss %.4f gradient %.4f\n", out[0].Value(), out[1].Value())
	// Output: loss 0.2231 gradient -0.8000
}
