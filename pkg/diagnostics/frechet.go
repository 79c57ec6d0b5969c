package diagnostics

import (
	"errors"
	"fmt"
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// FrechetOptions are the settings of FrechetDistance. The zero value has the defaults.
type FrechetOptions struct {
	Seed uint64 // of the choice of rows for Null
}

// Frechet is a Fréchet distance.
type Frechet struct {
	Squared    float64 // Mean + Covariance
	Mean       float64 // |μa − μb|²
	Covariance float64 // tr(Ca + Cb − 2(Ca^½ Cb Ca^½)^½)
	// Null is the same number for two disjoint random parts of the data, of NullRows rows each: what equal laws give at
	// about that size. It shrinks like one over the number of rows, so only values well above it tell laws apart.
	Null     float64
	NullRows int
}

// FrechetDistance is the squared 2-Wasserstein distance between the normal laws with the means and covariances of samples
// [n, dim] and of data [m, dim] (Dowson and Landau, "The Fréchet distance between multivariate normal distributions",
// 1982). On features of images it is the distance that Heusel et al. (2017) proposed with those of the Inception
// network; with other features the numbers are on another scale. Covariances may be of any rank.
func FrechetDistance(samples, data []float64, dim int, o FrechetOptions) (Frechet, error) {
	fail := func(err error) (Frechet, error) {
		return Frechet{}, fmt.Errorf("diagnostics: fréchet distance: %w", err)
	}
	if err := checkRows("samples", samples, dim, 2); err != nil {
		return fail(err)
	}
	if err := checkRows("data", data, dim, 4); err != nil {
		return fail(err)
	}
	out, err := frechet(samples, data, dim)
	if err != nil {
		return fail(err)
	}
	out.NullRows = min(len(samples), len(data)/2) / dim
	var parts [2][]float64
	for k, i := range rng.New(o.Seed, rng.Evaluate, drawHalves, 0).Perm(len(data) / dim)[:2*out.NullRows] {
		parts[k%2] = append(parts[k%2], data[i*dim:(i+1)*dim]...)
	}
	null, err := frechet(parts[0], parts[1], dim)
	if err != nil {
		return fail(err)
	}
	out.Null = null.Squared
	return out, nil
}

// frechet needs no roots of matrices. With any factors Ca = AᵀA and Cb = BᵀB the trace of (Ca^½ Cb Ca^½)^½ is the sum of
// the singular values of ABᵀ, which keeps all its digits where a covariance is singular.
func frechet(a, b []float64, dim int) (Frechet, error) {
	meanA, factorA := moments(a, dim)
	meanB, factorB := moments(b, dim)
	var cross mat.Dense
	cross.Mul(factorA, factorB.T())
	var svd mat.SVD
	if !svd.Factorize(&cross, mat.SVDNone) {
		return Frechet{}, errors.New("the singular values of the covariances do not converge")
	}
	var out Frechet
	gap := floats.Distance(meanA, meanB, 2)
	out.Mean = gap * gap
	traces := math.Pow(mat.Norm(factorA, 2), 2) + math.Pow(mat.Norm(factorB, 2), 2)
	out.Covariance = max(traces-2*floats.Sum(svd.Values(nil)), 0) // equal ones may fall below 0 by rounding
	out.Squared = out.Mean + out.Covariance
	if math.IsNaN(out.Squared) || math.IsInf(out.Squared, 0) {
		return Frechet{}, fmt.Errorf("%g, want smaller numbers in the rows", out.Squared)
	}
	return out, nil
}

// moments are the mean of rows [n, dim] and a factor F with FᵀF their covariance (n − 1), of at most dim rows.
func moments(rows []float64, dim int) (mean []float64, factor mat.Matrix) {
	n := len(rows) / dim
	mean = make([]float64, dim)
	for i, v := range rows {
		mean[i%dim] += v / float64(n)
	}
	centred := mat.NewDense(n, dim, nil)
	centred.Apply(func(i, j int, _ float64) float64 { return (rows[i*dim+j] - mean[j]) / math.Sqrt(float64(n-1)) }, centred)
	if n <= dim {
		return mean, centred
	}
	var qr mat.QR
	qr.Factorize(centred)
	var r mat.Dense
	qr.RTo(&r)
	return mean, r.Slice(0, dim, 0, dim)
}
