package integrators_test

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
)

// Two states that turn round the origin at a speed which is an input, as the weights of a network would be: half a turn.
func ExampleSolver() {
	ctx := context.Background()
	b, err := backend.Open(ctx, backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		panic(err)
	}
	defer b.Close()
	dopri5, err := integrators.ByName("dopri5")
	if err != nil {
		panic(err)
	}
	turning, err := integrators.NewSolver(b, integrators.Problem{
		Scheme: dopri5,
		Drift: func(x, t *Node, speed ...*Node) *Node {
			quarter := Const(x.Graph(), [][]float64{{0, 1}, {-1, 0}})
			return Mul(speed[0], Dot(x, quarter))
		},
		State:   shapes.Make(dtypes.Float64, 2, 2),
		Inputs:  []backend.Input{{Name: "speed", Shape: shapes.Make(dtypes.Float64)}},
		Control: integrators.Controller{Atol: 1e-9, Rtol: 1e-6},
	})
	if err != nil {
		panic(err)
	}
	defer turning.Close()
	start := tensors.FromValue([][]float64{{1, 0}, {0, 2}})
	end, _, err := turning.Solve(ctx, start, integrators.Grid(0, 1, 10), tensors.FromScalar(3.14159265))
	if err != nil {
		panic(err)
	}
	for _, row := range end.Value().([][]float64) {
		fmt.Printf("%.1f\n", row)
	}
	// Output:
	// [-1.0 -0.0]
	// [0.0 -2.0]
}
