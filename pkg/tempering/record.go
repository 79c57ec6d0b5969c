package tempering

import (
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
)

// Record keeps V of every rung and ladder over the scans of one round of a fixed law: what log Z, the overlap of
// neighbouring rungs and the histograms are computed from. Its memory is bounded: when it is full, every second kept
// scan is dropped and from then on only every second (fourth, eighth, …) scan is kept. Which scans are kept depends on
// their number alone.
//
//	record, err := tempering.NewRecord(ladder.NumRungs(), 64, 4096)
//	for range scans {
//		v := explore(states, ladder.Betas()) // [K·B], rung-major
//		record.Add(v)
//		sweep(v)
//	}
//	z, err := record.LogZ(ladder.Betas())
//	fmt.Printf("log Z %.3f ± %.3f\n", z.Bridge, z.BridgeErr)
//
// Columns that are warming have no place in a record: it is for a round that refills none.
type Record struct {
	rungs, ladders, limit int

	stride int         // every stride-th scan is kept
	seen   int         // scans added
	kept   [][]float64 // V of the scans 0, stride, 2·stride, …, each [K·B] rung-major

	unweighed *unweighed // nil while there is none
}

// unweighed are energies that give a state no weight at all, not even zero, in all scans, kept or not: V = NaN, and +Inf,
// which no density has.
type unweighed struct {
	v                         float64 // of the first
	rung, ladder, scan, count int
}

func (u *unweighed) String() string {
	text := fmt.Sprintf("V is %g on rung %d of ladder %d at scan %d", u.v, u.rung, u.ladder, u.scan)
	if u.count > 1 {
		text += fmt.Sprintf(", the first of %d such", u.count)
	}
	return text
}

// NewRecord returns an empty record of ladders columns of rungs, which keeps at most limit scans, at least 2.
func NewRecord(rungs, ladders, limit int) (*Record, error) {
	if rungs < 1 || ladders < 1 || ladders > math.MaxInt32/max(rungs, 1) {
		return nil, fmt.Errorf("tempering: record: %d ladders of %d rungs, want at least 1 and at most %d rows", ladders, rungs, math.MaxInt32)
	}
	if limit < 2 {
		return nil, fmt.Errorf("tempering: record: limit: %d scans, want at least 2", limit)
	}
	return &Record{rungs: rungs, ladders: ladders, limit: limit, stride: 1}, nil
}

// Add notes V of every chain, [K·B] rung-major, of one scan after exploration and before the swap sweep. It panics on
// another number of values.
func (r *Record) Add(v []float64) {
	if len(v) != r.rungs*r.ladders {
		panic(fmt.Sprintf("tempering: record: %d values, want %d for %d rungs of %d ladders", len(v), r.rungs*r.ladders, r.rungs, r.ladders))
	}
	for row, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 1) {
			if r.unweighed == nil {
				r.unweighed = &unweighed{v: x, rung: row / r.ladders, ladder: row % r.ladders, scan: r.seen}
			}
			r.unweighed.count++
		}
	}
	if r.seen%r.stride == 0 && len(r.kept) == r.limit {
		r.thin()
	}
	if r.seen%r.stride == 0 {
		r.kept = append(r.kept, slices.Clone(v))
	}
	r.seen++
}

// thin drops every second kept scan.
func (r *Record) thin() {
	n := 0
	for i := 0; i < len(r.kept); i += 2 {
		r.kept[n] = r.kept[i]
		n++
	}
	clear(r.kept[n:])
	r.kept = r.kept[:n]
	r.stride *= 2
}

// Scans is the number of scans kept, Stride the distance between two of them.
func (r *Record) Scans() int  { return len(r.kept) }
func (r *Record) Stride() int { return r.stride }

// Chain returns V of one rung and ladder over the kept scans.
func (r *Record) Chain(rung, ladder int) []float64 {
	out := make([]float64, len(r.kept))
	for i, v := range r.kept {
		out[i] = v[rung*r.ladders+ladder]
	}
	return out
}

// rung returns V of a rung, [B·scans] ladder-major: the order of every sum over samples.
func (r *Record) rung(rung int) []float64 {
	n := len(r.kept)
	out := make([]float64, r.ladders*n)
	for i, v := range r.kept {
		for b, x := range v[rung*r.ladders : (rung+1)*r.ladders] {
			out[b*n+i] = x
		}
	}
	return out
}

// Overlap is, for each pair, Σ min(p, q) over bins of V, with p and q the shares of the two rungs in a bin: 1 for equal
// laws, 0 for laws that share no energy and so never swap. Each bin holds as many samples of the two rungs together, so
// that a long tail of V on the hot one does not push all the rest into a single bin.
func (r *Record) Overlap(bins int) []float64 {
	out := make([]float64, r.rungs-1)
	upper := r.rung(0)
	for i := range out {
		lower := upper
		upper = r.rung(i + 1)
		both := slices.Sorted(slices.Values(slices.Concat(lower, upper)))
		out[i] = diagnostics.Overlap(ranks(lower, both), ranks(upper, both), bins)
	}
	return out
}

// ranks is the number of values in sorted below each v; equal values have equal ranks, NaN has none.
func ranks(v, sorted []float64) []float64 {
	out := slices.Clone(v)
	for i, x := range v {
		if math.IsNaN(x) {
			continue
		}
		below, _ := slices.BinarySearch(sorted, x)
		out[i] = float64(below)
	}
	return out
}

// Histogram is a histogram of V on one rung.
type Histogram struct {
	Lo     float64 `json:"lo"`
	Hi     float64 `json:"hi"`
	Counts []int   `json:"counts"` // bins of equal width from Lo to Hi
}

// Histograms returns the histogram of V of every rung, each over its own central 99 %: on a hot rung V often has a tail
// that would leave all the rest to a single bin. Numbers that are not finite are in no bin.
func (r *Record) Histograms(bins int) []Histogram {
	out := make([]Histogram, r.rungs)
	for k := range out {
		v := slices.DeleteFunc(r.rung(k), func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) })
		slices.Sort(v)
		if tail := len(v) / 200; len(v) > 0 {
			lo, hi := v[tail], v[len(v)-1-tail]
			out[k] = Histogram{lo, hi, diagnostics.Histogram(v, lo, hi, bins)}
		}
	}
	return out
}
