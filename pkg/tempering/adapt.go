package tempering

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// AdapterSettings fix an [Adapter].
type AdapterSettings struct {
	Rungs   int // K, at least 2
	Ladders int // B, columns of a scan
	// HalfLife, in scans, is how soon the past counts half: long enough to see the pairs, short enough that the law
	// hardly moves meanwhile. It runs with the scans whether or not they try a pair, so that under deo, which tries a
	// pair at every second one, the same half-life holds half of the attempts.
	HalfLife float64
	Gain     float64 // γ₀ in (0, 1], the share of the way to the new ladder that the first move goes
	Decay    float64 // exponent of γ_t = γ₀·(1+t)^−decay over the moves t; 0 for a law that never settles
	MinCount float64 // attempts of each pair between two moves
}

// Validate reports every fault of the settings.
func (s AdapterSettings) Validate() error {
	var errs []error
	if s.Rungs < 2 {
		errs = append(errs, fmt.Errorf("rungs: %d, want at least 2", s.Rungs))
	}
	if s.Ladders < 1 {
		errs = append(errs, fmt.Errorf("ladders: %d, want at least 1", s.Ladders))
	}
	if !(s.HalfLife > 0) || math.IsInf(s.HalfLife, 1) {
		errs = append(errs, fmt.Errorf("half-life: %g scans, want a positive number", s.HalfLife))
	}
	if !(s.Gain > 0 && s.Gain <= 1) {
		errs = append(errs, fmt.Errorf("gain: %g, want a value in (0, 1]", s.Gain))
	}
	if !(s.Decay >= 0) || math.IsInf(s.Decay, 1) {
		errs = append(errs, fmt.Errorf("decay: %g, want 0 or more", s.Decay))
	}
	if !(s.MinCount >= 0) || math.IsInf(s.MinCount, 1) {
		errs = append(errs, fmt.Errorf("count: %g, want 0 or more", s.MinCount))
	}
	return errors.Join(errs...)
}

// Adapter keeps the ladder of a law that itself moves, as that of a model in training. After every sweep it takes up
// the acceptances in exponential means,
//
//	ᾱ = Σ_t ρ^t α_t / Σ_t ρ^t,   ρ = 2^(−1/h),   n = B·(Σ_t ρ^t)²/Σ_t ρ^2t,
//
// with α_t the mean over the ladders t scans ago and n the number of attempts that the mean is worth: what was really
// observed at first, B·(1+ρ)/(1−ρ) in the long run of a pair that is tried at every scan. At a fence it moves the ladder
// a part γ of the way to equal shares of the barrier (see [Curve.Ladder]), if the shares differ by more than chance. An
// Adapter is not safe for concurrent use.
type Adapter struct {
	settings AdapterSettings
	keep     float64 // ρ
	state    AdapterState
}

// AdapterState is all that an Adapter remembers, plain slices for a cut, each [K−1] by pair. The sums run over the scans
// t back; f_t is the share of the B ladders that tried the pair, 1 or 0 where all have one clock.
type AdapterState struct {
	Alpha  []float64 // Σ ρ^t·f_t·α_t
	Weight []float64 // Σ ρ^t·f_t
	Square []float64 // Σ ρ^2t·f_t
	Fresh  []float64 // attempts since the last move
	Moves  uint64
}

func newAdapterState(pairs int) AdapterState {
	return AdapterState{Alpha: make([]float64, pairs), Weight: make([]float64, pairs), Square: make([]float64, pairs), Fresh: make([]float64, pairs)}
}

func (s AdapterState) clone() AdapterState {
	s.Alpha, s.Weight, s.Square, s.Fresh = slices.Clone(s.Alpha), slices.Clone(s.Weight), slices.Clone(s.Square), slices.Clone(s.Fresh)
	return s
}

// NewAdapter returns an adapter that has seen nothing.
func NewAdapter(s AdapterSettings) (*Adapter, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("tempering: adapter: %w", err)
	}
	return &Adapter{settings: s, keep: math.Exp2(-1 / s.HalfLife), state: newAdapterState(s.Rungs - 1)}, nil
}

// Observe takes up what a sweep decided; the attempts of several sweeps at one scan, as of the shards of a group, are
// to be added up before.
func (a *Adapter) Observe(swept Swept) {
	s, rho := &a.state, a.keep
	for i, tried := range swept.Tried {
		share := float64(tried) / float64(a.settings.Ladders)
		s.Alpha[i] = float64(rho*s.Alpha[i]) + swept.Alpha[i]/float64(a.settings.Ladders)
		s.Weight[i] = float64(rho*s.Weight[i]) + share
		s.Square[i] = float64(rho*rho*s.Square[i]) + share
		s.Fresh[i] += float64(tried)
	}
}

// Rejections are the rates r_i = 1 − ᾱ_i of the pairs on the present ladder, [K−1]; NaN before the first attempt.
func (a *Adapter) Rejections() []float64 {
	out := make([]float64, len(a.state.Alpha))
	for i, alpha := range a.state.Alpha {
		out[i] = max(0, 1-alpha/a.state.Weight[i])
	}
	return out
}

// Counts are the numbers n_i of attempts that the rates are worth, [K−1]; 0 before the first.
func (a *Adapter) Counts() []float64 {
	out := make([]float64, len(a.state.Weight))
	for i, w := range a.state.Weight {
		if a.state.Square[i] > 0 {
			out[i] = float64(a.settings.Ladders) * w / a.state.Square[i] * w
		}
	}
	return out
}

// Curve is the communication barrier along l, the ladder that was observed.
func (a *Adapter) Curve(l *Ladder) (*Curve, error) {
	return NewCurve(l.betas, a.Rejections(), slices.Min(a.Counts()))
}

// Move gives the ladder after a fence, from l, the one that was observed since the last move. It stays where it is
// until every pair was tried often enough, and while every share ℓ_i of the barrier is within three standard errors of
// their mean, SE(r) = √(r(1−r)/n). Otherwise β goes to (1−γ)·β + γ·β′ with β′ at equal shares; the mix of two
// increasing ladders increases. The means are carried over to the new ladder, whose shares have gone the same part of the
// way to the mean, so that what was seen on the old one does not move the rungs twice.
func (a *Adapter) Move(l *Ladder) (next *Ladder, moved bool, err error) {
	if l.NumRungs() != a.settings.Rungs {
		return nil, false, fmt.Errorf("tempering: adapter: ladder of %d rungs, want %d", l.NumRungs(), a.settings.Rungs)
	}
	s := &a.state
	if slices.Min(s.Fresh) < max(a.settings.MinCount, 1) {
		return l, false, nil
	}
	curve, err := a.Curve(l)
	if err != nil {
		return nil, false, err
	}
	if !a.uneven(curve) {
		return l, false, nil
	}
	target, err := curve.Ladder(a.settings.Rungs)
	if err != nil {
		return nil, false, err
	}
	gamma := a.settings.Gain * math.Pow(1+float64(s.Moves), -a.settings.Decay)
	betas := l.Betas()
	for j := 1; j < len(betas)-1; j++ {
		betas[j] = float64((1-gamma)*betas[j]) + float64(gamma*target.betas[j])
	}
	if next, err = LadderOf(betas); err != nil {
		return nil, false, err
	}
	mean := curve.Total() / float64(len(s.Alpha))
	for i, share := range curve.shares {
		s.Alpha[i] = float64(s.Weight[i] * (1 - rejectionOf((1-gamma)*share+gamma*mean)))
		s.Fresh[i] = 0
	}
	s.Moves++
	return next, true, nil
}

// uneven reports whether some pair's share of the barrier is further from the mean than chance explains.
func (a *Adapter) uneven(c *Curve) bool {
	rates, counts := a.Rejections(), a.Counts()
	mean := c.Total() / float64(len(c.shares))
	for i, share := range c.shares {
		floor := 1 / (2 * max(counts[i], 1))
		r := min(max(rates[i], floor), 1-floor)
		// dℓ/dr = exp(erfinv²(r)), and erfinv(r) = √π·ℓ/2.
		se := math.Sqrt(r*(1-r)/counts[i]) * math.Exp(math.Pi/4*share*share)
		if math.Abs(share-mean) > 3*se {
			return true
		}
	}
	return false
}

// Forget drops all that was seen, and the moves with it: when θ was loaded, the reference refitted or the data changed.
func (a *Adapter) Forget() { a.state = newAdapterState(a.settings.Rungs - 1) }

// Snapshot returns a copy of the state.
func (a *Adapter) Snapshot() AdapterState { return a.state.clone() }

// Restore replaces the state by a copy of s, if s fits.
func (a *Adapter) Restore(s AdapterState) error {
	pairs := a.settings.Rungs - 1
	for _, f := range []struct {
		name   string
		values []float64
	}{{"alpha", s.Alpha}, {"weight", s.Weight}, {"square", s.Square}, {"fresh", s.Fresh}} {
		if len(f.values) != pairs {
			return fmt.Errorf("tempering: adapter: restore: %s: %d values, want %d", f.name, len(f.values), pairs)
		}
		for i, x := range f.values {
			if !(x >= 0) || math.IsInf(x, 1) {
				return fmt.Errorf("tempering: adapter: restore: %s: %g at pair %d, want a number of 0 or more", f.name, x, i)
			}
		}
	}
	a.state = s.clone()
	return nil
}

// DriftESS tells how far the samples of a law still stand for it after the law moved: (Σw)²/(n·Σw²) in (0, 1] of the
// importance weights w, given by their logarithms; −β·(E_θ′(x) − E_θ(x)) for a rung after an optimizer step. Below 0.9
// the chains want more scans a step, or the parameters a lower learning rate. It is NaN without weights and where a
// logarithm is NaN or +Inf.
func DriftESS(logw []float64) float64 {
	if len(logw) == 0 {
		return math.NaN()
	}
	top := slices.Max(logw)
	sum, squares := 0.0, 0.0
	for _, l := range logw {
		w := math.Exp(l - top)
		sum += w
		squares += w * w
	}
	return sum / float64(len(logw)) * (sum / squares)
}
