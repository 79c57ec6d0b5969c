package interpolants_test

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
)

// The point between a noise and a datum, the velocity there, and the noise that the velocity gives back.
func ExampleAt() {
	b, err := backend.Open(context.Background(), backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		panic(err)
	}
	defer b.Close()
	row := shapes.Make(dtypes.Float64, 1, 2)
	inputs := []backend.Input{{Name: "x0", Shape: row}, {Name: "x1", Shape: row}, {Name: "t", Shape: shapes.Make(dtypes.Float64, 1)}}
	program, err := backend.Compile(b, "path", inputs, func(in []*Node) []*Node {
		path := interpolants.Linear{}
		xt, ut := interpolants.At(path, in[0], in[1], in[2])
		return []*Node{xt, ut, interpolants.VelocityToNoise(path, xt, ut, in[2])}
	})
	if err != nil {
		panic(err)
	}
	defer program.Close()
	out, err := program.Run(tensors.FromValue([][]float64{{1, -1}}), tensors.FromValue([][]float64{{3, 3}}), tensors.FromValue([]float64{0.25}))
	if err != nil {
		panic(err)
	}
	fmt.Println(out[0].Value(), out[1].Value(), out[2].Value())
	// Output: [[1.5 0]] [[2 4]] [[1 -1]]
}
