package engine

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// moments is how many vectors of optimizer state the kind keeps beside the parameters.
func (c OptimizerConfig) moments() int {
	switch {
	case c.Kind == "adam" || c.Kind == "adamw":
		return 2
	case c.Momentum > 0:
		return 1
	default:
		return 0
	}
}

// hyperSize is the length of the vector that hyper gives and update reads.
const hyperSize = 4

// hyper is what changes from step to step, computed on the host in float64: learning rate, Adam's two bias corrections,
// decay of the averaged parameters. step counts from 0; steps before it are behind the state.
func (c OptimizerConfig) hyper(lr float64, step int) []float32 {
	t := float64(step + 1)
	h := []float32{float32(lr), 1, 1, 0}
	if c.moments() == 2 {
		h[1] = float32(1 / (1 - math.Pow(c.Beta1, t)))
		h[2] = float32(1 / (1 - math.Pow(c.Beta2, t)))
	}
	// The average follows the parameters closely at first, (1+n)/(10+n), so that it forgets the initial weights.
	h[3] = float32(min(c.EMA, t/(9+t)))
	return h
}

// clip bounds the elements and then the norm of a flat gradient, and returns the norm before clipping.
func (c OptimizerConfig) clip(grad *Node) (clipped, norm *Node) {
	norm = Sqrt(ReduceAllSum(Square(grad)))
	clipped = grad
	if c.ClipValue > 0 {
		clipped = MinScalar(MaxScalar(clipped, -c.ClipValue), c.ClipValue)
	}
	if c.ClipNorm > 0 {
		length := norm
		if c.ClipValue > 0 {
			length = Sqrt(ReduceAllSum(Square(clipped)))
		}
		scale := Div(Scalar(grad.Graph(), grad.DType(), c.ClipNorm), MaxScalar(length, c.ClipNorm))
		clipped = Mul(clipped, scale)
	}
	return clipped, norm
}

// update makes one optimizer step on flat vectors. Adam: Kingma and Ba 2015; AdamW: Loshchilov and Hutter 2019, decay
// apart from the gradient; SGD with heavy-ball momentum: v ← μv + g, θ ← θ − ηv.
func (c OptimizerConfig) update(theta, grad *Node, state []*Node, hyper *Node) (*Node, []*Node) {
	at := func(i int) *Node { return Reshape(Slice(hyper, AxisElem(i))) }
	rate := at(0)
	if c.WeightDecay > 0 && c.Kind != "adamw" {
		grad = Add(grad, MulScalar(theta, c.WeightDecay))
	}
	var step *Node
	switch c.moments() {
	case 2:
		m1 := Add(MulScalar(state[0], c.Beta1), MulScalar(grad, 1-c.Beta1))
		m2 := Add(MulScalar(state[1], c.Beta2), MulScalar(Square(grad), 1-c.Beta2))
		state = []*Node{m1, m2}
		step = Div(Mul(m1, at(1)), AddScalar(Sqrt(Mul(m2, at(2))), c.Epsilon))
	case 1:
		v := Add(MulScalar(state[0], c.Momentum), grad)
		state = []*Node{v}
		step = v
	default:
		step = grad
	}
	if c.WeightDecay > 0 && c.Kind == "adamw" {
		step = Add(step, MulScalar(theta, c.WeightDecay))
	}
	return Sub(theta, Mul(rate, step)), state
}

// averaged moves the averaged parameters towards theta.
func averaged(ema, theta, hyper *Node) *Node {
	decay := Reshape(Slice(hyper, AxisElem(3)))
	return Add(Mul(ema, decay), Mul(theta, OneMinus(decay)))
}

// weights are the parameters in the graph of a training step, with what the optimizer keeps beside them.
type weights struct {
	theta, ema *Node // ema is nil where no average is kept
	moments    []*Node
}

// weightInputs are the inputs of a training step that readWeights reads.
func (c OptimizerConfig) weightInputs(params int) []backend.Input {
	vector := func(name string) backend.Input { return backend.Input{Name: name, Shape: shapes.Make(f32, params)} }
	in := []backend.Input{vector("theta")}
	if c.EMA > 0 {
		in = append(in, vector("ema"))
	}
	for i := range c.moments() {
		in = append(in, vector(fmt.Sprintf("moment%d", i+1)))
	}
	return in
}

func (c OptimizerConfig) readWeights(r *reader) (w weights) {
	w.theta = r.next()
	if c.EMA > 0 {
		w.ema = r.next()
	}
	for range c.moments() {
		w.moments = append(w.moments, r.next())
	}
	return w
}

// descend makes one optimizer step from w down the gradient of a loss in the pieces of θ, and gives the norm of that
// gradient before clipping.
func (c OptimizerConfig) descend(w weights, loss *Node, pieces []*Node, hyper *Node) (next weights, norm *Node) {
	return c.descendBy(w, flatten(Gradient(loss, pieces...)), hyper)
}

// descendBy is descend with a given flat gradient.
func (c OptimizerConfig) descendBy(w weights, gradient, hyper *Node) (next weights, norm *Node) {
	grad, norm := c.clip(gradient)
	next.theta, next.moments = c.update(w.theta, grad, w.moments, hyper)
	if w.ema != nil {
		next.ema = averaged(w.ema, next.theta, hyper)
	}
	return next, norm
}

// nodes are the outputs that replace the inputs of weightInputs, in their order.
func (w weights) nodes() []*Node {
	out := []*Node{w.theta}
	if w.ema != nil {
		out = append(out, w.ema)
	}
	return append(out, w.moments...)
}
