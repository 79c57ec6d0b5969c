package integrators

import (
	"fmt"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// RungeKutta is a scheme given by its tableau:
//
//	kᵢ = f(x + h Σⱼ aᵢⱼ kⱼ, t + cᵢ h),  x⁺ = x + h Σᵢ bᵢ kᵢ
type RungeKutta struct {
	Name  string
	Order int // of x⁺
	// A has a row a stage: aᵢⱼ for j < i, and aᵢᵢ as well where the stage is implicit. Entries left out are 0.
	A [][]float64
	B []float64
	C []float64
	// E are the weights of the error estimate h Σ eᵢ kᵢ, b less the weights of an embedded scheme; nil without one. With FSAL
	// they are one more than B.
	E []float64
	// FSAL, "first same as last", says that the estimate takes in the drift at x⁺, which is the first stage of the next step.
	FSAL bool
	// Iterations is the number of evaluations of f for an implicit stage, a fixed-point (Picard) iteration that begins with
	// f(x + h Σⱼ aᵢⱼ kⱼ). It converges where h aᵢᵢ times the Lipschitz constant of f is below 1, by that factor a round.
	Iterations int
}

// Adaptive says whether the scheme estimates its error, so that step sizes can follow.
func (rk RungeKutta) Adaptive() bool { return rk.E != nil }

// Evaluations is the number of evaluations of f in a step. An error estimate with FSAL takes one more, which saves one in
// the next step.
func (rk RungeKutta) Evaluations() int {
	n := len(rk.B)
	for i := range rk.B {
		if rk.at(i, i) != 0 {
			n += rk.Iterations - 1
		}
	}
	return n
}

// Step builds x⁺ after a step of size h from x [batch, ...] at time t [batch]. h is a scalar, or [batch] for a size of its
// own for each row.
func (rk RungeKutta) Step(f Drift, x, t, h *Node) *Node {
	return rk.combine(x, h, rk.B, rk.stages(f, nil, x, t, h))
}

// StepError is Step with the estimate of its error, of the shape of x. It panics unless the scheme is Adaptive.
func (rk RungeKutta) StepError(f Drift, x, t, h *Node) (next, err *Node) {
	next, err, _ = rk.stepFrom(f, nil, x, t, h)
	return next, err
}

// stepFrom is StepError given the first stage f(x, t), or nil. last is the first stage of the next step with FSAL, else nil.
func (rk RungeKutta) stepFrom(f Drift, first, x, t, h *Node) (next, err, last *Node) {
	if !rk.Adaptive() {
		panic(fmt.Errorf("integrators: %s has no error estimate, want one of %v", rk.Name, AdaptiveNames()))
	}
	k := rk.stages(f, first, x, t, h)
	next = rk.combine(x, h, rk.B, k)
	if rk.FSAL {
		last = evaluate(f, next, Add(t, h))
		k = append(k, last)
	}
	return next, rk.combine(nil, h, rk.E, k), last
}

// SDEStep is Step for dx = f dt + √(2D) dW with standard normal z of the shape of x: √(2Dh) z is added. D is [batch], of a
// shape that broadcasts to that of x, or a scalar; nil means none. The strong order is ½ and the weak order 1, whatever the
// order of the scheme, unless D is constant in x and t.
func (rk RungeKutta) SDEStep(f Drift, diffusion, x, t, h, z *Node) *Node {
	next := rk.Step(f, x, t, h)
	if diffusion == nil {
		return next
	}
	scale := Sqrt(MulScalar(Mul(over(diffusion, x), over(h, x)), 2))
	return Add(next, Mul(scale, z))
}

func (rk RungeKutta) stages(f Drift, first, x, t, h *Node) []*Node {
	var k []*Node
	for i, c := range rk.C {
		if i == 0 && first != nil {
			k = append(k, first)
			continue
		}
		at := t
		if c != 0 {
			at = Add(t, MulScalar(h, c))
		}
		base := rk.combine(x, h, rk.A[i][:min(i, len(rk.A[i]))], k)
		stage := evaluate(f, base, at)
		if a := rk.at(i, i); a != 0 {
			ha := over(MulScalar(h, a), x)
			for range rk.Iterations - 1 {
				stage = evaluate(f, Add(base, Mul(ha, stage)), at)
			}
		}
		k = append(k, stage)
	}
	return k
}

// evaluate is f(x, t), which must have the shape of x: a smaller one would broadcast without a word.
func evaluate(f Drift, x, t *Node) *Node {
	k := f(x, t)
	if !k.Shape().Equal(x.Shape()) {
		panic(fmt.Errorf("integrators: a drift of %s for states %s, want the same shape", k.Shape(), x.Shape()))
	}
	return k
}

// at is aᵢⱼ.
func (rk RungeKutta) at(i, j int) float64 {
	if j < len(rk.A[i]) {
		return rk.A[i][j]
	}
	return 0
}

// combine is x + h Σ wᵢ kᵢ, without x where it is nil.
func (rk RungeKutta) combine(x, h *Node, w []float64, k []*Node) *Node {
	var sum *Node
	for i, weight := range w {
		if weight == 0 {
			continue
		}
		term := k[i]
		if weight != 1 {
			term = MulScalar(term, weight)
		}
		if sum == nil {
			sum = term
		} else {
			sum = Add(sum, term)
		}
	}
	if sum == nil {
		return x
	}
	sum = Mul(over(h, sum), sum)
	if x == nil {
		return sum
	}
	return Add(x, sum)
}
