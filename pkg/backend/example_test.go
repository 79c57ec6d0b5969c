package backend_test

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	"github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

func Example() {
	b, err := backend.Open(context.Background(), backend.Config{Kind: backend.Go, Threads: 2}, backend.Options{})
	if err != nil {
		panic(err)
	}
	input := backend.Input{Name: "x", Shape: shapes.Make(dtypes.Float32, 3)}
	p, err := backend.Compile(b, "norm", []backend.Input{input}, func(in []*graph.Node) []*graph.Node {
		norm := graph.ReduceAllSum(graph.Square(in[0]))
		return append(graph.Gradient(norm, in[0]), norm)
	})
	if err != nil {
		panic(err)
	}
	x := tensors.FromValue([]float32{1, 2, 2})
	out, err := p.Run(x)
	if err != nil {
		panic(err)
	}
	for _, t := range out {
		values, err := backend.Read[float32](t)
		if err != nil {
			panic(err)
		}
		fmt.Println(values)
	}
	backend.Release(append(out, x)...)
	p.Close()
	fmt.Println(b.Why(), b.Close())
	// Output:
	// [2 4 4]
	// [9]
	// go: as asked for <nil>
}
