// Package couplings decides which noise row goes with which data row before a transport loss draws the line between them.
//
// Flow matching, equilibrium matching and energy matching learn from pairs (x₀, x₁). Pairs taken at random make lines that
// cross; pairs that are close to each other make straighter ones, which are easier to learn and to integrate. A [Coupling]
// keeps the order of the noise and says which data row each noise row gets:
//
//	c, err := couplings.Config{Kind: "exact_ot"}.Build()
//	if err != nil {
//		return err
//	}
//	p, err := c.Pair(noise, data, dim, rng.New(seed, rng.Coupling, step, shard).Float64)
//	if err != nil {
//		return err
//	}
//	data, labels = couplings.Take(data, dim, p.Index), couplings.Take(labels, 1, p.Index)
//
// Labels, and whatever else belongs to a data row, must take the same order as the rows. A coupling of all rows makes the
// law of the noise depend on the label; [PairWithinClasses] keeps it the same for every label.
//
// Everything is computed on the host in float64 and is a function of its arguments: nothing is differentiated through,
// and equal arguments give equal bits on any number of cores.
package couplings

import (
	"errors"
	"fmt"
	"math"
)

// Coupling pairs noise with data.
type Coupling interface {
	// Pair pairs the noise rows x0 [n, dim] with as many data rows x1 [n, dim], both row-major. u gives uniform numbers
	// in [0, 1); a coupling that draws calls it once a noise row, in order, and the others never do: they take nil.
	// Numbers that are not finite are an error that names their row.
	Pair(x0, x1 []float64, dim int, u func() float64) (Pairing, error)
}

// Pairing is what a Coupling decides for n noise rows.
type Pairing struct {
	Index   []int     // the data row of each noise row; nil where Data is given
	Weights []float64 // weight of each pair in the loss, with mean 1; nil where all are equal
	Data    []float64 // data rows of the coupling's own [n, dim], in place of those it was given (Reflow); else nil
}

// Take is the rows of a table [n, width] in the order of index: the data, or with width 1 the labels, of a Pairing. An
// index may name a row twice, or not at all. A nil index gives the table itself.
func Take[T any](rows []T, width int, index []int) []T {
	if index == nil {
		return rows
	}
	out := make([]T, 0, len(index)*width)
	for _, i := range index {
		out = append(out, rows[i*width:(i+1)*width]...)
	}
	return out
}

// PairWithinClasses pairs rows with equal labels only. Noise has no label of its own: noise row i counts as one of class
// labels[i], the label of the data row that it came with, so every class has as many noise rows as data rows. The labels
// stay in place, for data row Index[i] has the label of row i, and given a label the noise is still the noise that a
// sampler starts from, which a coupling across classes does not promise (Cheng and Schwing, "The curse of conditions",
// 2025). The coupling sees one class at a time, and what it does by the scale of the costs it does by that of the class.
func PairWithinClasses(c Coupling, x0, x1 []float64, dim int, labels []int, u func() float64) (Pairing, error) {
	n, err := check(x0, x1, dim)
	if err != nil {
		return Pairing{}, fmt.Errorf("couplings: %w", err)
	}
	if len(labels) != n {
		return Pairing{}, fmt.Errorf("couplings: %d labels for %d rows, want one a row", len(labels), n)
	}
	var classes []int // in the order of their first rows
	members := map[int][]int{}
	for i, label := range labels {
		if members[label] == nil {
			classes = append(classes, label)
		}
		members[label] = append(members[label], i)
	}
	out := Pairing{Index: make([]int, n)}
	for _, label := range classes {
		rows := members[label]
		part, err := c.Pair(Take(x0, dim, rows), Take(x1, dim, rows), dim, u)
		if err != nil {
			return Pairing{}, fmt.Errorf("class %d: %w", label, err)
		}
		if part.Index == nil {
			return Pairing{}, errors.New("couplings: this coupling has data of its own, want one that orders the given data")
		}
		if part.Weights != nil && out.Weights == nil {
			out.Weights = make([]float64, n)
		}
		for k, i := range rows {
			out.Index[i] = rows[part.Index[k]]
			if part.Weights != nil {
				out.Weights[i] = part.Weights[k]
			}
		}
	}
	return out, nil
}

// Independent pairs row i with row i: noise and data do not know of each other.
type Independent struct{}

// Pair implements Coupling.
func (Independent) Pair(x0, x1 []float64, dim int, _ func() float64) (Pairing, error) {
	n, err := check(x0, x1, dim)
	if err != nil {
		return Pairing{}, fmt.Errorf("couplings: %w", err)
	}
	return Pairing{Index: identity(n)}, nil
}

// Reflow pairs noise with where a trained flow takes it (Liu, Gong and Liu, "Flow straight and fast", 2023, rectified
// flow): learning from such pairs again straightens the paths.
type Reflow struct {
	flow func(x0 []float64, dim int) ([]float64, error)
}

// NewReflow returns the coupling x₁ = flow(x₀), with rows [n, dim] in and out.
func NewReflow(flow func(x0 []float64, dim int) ([]float64, error)) Reflow { return Reflow{flow} }

// Pair implements Coupling. The data given are not looked at and may be nil; those of the Pairing are the flow's. Labels
// that the flow was led by keep the order of the noise.
func (r Reflow) Pair(x0, _ []float64, dim int, _ func() float64) (Pairing, error) {
	if _, err := check(x0, x0, dim); err != nil {
		return Pairing{}, fmt.Errorf("couplings: %w", err)
	}
	data, err := r.flow(x0, dim)
	if err != nil {
		return Pairing{}, fmt.Errorf("couplings: reflow: %w", err)
	}
	if _, err := check(x0, data, dim); err != nil {
		return Pairing{}, fmt.Errorf("couplings: reflow: %w", err)
	}
	return Pairing{Data: data}, nil
}

func identity(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// check refuses tables that are not two [n, dim] ones of finite numbers, and says n.
func check(x0, x1 []float64, dim int) (n int, err error) {
	if dim < 1 || len(x0) == 0 || len(x0)%dim != 0 {
		return 0, fmt.Errorf("%d numbers of noise in rows of %d, want at least one full row", len(x0), dim)
	}
	if len(x1) != len(x0) {
		return 0, fmt.Errorf("%d numbers of data for %d of noise, want as many", len(x1), len(x0))
	}
	for name, rows := range [2][]float64{x0, x1} {
		for i, v := range rows {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return 0, fmt.Errorf("%s row %d, column %d is %g, want finite numbers", [2]string{"noise", "data"}[name], i/dim, i%dim, v)
			}
		}
	}
	return len(x0) / dim, nil
}
