package couplings

import "math"

// assign solves the linear assignment problem: the permutation rowTo that makes Σᵢ cost[i, rowTo[i]] smallest, and the
// prices that prove it: u[i] + v[j] ≤ cost[i, j] everywhere, with equality on the pairs of the permutation.
//
// Rows are added one at a time along the shortest augmenting path, in reduced costs, from a start that matches what the
// row and column minima allow (Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
// assignment problems", 1987): at most n³ steps. Among equal costs the lowest number wins, so ties have one answer.
func assign(cost []float64, n int) (rowTo []int, u, v []float64) {
	u, v = make([]float64, n), make([]float64, n)
	rowTo, colFrom := filled(n, -1), filled(n, -1)
	for i := range u {
		u[i] = math.Inf(1)
		for _, c := range cost[i*n : (i+1)*n] {
			u[i] = min(u[i], c)
		}
	}
	for j := range v {
		v[j] = math.Inf(1)
	}
	for i := range u {
		for j, c := range cost[i*n : (i+1)*n] {
			v[j] = min(v[j], c-u[i])
		}
	}
	for i := range u {
		for j, c := range cost[i*n : (i+1)*n] {
			if colFrom[j] < 0 && c-u[i]-v[j] == 0 {
				rowTo[i], colFrom[j] = j, i
				break
			}
		}
	}
	s := search{cost: cost, n: n, u: u, v: v, colFrom: colFrom, dist: make([]float64, n), from: make([]int, n), open: make([]int, n)}
	for i := range rowTo {
		if rowTo[i] < 0 {
			s.augment(i, rowTo)
		}
	}
	return rowTo, u, v
}

// search is Dijkstra's algorithm over the columns, from a row without one.
type search struct {
	cost    []float64
	n       int
	u, v    []float64
	colFrom []int     // the row of each column, or -1
	dist    []float64 // length of the shortest path to each column
	from    []int     // the row before it on that path
	open    []int     // columns whose dist is not final yet, then the final ones, the last one found first
}

func (s *search) augment(start int, rowTo []int) {
	for j := range s.dist {
		s.dist[j], s.open[j] = math.Inf(1), j
	}
	row, length, left, end := start, 0.0, s.n, -1
	for end < 0 {
		costs, base := s.cost[row*s.n:(row+1)*s.n], length-s.u[row]
		best, at := math.Inf(1), -1
		for k, j := range s.open[:left] {
			d := base + (costs[j] - s.v[j])
			if d < s.dist[j] {
				s.dist[j], s.from[j] = d, row
			} else {
				d = s.dist[j]
			}
			// Among nearest columns a free one ends the search.
			if d < best || d == best && (s.colFrom[j] < 0 && s.colFrom[s.open[at]] >= 0) {
				best, at = d, k
			}
		}
		j := s.open[at]
		left--
		s.open[at], s.open[left] = s.open[left], j
		length = best
		if row = s.colFrom[j]; row < 0 {
			end = j
		}
	}
	// Prices move so that the path costs nothing and no reduced cost turns negative.
	s.u[start] += length
	for _, j := range s.open[left:] {
		if i := s.colFrom[j]; i >= 0 {
			s.u[i] += length - s.dist[j]
			s.v[j] -= length - s.dist[j]
		}
	}
	for j := end; ; {
		i := s.from[j]
		s.colFrom[j] = i
		rowTo[i], j = j, rowTo[i]
		if i == start {
			return
		}
	}
}

func filled(n, value int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = value
	}
	return out
}
