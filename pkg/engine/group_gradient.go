package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// With GradientOn "all" every shard of a group computes the gradient of a slice of the positives and of the negatives: shard i of n
// that of part i of the batch and of the negatives of part i of the ladders. Under placement "ladder" these are the shard's own. The
// loss is linear in the weights of its rows, so that the slices' gradients, each with the weights that its rows have in the whole,
// add up to that of the step. A slice that is smaller than the largest is filled up with rows of weight 0: all shards run one program.

// gradient is the gradient of a step and its scores but for the norm, at the lead; nil elsewhere.
func (g *group) gradient(positives []float32, negatives []negative, live *liveRows, weights []float32) ([]float32, Scores, error) {
	if g.slope == nil {
		var err error
		if g.slope, err = g.compileSlope(); err != nil {
			return nil, Scores{}, err
		}
	}
	parts, errs := make([][]float32, len(g.shards)), make([]error, len(g.shards))
	inputs := make([]*stepInput, len(g.shards))
	for i, s := range g.shards {
		if s == nil {
			continue
		}
		var err error
		if inputs[i], err = g.sliceInput(i, positives, negatives, live, weights); err != nil {
			return nil, Scores{}, err
		}
	}
	var wait sync.WaitGroup
	for i, s := range g.shards {
		if s == nil {
			continue
		}
		wait.Go(func() {
			c := &call{}
			c.keep(s.theta)
			addSlice(c, g.spec.dim(), inputs[i])
			if parts[i], errs[i] = c.run(g.slope); errs[i] != nil {
				errs[i] = fmt.Errorf("shard %d: %w", g.places[i].ID, errs[i])
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, Scores{}, err
	}
	sum, err := summation{g.places, g.layout.Lead(), g.mesh}.add(g.call, parts)
	if err != nil || sum == nil {
		return nil, Scores{}, err
	}
	n := len(sum) - NumScores
	return sum[:n], unpackScores(to64(sum[n:])), nil
}

// sliceInput is what shard i learns from.
func (g *group) sliceInput(i int, positives []float32, negatives []negative, live *liveRows, weights []float32) (*stepInput, error) {
	n, dim := len(g.shards), g.spec.dim()
	from, to := PartOf(g.spec.Batch, i, n)
	in := &stepInput{positives: slices.Clone(positives[from*dim : to*dim])}
	in.positiveWeights = slices.Repeat([]float32{1 / float32(g.spec.Batch)}, to-from)
	var err error
	if in.negatives, err = g.negatives(i, negatives, live); err != nil {
		return nil, err
	}
	for j, of := range negatives {
		switch {
		case of.worker != i:
		case g.spec.Weighted:
			in.weights = append(in.weights, weights[j])
		default:
			in.weights = append(in.weights, 1/float32(len(negatives)))
		}
	}
	pad := func(rows, weights *[]float32, n int) {
		for len(*weights) < n {
			*rows, *weights = append(*rows, positives[:dim]...), append(*weights, 0)
		}
	}
	pad(&in.positives, &in.positiveWeights, g.slicePositives())
	pad(&in.negatives, &in.weights, g.sliceNegatives())
	return in, nil
}

// slicePositives and sliceNegatives are the rows of the largest slice.
func (g *group) slicePositives() int { return largestPart(g.spec.Batch, len(g.places)) }

func (g *group) sliceNegatives() int {
	return largestPart(g.spec.Chains, len(g.places)) * (g.spec.negatives() / g.spec.Chains)
}

func addSlice(c *call, dim int, in *stepInput) {
	for _, part := range []struct{ rows, weights []float32 }{{in.positives, in.positiveWeights}, {in.negatives, in.weights}} {
		n := len(part.weights)
		c.host(tensors.FromFlatDataAndDimensions(part.rows, n, dim))
		c.host(tensors.FromFlatDataAndDimensions(part.weights, n))
	}
}

// compileSlope compiles the gradient of a slice, in the order of addSlice. Its output is what summation adds: [P and scores].
func (g *group) compileSlope() (*backend.Program, error) {
	dim, up, down := g.spec.dim(), g.slicePositives(), g.sliceNegatives()
	in := []backend.Input{
		{Name: "theta", Shape: shapes.Make(f32, max(1, models.NumParams(g.spec.Network)))},
		{Name: "positives", Shape: shapes.Make(f32, up, dim)}, {Name: "positive_weights", Shape: shapes.Make(f32, up)},
		{Name: "negatives", Shape: shapes.Make(f32, down, dim)}, {Name: "negative_weights", Shape: shapes.Make(f32, down)},
	}
	return backend.Compile(g.backend, "slope", in, func(nodes []*Node) []*Node {
		pieces := models.Unpack(g.spec.Network, nodes[0])
		terms := g.spec.loss(models.At(g.spec.Network, pieces), nodes[2], nodes[4]).Build(nodes[1], nodes[3])
		return []*Node{gradientAndScores(terms, pieces)}
	})
}
