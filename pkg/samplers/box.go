package samplers

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// Box is the interval [Lo, Hi] of every coordinate, finite and with Lo < Hi. [Path.Within] restricts laws to it: outside,
// the density is 0. That is another thing than Langevin.Clamp, which piles up states on the bounds.
type Box struct{ Lo, Hi float64 }

// Outside is true for each row of x [rows, dim] with a coordinate beyond a wall, [rows]. A NaN is beyond none.
func (b Box) Outside(x *Node) *Node {
	return LogicalAny(LogicalOr(LessThan(x, ConstAs(x, b.Lo)), GreaterThan(x, ConstAs(x, b.Hi))), -1)
}

// Reflect mirrors every coordinate of x at the walls, as often as it takes to be inside, and leaves one that is inside as it
// is. A symmetric step that is reflected stays symmetric, so that it has the uniform law of the box as its exact law.
// A coordinate that is not finite becomes NaN.
func (b Box) Reflect(x *Node) *Node {
	lo, hi := ConstAs(x, b.Lo), ConstAs(x, b.Hi)
	width := b.Hi - b.Lo
	// Two widths on, the picture is the same; in between it is a tent with its top at hi.
	way := Sub(x, lo)
	way = Sub(way, MulScalar(Floor(DivScalar(way, 2*width)), 2*width))
	mirrored := Sub(hi, Abs(AddScalar(way, -width)))
	mirrored = MinScalar(MaxScalar(mirrored, b.Lo), b.Hi) // rounding
	inside := LogicalAnd(GreaterOrEqual(x, lo), LessOrEqual(x, hi))
	return Where(inside, x, mirrored)
}

// Fold is Reflect of one number on the host.
func (b Box) Fold(x float64) float64 {
	if x >= b.Lo && x <= b.Hi {
		return x
	}
	width := b.Hi - b.Lo
	way := math.Mod(x-b.Lo, 2*width)
	if way < 0 {
		way += 2 * width
	}
	return min(max(b.Hi-math.Abs(way-width), b.Lo), b.Hi)
}

// Normal makes draws of N(mean, diag std²) restricted to the box out of standard normals z [rows, dim]: a coordinate that falls
// inside stays, and of one that falls outside the place in its tail, which is a uniform number, says where inside it goes.
// mean and std are [dim] or [1, dim]. It is exact to the precision of float32's error function, where the box holds more of
// the normal law than one in a thousand.
func (b Box) Normal(z, mean, std *Node) *Node {
	row := func(v *Node) *Node { return BroadcastToDims(Reshape(v, 1, v.Shape().Size()), z.Shape().Dimensions...) }
	mean, std = row(mean), row(std)
	lo, hi := Div(AddScalar(Neg(mean), b.Lo), std), Div(AddScalar(Neg(mean), b.Hi), std)
	below, above := normalCDF(lo), normalCDF(Neg(hi))
	const least = 0x1p-100 // no number in a tail that has no mass
	u := Where(LessThan(z, lo), Div(normalCDF(z), MaxScalar(below, least)), Div(normalCDF(Neg(z)), MaxScalar(above, least)))
	drawn := normalQuantile(Add(below, Mul(u, Sub(OneMinus(below), above))))
	outside := LogicalOr(LessThan(z, lo), GreaterThan(z, hi))
	x := Add(mean, Mul(std, Where(outside, drawn, z)))
	return MinScalar(MaxScalar(x, b.Lo), b.Hi) // rounding
}

// LogMass is the log of the share of q in the box: log q − LogMass is normalised in there. −Inf says that q is elsewhere.
func (b Box) LogMass(q models.Gaussian) float64 {
	sum := 0.0
	for d, mean := range q.Mean {
		lo, hi := (b.Lo-mean)/(q.Std[d]*math.Sqrt2), (b.Hi-mean)/(q.Std[d]*math.Sqrt2)
		if lo < 0 { // in the lower tail, or around the mean: mirrored, so that no difference of numbers close to 2 is taken
			lo, hi = -hi, -lo
		}
		sum += math.Log((math.Erfc(lo) - math.Erfc(hi)) / 2)
	}
	return sum
}

// normalCDF is Φ.
func normalCDF(x *Node) *Node { return MulScalar(OnePlus(Erf(DivScalar(x, math.Sqrt2))), 0.5) }

// normalQuantile is Φ⁻¹, of a probability kept 1e-7 away from 0 and 1, by Giles' polynomials for the inverse of the error
// function in single precision ("Approximating the erfinv function", 2012).
func normalQuantile(p *Node) *Node {
	p = MinScalar(MaxScalar(p, 1e-7), 1-1e-7)
	w := Neg(Log(MulScalar(Mul(p, OneMinus(p)), 4)))
	center := polynomial(AddScalar(w, -2.5), 2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
		-0.00125372503, -0.00417768164, 0.246640727, 1.50140941)
	tails := polynomial(AddScalar(Sqrt(MaxScalar(w, 0)), -3), -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844,
		0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)
	factor := Where(LessThan(w, ConstAs(w, 5)), center, tails)
	return MulScalar(Mul(factor, AddScalar(MulScalar(p, 2), -1)), math.Sqrt2)
}

// polynomial has its coefficients from the highest power down.
func polynomial(x *Node, coefficients ...float64) *Node {
	sum := MulScalar(OnesLike(x), coefficients[0])
	for _, c := range coefficients[1:] {
		sum = AddScalar(Mul(sum, x), c)
	}
	return sum
}

// Within restricts all laws of the path to a box, that of the reference too: outside, V and log π_β are −∞. LogRef has to be
// normalised in the box, see Box.LogMass, where Z at β = 0 shall be 1, and what is drawn of it has to come from there, see
// Box.Normal.
//
// MALA, HMC and RMHMC reject a proposal that ends outside, and do not report it as one that is not finite; a chain that
// starts outside takes the first proposal inside. Langevin reflects its steps at the walls. On the way, and for gradients,
// the energy is followed outside as if there were no walls.
func (p Path) Within(b Box) Path {
	free := p.V
	return Path{LogRef: p.LogRef, box: &b, free: free, V: func(x *Node) *Node { return b.bar(x, free(x)) }}
}

// bar is v [rows] for rows x inside the box, and −∞ outside.
func (b Box) bar(x, v *Node) *Node {
	return Where(b.Outside(x), BroadcastToDims(Infinity(v.Graph(), v.DType(), -1), v.Shape().Dimensions...), v)
}
