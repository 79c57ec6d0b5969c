package schedules

import "slices"

// Kind describes a kind of schedule, for documentation and `config explain`.
type Kind struct {
	Name    string // the value of `kind`
	Doc     string // one sentence
	Formula string // f(n), n the step
	Source  string // where it comes from
	Params  []Param
}

// Param describes an option of a kind.
type Param struct {
	Key     string // its YAML key
	Doc     string
	Default string // as written in YAML; empty where the option is required
}

const fromTorchEBM = "TorchEBM 0.8.9, torchebm.core.base_scheduler."

// Kinds describes every kind of schedule, in the order of documentation. The caller owns the result.
func Kinds() []Kind {
	start := Param{"start", "value at step 0", ""}
	end := Param{"end", "value from step `steps` on", ""}
	length := Param{"steps", "number of steps N from start to end, at least 1", "the length of the run"}
	hold := Param{"hold", "part of the steps at the start value, in [0, 1)", "0.5"}
	return []Kind{
		{"constant", "The same value at all times; a plain number says the same.", "f(n) = start",
			fromTorchEBM + "ConstantScheduler", []Param{{"start", "the value", ""}}},
		{"exponential_decay", "Shrinks by one factor every step, down to a floor.",
			"f(0) = start; f(n) = max(min_value, start · decay_rateⁿ)", fromTorchEBM + "ExponentialDecayScheduler", []Param{
				start,
				{"decay_rate", "factor γ a step, in (0, 1]", ""},
				{"min_value", "floor, 0 or more; the start is not held to it", "0"},
			}},
		{"linear", "A straight line from start to end.",
			"f(n) = start + n/N · (end − start) for n < N, else end", fromTorchEBM + "LinearScheduler", []Param{start, end, length}},
		{"cosine", "Half a cosine from start to end, flat at both.",
			"f(n) = end + ½ (start − end)(1 + cos(π n/N)) for n < N, else end", fromTorchEBM + "CosineScheduler", []Param{start, end, length}},
		{"multistep", "Drops by a factor at given steps.", "f(n) = start · gamma^#{m ≤ n}",
			fromTorchEBM + "MultiStepScheduler", []Param{
				start,
				{"milestones", "steps m of the drops, positive and rising", ""},
				{"gamma", "factor of a drop, positive", "0.1"},
			}},
		{"warmup", "Rises in a straight line to the first value of another schedule, which then begins.",
			"f(n) = s₀ + n/W · (g(0) − s₀) for n ≤ W, s₀ = warmup_init_factor · g(0); f(n) = g(n − W) for n > W; g = main",
			fromTorchEBM + "WarmupScheduler", []Param{
				{"main", "what follows the warm-up: a number or a schedule", ""},
				{"warmup_steps", "steps W of the warm-up, 0 or more", ""},
				{"warmup_init_factor", "first value as a part of main's first value, 0 or more", "0.01"},
			}},
		{"temperature", "No noise until a virtual time, then a temperature that rises to its highest value at time 1.",
			"t = t_start + (t_end − t_start) min(n, N)/N; ε = 0 for t < tau_star, epsilon_max (t − tau_star)/(1 − tau_star) for t < 1, else epsilon_max; f(n) = √ε, or ε",
			fromTorchEBM + "TemperatureScheduler; Balcerak et al. 2025, Energy Matching", []Param{
				{"epsilon_max", "highest temperature, 0 or more", ""},
				{"tau_star", "virtual time before which there is no noise, in [0, 1)", "0.8"},
				{"steps", "number of steps N from t_start to t_end, at least 1", "200"},
				{"t_start", "virtual time at step 0", "0"},
				{"t_end", "virtual time from step `steps` on, at least t_start", "1"},
				{"sqrt", "give √ε, the factor of the noise, instead of the temperature ε", "true"},
			}},
		{"hold_linear", "Stays at the start, then a straight line to the end.",
			"f(n) = start for n ≤ hold·N; start + (n − hold·N)/(N − hold·N) · (end − start) for n < N; else end",
			"Kelvin; the trapezoidal learning rate of Zhai et al. 2022 without its warm-up", []Param{start, end, length, hold}},
		{"hold_cosine", "Stays at the start, then half a cosine to the end.",
			"f(n) = start for n ≤ hold·N; end + ½ (start − end)(1 + cos(π (n − hold·N)/(N − hold·N))) for n < N; else end",
			"Kelvin", []Param{start, end, length, hold}},
	}
}

func find(name string) (Kind, bool) {
	kinds := Kinds()
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

func names() []string {
	var out []string
	for _, k := range Kinds() {
		out = append(out, k.Name)
	}
	return out
}

func (k Kind) has(key string) bool {
	return slices.ContainsFunc(k.Params, func(p Param) bool { return p.Key == key })
}

func (k Kind) keys() []string {
	out := []string{"kind"}
	for _, p := range k.Params {
		out = append(out, p.Key)
	}
	return out
}
