package samplers

import "math"

// StepSizes gives every rung its step size from that of the target rung.
//
// The curvature along the linear path from N(μ, diag s²) is κ_β = (1−β)/s² + βκ₁; a Langevin step is stable up to about
// 1/κ. With κ₁ unknown, eps = ε₁ stands for it: ε_β = ε₁/√β, at most half the smallest variance of the reference.
// On the power path (reference nil) the law at β is the target stretched, and ε_β = ε₁/β.
func StepSizes(eps float64, betas []float64, referenceStd []float64) []float64 {
	limit := math.Inf(1)
	for _, s := range referenceStd {
		limit = min(limit, s*s/2)
	}
	out := make([]float64, len(betas))
	for k, beta := range betas {
		switch {
		case beta == 1:
			out[k] = eps
		case referenceStd == nil:
			out[k] = eps / beta
		default:
			out[k] = max(eps, min(eps/math.Sqrt(beta), limit)) // β = 0 gives the limit
		}
	}
	return out
}
