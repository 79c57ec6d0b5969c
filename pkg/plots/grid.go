package plots

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Grid is a function sampled at NX×NY points that span a box with their outermost ones on its edges. Values are
// row-major from the bottom: Values[j*NX+i] belongs to x = X0 + i·(X1−X0)/(NX−1), y = Y0 + j·(Y1−Y0)/(NY−1).
type Grid struct {
	X0, X1, Y0, Y1 float64
	NX, NY         int
	Values         []float64
}

// NewGrid returns a grid of zeros, whose Values the caller fills in the order of Points.
func NewGrid(x0, x1, y0, y1 float64, nx, ny int) Grid {
	return Grid{X0: x0, X1: x1, Y0: y0, Y1: y1, NX: nx, NY: ny, Values: make([]float64, max(0, nx*ny))}
}

// GridAround returns a grid of zeros over a box around points [n, 2], wider than they are by a share of their extent on
// each side (0.25 is a good one). Its longer side has resolution points, spaced alike along both axes.
func GridAround(points []float64, share float64, resolution int) (Grid, error) {
	if err := checkPoints("points", points); err != nil {
		return Grid{}, fmt.Errorf("plots: grid: %w", err)
	}
	if resolution < 2 || !(share >= 0) {
		return Grid{}, fmt.Errorf("plots: grid: resolution %d, share %g, want at least 2 and 0", resolution, share)
	}
	lo, hi := [2]float64{math.Inf(1), math.Inf(1)}, [2]float64{math.Inf(-1), math.Inf(-1)}
	for i, x := range points {
		lo[i%2], hi[i%2] = min(lo[i%2], x), max(hi[i%2], x)
	}
	size := max(hi[0]-lo[0], hi[1]-lo[1])
	if size == 0 {
		size = 1
	}
	var n [2]int
	for k := range lo {
		pad := share * size
		if hi[k]-lo[k]+2*pad < size/10 { // points on a line
			pad = size / 4
		}
		lo[k], hi[k] = lo[k]-pad, hi[k]+pad
	}
	longest := max(hi[0]-lo[0], hi[1]-lo[1])
	for k := range lo {
		n[k] = max(2, 1+int(math.Round(float64(resolution-1)*(hi[k]-lo[k])/longest)))
	}
	return NewGrid(lo[0], hi[0], lo[1], hi[1], n[0], n[1]), nil
}

// Points returns the coordinates [NX·NY, 2] in the order of Values.
func (g Grid) Points() []float64 {
	points := make([]float64, 0, 2*g.NX*g.NY)
	for j := range g.NY {
		for i := range g.NX {
			points = append(points, g.x(i), g.y(j))
		}
	}
	return points
}

func (g Grid) x(i int) float64 { return g.X0 + float64(i)*(g.X1-g.X0)/float64(g.NX-1) }
func (g Grid) y(j int) float64 { return g.Y0 + float64(j)*(g.Y1-g.Y0)/float64(g.NY-1) }

// check reports what keeps a grid from being drawn.
func (g Grid) check() error {
	var errs []error
	if g.NX < 2 || g.NY < 2 {
		errs = append(errs, fmt.Errorf("grid: %d×%d points, want at least 2×2", g.NX, g.NY))
	}
	if !(g.X0 < g.X1) || !(g.Y0 < g.Y1) || math.IsInf(g.X1-g.X0, 0) || math.IsInf(g.Y1-g.Y0, 0) {
		errs = append(errs, fmt.Errorf("grid: box [%g, %g]×[%g, %g], want finite and rising edges", g.X0, g.X1, g.Y0, g.Y1))
	}
	if len(errs) == 0 && len(g.Values) != g.NX*g.NY {
		errs = append(errs, fmt.Errorf("grid: %d values, want %d×%d", len(g.Values), g.NX, g.NY))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for i, v := range g.Values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("grid: value at (%g, %g): %g, want a finite number", g.x(i%g.NX), g.y(i/g.NX), v)
		}
	}
	return nil
}

// Density takes the values as energies and returns exp(−E), scaled to an integral of 1 over the box.
func (g Grid) Density() (Grid, error) {
	if err := g.check(); err != nil {
		return Grid{}, fmt.Errorf("plots: density: %w", err)
	}
	least := slices.Min(g.Values)
	out := g
	out.Values = make([]float64, len(g.Values))
	for i, e := range g.Values {
		out.Values[i] = math.Exp(least - e)
	}
	mass := 0.0
	for i, p := range out.Values {
		mass += p * out.weight(i)
	}
	for i := range out.Values {
		out.Values[i] /= mass
	}
	return out, nil
}

// weight is a point's area in the trapezoidal rule.
func (g Grid) weight(i int) float64 {
	w := (g.X1 - g.X0) / float64(g.NX-1) * (g.Y1 - g.Y0) / float64(g.NY-1)
	if x := i % g.NX; x == 0 || x == g.NX-1 {
		w /= 2
	}
	if y := i / g.NX; y == 0 || y == g.NY-1 {
		w /= 2
	}
	return w
}

// massLevels returns, for each share, the value above which that share of the mass lies, for values that are a density.
func (g Grid) massLevels(shares []float64) []float64 {
	order := make([]int, len(g.Values))
	total := 0.0
	for i, v := range g.Values {
		order[i] = i
		total += v * g.weight(i)
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case g.Values[a] > g.Values[b]:
			return -1
		case g.Values[a] < g.Values[b]:
			return 1
		}
		return a - b
	})
	levels := make([]float64, len(shares))
	for k, share := range shares {
		sum := 0.0
		for _, i := range order {
			sum += g.Values[i] * g.weight(i)
			if sum >= share*total {
				levels[k] = g.Values[i]
				break
			}
		}
	}
	return levels
}

// at interpolates bilinearly, with u and v in [0, 1] along the box.
func (g Grid) at(u, v float64) float64 {
	x, y := u*float64(g.NX-1), v*float64(g.NY-1)
	i, j := min(int(x), g.NX-2), min(int(y), g.NY-2)
	fx, fy := x-float64(i), y-float64(j)
	row := g.Values[j*g.NX+i:]
	low := row[0]*(1-fx) + row[1]*fx
	high := row[g.NX]*(1-fx) + row[g.NX+1]*fx
	return low*(1-fy) + high*fy
}
