package losses

import (
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// make builds the loss of a section with its defaults.
func (c Config) make() (Loss, error) {
	penalties := Penalties{Energy: c.EnergyPenalty, Gradient: c.GradientPenalty}
	switch c.Kind {
	case "score_matching":
		l := ScoreMatching{Penalties: penalties}
		if c.HessianMethod == "hutchinson" {
			l.Probes, l.ProbeType, l.Quotient = *c.NProbes, c.ProbeType, c.Compat == "torchebm"
		}
		return l, nil
	case "sliced_score_matching":
		return SlicedScoreMatching{Projections: *c.NProjections, ProjectionType: c.ProjectionType,
			VarianceReduced: *c.VarianceReduced, Penalties: penalties}, nil
	case "denoising_score_matching":
		l := DenoisingScoreMatching{Weighted: c.Weighting == "sigma2", Penalties: penalties}
		if c.manyLevels() {
			l.Levels, l.SigmaMin, l.SigmaMax = *c.Levels, *c.SigmaMin, *c.SigmaMax
			return l, nil
		}
		var err error
		l.Sigma, err = c.Sigma.Build()
		return l, keyed("sigma", err)
	case "equilibrium_matching":
		return c.makeEquilibrium(penalties)
	case "flow_matching":
		path, err := c.makePath()
		return FlowMatching{Path: path, Negate: *c.NegateVelocity, Penalties: penalties}, err
	case "energy_matching":
		return c.makeEnergyMatching(penalties)
	}
	return nil, fmt.Errorf("the loss of chains: want Contrastive, or another kind")
}

func (c Config) makePath() (Path, error) {
	p := Path{Eps: *c.TrainEps, Lognormal: c.TSampler == "lognormal"}
	if p.Lognormal {
		p.PMean, p.PStd = *c.TPMean, *c.TPStd
	}
	var err error
	p.Interpolant, err = c.Interpolant.Build()
	return p, keyed("interpolant", err)
}

func (c Config) makeEquilibrium(penalties Penalties) (Loss, error) {
	path, err := c.makePath()
	l := EquilibriumMatching{Path: path, Prediction: c.Prediction, EnergyType: c.EnergyType, LossWeight: c.LossWeight,
		CT: c.CT, TimeInvariant: *c.TimeInvariant, Penalties: penalties}
	if c.CTMultiplier != nil {
		l.CTMultiplier = *c.CTMultiplier
	}
	if c.CTThreshold != nil {
		l.CTThreshold = *c.CTThreshold
	}
	if *c.Dispersion {
		l.Dispersion = *c.DispersionWeight
	}
	return l, err
}

func (c Config) makeEnergyMatching(penalties Penalties) (Loss, error) {
	path, err := c.makePath()
	if err != nil {
		return nil, err
	}
	l := EnergyMatching{Path: path, Cutoff: *c.FlowWeightCutoff, EpsilonMax: *c.EpsilonMax, TauStar: *c.TauStar,
		Steps: *c.NLangevinSteps, StepSize: *c.LangevinDT, NoiseFraction: *c.NoiseFraction, TrimFraction: *c.CDTrimFraction,
		Clamp: *c.CDClamp, Penalties: penalties}
	if l.Sigma, err = c.Sigma.Build(); err != nil {
		return nil, keyed("sigma", err)
	}
	if !c.LambdaCD.IsConstant(0) {
		var lambda schedules.Schedule
		if lambda, err = c.LambdaCD.Build(); err != nil {
			return nil, keyed("lambda_cd", err)
		}
		l.LambdaCD = lambda
	}
	return l, nil
}

func keyed(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", key, err)
}
