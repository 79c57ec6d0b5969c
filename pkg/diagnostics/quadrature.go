// Package diagnostics measures how good a trained energy is: its exact negative log-likelihood in one and two dimensions,
// and, in any dimension, how far samples are from data (maximum mean discrepancy, sliced Wasserstein distance, Fréchet
// distance), which modes they reach, and whether a classifier finds the class that they should show. Of the chains that
// gave the samples it says how many independent draws they are worth and whether they agree, of importance weights whether
// their tail can be trusted.
//
//	nll, err := diagnostics.NLL2D(energies, test.Rows, diagnostics.Quadrature{})
//	if err != nil {
//		return err // such as: the energy does not grow outwards
//	}
//	fmt.Printf("%.4f ± %.4f nats, log Z %.4f\n", nll.NLL, nll.StdErr, nll.LogZ)
//	mmd, err := diagnostics.MMD2(samples, test.Rows, 2, diagnostics.MMDOptions{Seed: 7})
//	w, err := diagnostics.SlicedWasserstein(samples, test.Rows, 2, diagnostics.SlicedOptions{Seed: 7})
//	modes, err := diagnostics.Coverage(samples, law.Modes, law.ModeWeights, law.ModeRadius)
//	c, err := diagnostics.TrainClassifier(images, labels, 64, 10, diagnostics.ClassifierOptions{Seed: 7})
//	accuracy, err := c.Accuracy(sampledImages, askedLabels)
//	draws, err := diagnostics.ESS(energiesOfChains)
//	rhat, err := diagnostics.SplitRHat(energiesOfChains) // above 1.01 they have not mixed
//
// Everything is a function of its arguments: what is chosen at random is chosen by counter from a seed.
package diagnostics

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// Energies evaluates an energy at points [n, dim], row-major, and returns n numbers.
type Energies func(points []float64) ([]float64, error)

// Quadrature says how far and how finely to integrate exp(−E). The zero value has the defaults.
type Quadrature struct {
	// Lo and Hi are the corners of the first box, [dim] each. Nil: the rows' own box, half its longest side wider on
	// every side. The box grows where exp(−E) has mass at its rim.
	Lo, Hi []float64
	// Fixed keeps the first box: the density is taken as zero outside it, and nothing there is looked at. It gives a
	// number, which depends on the box, for an energy that does not grow outwards.
	Fixed bool
	// Tolerance is how much log Z may move when the resolution doubles; 1e-4 nats by default.
	Tolerance float64
	// Rim is the share of the mass allowed in the outer sixteenth of the box on each side, and in each ring further out
	// that is probed; 1e-6 by default.
	Rim float64
	// MaxPoints is the largest grid; 2²⁴ points by default.
	MaxPoints int
	// Batch is the number of points of every call of Energies, the last one filled up by repeating a point, so that a
	// compiled graph needs a single shape; 65536 by default.
	Batch int
}

// NLL is a negative log-likelihood and what it was made of.
type NLL struct {
	NLL    float64 // mean E(row) + log Z, in nats
	StdErr float64 // standard error of the mean over the rows
	LogZ   float64 // log ∫ exp(−E)
	// LogZError is how much log Z moved at the last doubling of the resolution; the true error is smaller for a smooth
	// energy.
	LogZError float64
	Rim       float64   // the largest share of the mass in the outer sixteenth at a side of the box
	Rows      int       // number of rows
	Lo, Hi    []float64 // the box integrated over, [dim] each
	Nodes     []int     // grid points along each axis, [dim]
	Points    int       // points evaluated in all, without fillers
}

// ErrNotIntegrable is returned for an energy whose exp(−E) has no finite integral, as far as the quadrature can see.
var ErrNotIntegrable = errors.New("the energy is not integrable, or grows too slowly")

const (
	maxGrowth = 64   // the box may become this many times as wide as the first one
	furthest  = 1024 // the outermost ring probed, in radii of the box
	angles    = 512  // points a ring
)

// NLL2D is the exact negative log-likelihood of rows [n, 2] under the density exp(−E)/Z, with Z by quadrature.
//
// Z is the trapezoidal sum over a box: for a smooth density that dies out inside the box its error falls faster than any
// power of the spacing. The box grows until its rim holds next to no mass; then rings up to 1024 times as far out are
// probed, to find an energy that falls again (a network without confinement); then the resolution doubles until log Z
// rests. An energy that cannot be integrated, or that is NaN or −Inf somewhere, is an error that says where; +Inf is a
// density of zero. Mass in a spot much smaller than a 256th of the first box and away from everything else can be
// missed, as by any quadrature.
func NLL2D(energies Energies, rows []float64, q Quadrature) (NLL, error) {
	return nll(energies, rows, 2, q)
}

// NLL1D is NLL2D on the line: rows are [n].
func NLL1D(energies Energies, rows []float64, q Quadrature) (NLL, error) {
	return nll(energies, rows, 1, q)
}

func nll(energies Energies, rows []float64, dim int, q Quadrature) (NLL, error) {
	fail := func(err error) (NLL, error) { return NLL{}, fmt.Errorf("diagnostics: nll in %d-d: %w", dim, err) }
	if err := checkRows("rows", rows, dim, 1); err != nil {
		return fail(err)
	}
	if q.Tolerance == 0 {
		q.Tolerance = 1e-4
	}
	if q.Rim == 0 {
		q.Rim = 1e-6
	}
	if q.MaxPoints == 0 {
		q.MaxPoints = 1 << 24
	}
	if q.Batch == 0 {
		q.Batch = 1 << 16
	}
	if !(q.Tolerance > 0 && q.Rim > 0 && q.Rim < 1 && q.MaxPoints > 0 && q.Batch > 0) {
		return fail(fmt.Errorf("quadrature %+v, want positive numbers and a rim below 1", q))
	}
	g, err := newGrid(energies, rows, dim, q)
	if err != nil {
		return fail(err)
	}
	if err := g.integrate(); err != nil {
		return fail(err)
	}
	var rowEnergies []float64
	if err := g.evaluate(len(rows)/dim, func(i int, x []float64) { copy(x, rows[i*dim:(i+1)*dim]) },
		func(_ int, _ []float64, e float64) { rowEnergies = append(rowEnergies, e) }); err != nil {
		return fail(err)
	}
	n := float64(len(rowEnergies))
	mean, sd := stat.MeanStdDev(rowEnergies, nil)
	if n == 1 {
		sd = math.NaN() // one row says nothing about its spread
	}
	if math.IsInf(mean, 1) {
		return fail(errors.New("the energy is +Inf at one of the rows, want a density above zero wherever there are data"))
	}
	return NLL{NLL: mean + g.logZ, StdErr: sd / math.Sqrt(n), LogZ: g.logZ, LogZError: g.moved, Rim: g.rim, Rows: len(rowEnergies),
		Lo: g.lo, Hi: g.hi, Nodes: g.nodes(g.level), Points: g.points}, nil
}

// grid integrates exp(−E) over a box.
type grid struct {
	energies         Energies
	q                Quadrature
	dim              int
	lo, hi           []float64
	width0           []float64 // sides of the first box
	level            int       // doublings of the resolution
	logZ, moved, rim float64
	points           int
}

func newGrid(energies Energies, rows []float64, dim int, q Quadrature) (*grid, error) {
	g := &grid{energies: energies, q: q, dim: dim, lo: slices.Clone(q.Lo), hi: slices.Clone(q.Hi)}
	if q.Lo == nil && q.Hi == nil {
		g.lo, g.hi = slices.Clone(rows[:dim]), slices.Clone(rows[:dim])
		for i, v := range rows {
			g.lo[i%dim], g.hi[i%dim] = min(g.lo[i%dim], v), max(g.hi[i%dim], v)
		}
		longest := 0.0
		for a := range dim {
			longest = max(longest, g.hi[a]-g.lo[a])
		}
		if longest == 0 {
			longest = 2 // a single point
		}
		for a := range dim {
			g.lo[a] -= longest / 2
			g.hi[a] += longest / 2
		}
	}
	if len(g.lo) != dim || len(g.hi) != dim {
		return nil, fmt.Errorf("box from %v to %v, want %d numbers each", q.Lo, q.Hi, dim)
	}
	for a := range dim {
		if !(g.lo[a] < g.hi[a]) || math.IsInf(g.hi[a]-g.lo[a], 0) {
			return nil, fmt.Errorf("box from %v to %v, want finite sides above zero", g.lo, g.hi)
		}
		g.width0 = append(g.width0, g.hi[a]-g.lo[a])
	}
	if q.Fixed {
		for i, v := range rows {
			if a := i % dim; v < g.lo[a] || v > g.hi[a] {
				return nil, fmt.Errorf("row %d, column %d is %.4g, outside the fixed box from %.4g to %.4g", i/dim, a, v, g.lo, g.hi)
			}
		}
	}
	return g, nil
}

// nodes are the points along each axis at a level of resolution: the spacing halves with each level, and stays as it is
// while the box grows fourfold (further out the doubling has to find what is needed).
func (g *grid) nodes(level int) []int {
	out := make([]int, g.dim)
	first := map[int]int{1: 1 << 12, 2: 1 << 8}[g.dim]
	for a := range out {
		grown := math.Ceil(math.Log2((g.hi[a]-g.lo[a])/g.width0[a]) - 1e-9)
		out[a] = first << (level + min(int(grown), 2))
	}
	return out
}

func product(n []int) int {
	p := 1
	for _, v := range n {
		p *= v
	}
	return p
}

// integrate grows the box, probes what is outside, and refines, until all three rest.
func (g *grid) integrate() error {
	probed, before := false, math.NaN()
	g.moved = math.NaN()
	for {
		nodes := g.nodes(g.level)
		if product(nodes) > g.q.MaxPoints {
			if math.IsNaN(g.moved) {
				return fmt.Errorf("the coarsest grid has %v points on the box from %.4g to %.4g, want at most %d in all", nodes, g.lo, g.hi, g.q.MaxPoints)
			}
			return fmt.Errorf("log Z still moves by %.2g at the finest grid, want at most %g: the energy is too rough for %d points on the box from %.4g to %.4g",
				g.moved, g.q.Tolerance, g.q.MaxPoints, g.lo, g.hi)
		}
		logZ, rim, err := g.sum(nodes)
		if err != nil {
			return err
		}
		if math.IsInf(logZ, -1) {
			return fmt.Errorf("exp(−E) is zero on the whole box from %.4g to %.4g, want finite energies near the data", g.lo, g.hi)
		}
		g.logZ, g.rim = logZ, slices.Max(rim)
		outside := false
		if !probed && !g.q.Fixed { // before the box grows: an energy that falls for good is found out at the price of one call
			if outside, err = g.probe(); err != nil {
				return err
			}
			probed = true
		}
		grown := false
		for a := 0; a < g.dim && !g.q.Fixed; a++ {
			half := (g.hi[a] - g.lo[a]) / 2
			if rim[2*a] > g.q.Rim || outside {
				g.lo[a], grown = g.lo[a]-half, true
			}
			if rim[2*a+1] > g.q.Rim || outside {
				g.hi[a], grown = g.hi[a]+half, true
			}
		}
		if grown {
			for a := range g.dim {
				if g.hi[a]-g.lo[a] > maxGrowth*g.width0[a] {
					return fmt.Errorf("%w: exp(−E) still has mass at the rim of a box %d times as wide as the one round the data; "+
						"want an energy that grows outwards, such as with model.base: gaussian", ErrNotIntegrable, maxGrowth)
				}
			}
			probed, before, g.moved, g.level = false, math.NaN(), math.NaN(), 0
			continue
		}
		g.moved = math.Abs(logZ - before)
		if g.moved <= g.q.Tolerance { // false for the first level's NaN
			return nil
		}
		before = logZ
		g.level++
	}
}

// sum is log ∫ exp(−E) by the trapezoidal rule, and the share of it in the outer sixteenth at each side of the box,
// [lower, upper] for each axis.
func (g *grid) sum(nodes []int) (logZ float64, rim []float64, err error) {
	step := make([]float64, g.dim)
	volume := 1.0
	for a := range step {
		step[a] = (g.hi[a] - g.lo[a]) / float64(nodes[a]-1)
		volume *= step[a]
	}
	top, total, strips := math.Inf(-1), 0.0, make([]float64, 2*g.dim)
	index := func(i int, at []int) {
		for a := g.dim - 1; a >= 0; a-- {
			at[a], i = i%nodes[a], i/nodes[a]
		}
	}
	at := make([]int, g.dim)
	err = g.evaluate(product(nodes), func(i int, x []float64) {
		index(i, at)
		for a, k := range at {
			x[a] = g.lo[a] + step[a]*float64(k)
		}
	}, func(i int, _ []float64, e float64) {
		if -e > top { // keep the sums relative to the largest term
			shrink := math.Exp(top + e)
			total *= shrink
			floats.Scale(shrink, strips)
			top = -e
		}
		if math.IsInf(e, 1) {
			return
		}
		w := math.Exp(-e - top)
		index(i, at)
		for a, k := range at {
			if k == 0 || k == nodes[a]-1 {
				w /= 2
			}
		}
		total += w
		for a, k := range at {
			if k < nodes[a]/16 {
				strips[2*a] += w
			}
			if k >= nodes[a]-nodes[a]/16 {
				strips[2*a+1] += w
			}
		}
	})
	floats.Scale(1/total, strips)
	return top + math.Log(total*volume), strips, err
}

// probe looks at exp(−E) on rings outside the box, 1, 2, 4, … times as far out as its corners, and reports whether
// there is mass that the box should grow to take in. Mass further out than the box may ever grow is an error.
func (g *grid) probe() (outside bool, err error) {
	radius := 0.0
	for a := range g.dim {
		radius = math.Hypot(radius, (g.hi[a]-g.lo[a])/2)
	}
	each, offset := angles, 0.5 // off the axes, where a product of one-dimensional energies is often special
	if g.dim == 1 {
		each, offset = 2, 0
	}
	rings := 1 + int(math.Log2(furthest))
	logs := make([][]float64, rings)
	lowest := make([][]float64, rings) // the place with the least energy
	err = g.evaluate(rings*each, func(i int, x []float64) {
		r := radius * math.Exp2(float64(i/each))
		sin, cos := math.Sincos(2 * math.Pi * (float64(i%each) + offset) / float64(each))
		x[0] = (g.lo[0]+g.hi[0])/2 + r*cos
		if g.dim == 2 {
			x[1] = (g.lo[1]+g.hi[1])/2 + r*sin
		}
	}, func(i int, x []float64, e float64) {
		k := i / each
		if len(logs[k]) == 0 || -e > slices.Max(logs[k]) {
			lowest[k] = slices.Clone(x)
		}
		logs[k] = append(logs[k], -e)
	})
	if err != nil {
		return false, err
	}
	for k := range logs {
		r := radius * math.Exp2(float64(k))
		size := 2 * r // length of the ring between r and 2r
		if g.dim == 2 {
			size = 3 * math.Pi * r * r
		}
		share := floats.LogSumExp(logs[k]) - math.Log(float64(each)) + math.Log(size) - g.logZ
		if !(share > math.Log(g.q.Rim)) {
			continue
		}
		if math.Exp2(float64(k)) > maxGrowth {
			return false, fmt.Errorf("%w: at %.4g, %.0f times as far out as the box round the data, it is %.4g, which puts e^%.3g times the mass of the box out there; "+
				"want an energy that grows outwards, such as with model.base: gaussian", ErrNotIntegrable, lowest[k], math.Exp2(float64(k)), -slices.Max(logs[k]), share)
		}
		outside = true
	}
	return outside, nil
}

// evaluate calls use with each of n points and its energy, in order. place writes point i.
func (g *grid) evaluate(n int, place func(i int, x []float64), use func(i int, x []float64, e float64)) error {
	points := make([]float64, g.q.Batch*g.dim)
	for start := 0; start < n; start += g.q.Batch {
		count := min(g.q.Batch, n-start)
		for i := range g.q.Batch {
			place(start+min(i, count-1), points[i*g.dim:(i+1)*g.dim])
		}
		e, err := g.energies(points)
		if err != nil {
			return err
		}
		if len(e) != g.q.Batch {
			return fmt.Errorf("%d energies of %d points, want one a point", len(e), g.q.Batch)
		}
		for i := range count {
			x := points[i*g.dim : (i+1)*g.dim]
			if math.IsNaN(e[i]) || math.IsInf(e[i], -1) {
				return fmt.Errorf("the energy is %g at %.4g, want finite numbers", e[i], x)
			}
			use(start+i, x, e[i])
		}
		g.points += count
	}
	return nil
}

// checkRows refuses a table that is not [n, dim] with finite numbers and at least the given number of rows.
func checkRows(name string, rows []float64, dim, least int) error {
	if dim < 1 || len(rows)%dim != 0 {
		return fmt.Errorf("%s: %d numbers, want a multiple of the dimension %d", name, len(rows), dim)
	}
	if len(rows)/dim < least {
		return fmt.Errorf("%s: %d of them, want at least %d", name, len(rows)/dim, least)
	}
	for i, v := range rows {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%s: row %d, column %d is %g, want finite numbers", name, i/dim, i%dim, v)
		}
	}
	return nil
}
