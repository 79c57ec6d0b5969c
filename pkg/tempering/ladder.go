// Package tempering is parallel tempering without the chains: the ladder of β, the even-odd pairing, the swap rule, the
// walkers that swaps move, and what can be read off them. It sees energies and gives permutations; where states live
// and how they are explored is the caller's business. No clock, no I/O, no graph.
//
//	ladder, err := tempering.NewLadder(cfg)
//	ensemble, err := tempering.NewEnsemble(tempering.Settings{Ladder: ladder, Columns: 128, Seed: 7, Fresh: true})
//	for scan := uint64(0); ; scan++ {
//		v := explore(states, ladder.Betas())            // V of every chain, [K·B], rung-major
//		swept, err := ensemble.Sweep(scan, nil, v)
//		states = permute(states, swept.Perm)
//	}
//	fmt.Println(ensemble.Stats().Rejections(), ensemble.TripRate())
//
// The rejection rates give the communication barrier along the ladder, a [Curve], and with it the ladder on which all
// pairs reject alike; an [Adapter] moves the ladder there while the model is trained, and [StepSizes] give every rung a
// step size for its explorer.
//
// Every path is exponential in β: log π_β(x) = log q(x) + β·V(x) − log Z(β). On the linear path from a reference q,
// V = −E − log q and β runs from 0; on the power path q is 1, V = −E and β runs from beta_min. One swap rule serves
// both. The method is that of Syed, Bouchard-Côté, Deligiannidis and Doucet, JRSS B 84 (2022), "Non-reversible
// parallel tempering".
package tempering

import (
	"fmt"
	"math"
	"slices"
)

// Ladder is a list of inverse temperatures β_0 < … < β_{K−1} = 1. Rung 0 is the hottest, rung K−1 the target. It does
// not change after it was made.
type Ladder struct{ betas []float64 }

// NewLadder spaces the ladder that cfg names, or that an adaptive one starts from, with N = K−1 and β_min = 0 on the
// linear path:
//
//	cubic      β_j = β_min + (1 − β_min)·(j/N)³
//	uniform    β_j = β_min + (1 − β_min)·j/N
//	geometric  β_j = β_min^{1 − j/N}: one ratio between neighbours; on the power path
//	adaptive   cfg.Betas where they are given, else cubic, and geometric on the power path
//	fixed      cfg.Betas
//
// One rung is the target alone, [1], on either path.
func NewLadder(cfg Config) (*Ladder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("tempering: %w", err)
	}
	if len(cfg.Betas) > 0 {
		return LadderOf(cfg.Betas)
	}
	n, lowest, form := cfg.Rungs-1, 0.0, cfg.Ladder
	if cfg.Path == "power" {
		lowest = cfg.BetaMin
	}
	if form == "adaptive" {
		form = "cubic"
		if cfg.Path == "power" {
			form = "geometric"
		}
	}
	betas := make([]float64, cfg.Rungs)
	for j := range n {
		x := float64(j) / float64(n)
		switch form {
		case "geometric":
			betas[j] = math.Pow(lowest, 1-x)
		case "uniform":
			betas[j] = lowest + float64((1-lowest)*x)
		default:
			betas[j] = lowest + float64((1-lowest)*float64(x*x*x))
		}
	}
	betas[n] = 1
	return LadderOf(betas)
}

// LadderOf returns the ladder of given β, which must increase from 0 or more to exactly 1.
func LadderOf(betas []float64) (*Ladder, error) {
	n := len(betas) - 1
	if n < 0 {
		return nil, fmt.Errorf("tempering: ladder: no rungs, want at least 1")
	}
	for j, beta := range betas {
		if !(beta >= 0) || j > 0 && !(beta > betas[j-1]) {
			return nil, fmt.Errorf("tempering: ladder: β = %g on rung %d, want numbers that increase from 0 or more to 1", beta, j)
		}
	}
	if betas[n] != 1 {
		return nil, fmt.Errorf("tempering: ladder: β = %g on the last rung, want 1", betas[n])
	}
	return &Ladder{slices.Clone(betas)}, nil
}

// Betas returns a copy of β, rung 0 first.
func (l *Ladder) Betas() []float64 { return slices.Clone(l.betas) }

// NumRungs is K.
func (l *Ladder) NumRungs() int { return len(l.betas) }
