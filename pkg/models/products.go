package models

import (
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// Products is the number of values that the matrix products and convolutions of one evaluation of an [Energy] or a [Field]
// give for each state: about what a backward pass finds in memory, since whatever lies between two of them can be computed
// again. It is 0 for an energy that is a formula.
func Products(b *backend.Backend, f Network) (int, error) {
	one, err := productsOf(b, f, 1)
	if err != nil {
		return 0, err
	}
	two, err := productsOf(b, f, 2)
	return two - one, err // what is done to the weights alone is in both
}

// productsOf counts for a batch.
func productsOf(b *backend.Backend, f Network, batch int) (n int, err error) {
	in := []backend.Input{
		{Name: "theta", Shape: shapes.Make(dtypes.Float32, max(1, NumParams(f)))},
		{Name: "x", Shape: shapes.Make(dtypes.Float32, batch, f.Dim())},
		{Name: "t", Shape: shapes.Make(dtypes.Float32, batch)},
	}
	program, err := backend.Compile(b, "products", in, func(in []*Node) []*Node {
		weights := Unpack(f, in[0])
		var out *Node
		switch f := f.(type) {
		case Energy:
			out = At(f, weights)(in[1])
		case Field:
			out = FieldAt(f, weights)(in[1], in[2], nil)
		default:
			panic(fmt.Errorf("models: %T is neither an energy nor a field", f))
		}
		for _, node := range out.Graph().Nodes() {
			switch node.Type() {
			case NodeTypeDot, NodeTypeDotGeneral, NodeTypeConvGeneral:
				n += node.Shape().Size()
			}
		}
		return []*Node{out}
	})
	if err != nil {
		return 0, err
	}
	program.Close()
	return n, nil
}
