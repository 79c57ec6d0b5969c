package engine

import (
	"fmt"
	"slices"
)

// Under exchange of labels a chain stays in its row of the device and takes the β and the step size of another rung, so
// that row k·B + b, as everybody but the device counts, is row place[k·B + b] there. The chains of a ladder stay among the
// rows of that ladder, those of equal remainder by B.

// checkRows checks that every row is named once, in its own ladder. Nil is right too.
func (s Spec) checkRows(rows []int32) error {
	if rows == nil {
		return nil
	}
	if !s.byLabel() {
		return fmt.Errorf("length %d, want none under exchange of states", len(rows))
	}
	if len(rows) != s.rows() {
		return fmt.Errorf("length %d, want %d", len(rows), s.rows())
	}
	seen := make([]bool, s.rows())
	for i, row := range rows {
		if row < 0 || int(row) >= s.rows() || seen[row] || (int(row)-i)%s.Chains != 0 {
			return fmt.Errorf("row %d has %d, want every number below %d once, with the same remainder by %d", i, row, s.rows(), s.Chains)
		}
		seen[row] = true
	}
	return nil
}

// moveLabels applies a sweep: row i goes on with the chain of row perm[i].
func (s *Shard) moveLabels(perm []int32) error {
	if err := s.spec.checkRows(perm); err != nil {
		return err
	}
	s.place = permuted(s.place, perm, 1)
	s.setRows()
	return nil
}

// toRows puts rows of width numbers where place says, fromRows gets them from there. A nil place changes nothing.
func toRows[T any](v []T, place []int32, width int) []T {
	out := slices.Clone(v)
	for i, row := range place {
		copy(out[int(row)*width:(int(row)+1)*width], v[i*width:(i+1)*width])
	}
	return out
}

func fromRows[T any](v []T, place []int32, width int) []T {
	if place == nil {
		return v
	}
	return permuted(v, place, width)
}

// rungMeans are the means over the ladders of v [rungs·ladders].
func rungMeans(v []float64, rungs int) []float64 {
	means, ladders := make([]float64, rungs), len(v)/rungs
	for i, x := range v {
		means[i/ladders] += x
	}
	for k := range means {
		means[k] /= float64(ladders)
	}
	return means
}
