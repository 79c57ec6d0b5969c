package main

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/ml/context"
)

// network is a model function as GoMLX's are: two hidden layers of 64. GoMLX's own layers can stand in it as well.
func network(ctx *context.Context, x *Node) *Node {
	h := dense(ctx.In("first"), x, 64)
	h = dense(ctx.In("second"), Mul(h, Sigmoid(h)), 64)
	return dense(ctx.In("third"), Mul(h, Sigmoid(h)), 1)
}

// dense is a linear layer.
func dense(ctx *context.Context, x *Node, out int) *Node {
	weights := ctx.VariableWithShape("weights", shapes.Make(x.DType(), x.Shape().Dimensions[1], out))
	biases := ctx.VariableWithShape("biases", shapes.Make(x.DType(), out))
	return Add(Dot(x, weights.ValueGraph(x.Graph())), Reshape(biases.ValueGraph(x.Graph()), 1, out))
}
