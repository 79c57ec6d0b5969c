package integrators

import (
	"fmt"
	"slices"
	"strings"
)

// Kind describes a scheme, for documentation and `config explain`.
type Kind struct {
	Name    string
	Aliases []string
	Doc     string // one sentence
	Formula string
	Source  string // where it comes from
	Order   int    // global order of accuracy
	// SDE says that samplers may use it with noise, Adaptive that it chooses its step sizes, Hamiltonian that it moves
	// positions and momenta: [LeapfrogStep] and [GeneralisedLeapfrog], not a RungeKutta.
	SDE, Adaptive, Hamiltonian bool
	Params                     []KindParam
}

// KindParam describes an option of a scheme.
type KindParam struct {
	Key     string // its YAML key
	Doc     string
	Default string // as written in YAML
}

// Kinds describes every scheme, in the order of documentation. The caller owns the result.
func Kinds() []Kind {
	control := controllerParams()
	iterations := []KindParam{{"iterations", "evaluations of the drift for an implicit equation, at least 1", fmt.Sprint(defaultIterations)}}
	const torchEBM = "TorchEBM 0.8.9, "
	return []Kind{
		{"euler_maruyama", []string{"euler"}, "One evaluation a step.", "x⁺ = x + h f(x, t)",
			torchEBM + "EulerMaruyamaIntegrator; Maruyama 1955", 1, true, false, false, nil},
		{"backward_euler_maruyama", nil, "The implicit Euler step, by fixed-point iteration; damps where it converges, h·Lipschitz < 1.",
			"x⁺ = x + h f(x⁺, t + h)", torchEBM + "BackwardEulerMaruyamaIntegrator", 1, true, false, false, iterations},
		{"heun", nil, "The mean of the drifts at both ends of an Euler step.", "x⁺ = x + ½h (k₁ + k₂)",
			torchEBM + "HeunIntegrator; Heun 1900", 2, true, false, false, nil},
		{"midpoint", nil, "The drift in the middle of the step.", "x⁺ = x + h f(x + ½h k₁, t + ½h)",
			torchEBM + "MidpointIntegrator; Runge 1895", 2, false, false, false, nil},
		{"rk4", nil, "The classical scheme of four evaluations.", "x⁺ = x + h (k₁ + 2k₂ + 2k₃ + k₄)/6",
			torchEBM + "RK4Integrator; Kutta 1901", 4, false, false, false, nil},
		{"rk438", nil, "Kutta's 3/8 rule: a smaller error than rk4 for the same work.", "x⁺ = x + h (k₁ + 3k₂ + 3k₃ + k₄)/8",
			torchEBM + "RK438Integrator; Kutta 1901", 4, false, false, false, nil},
		{"adaptive_heun", nil, "Heun's step with Euler's as its error estimate.", "order 2, estimate of order 1",
			torchEBM + "AdaptiveHeunIntegrator", 2, false, true, false, control},
		{"bosh3", nil, "Bogacki and Shampine's pair, three new evaluations a step.", "order 3, estimate of order 2",
			torchEBM + "Bosh3Integrator; Bogacki and Shampine 1989", 3, false, true, false, control},
		{"dopri5", nil, "Dormand and Prince's pair, six new evaluations a step: the usual choice.", "order 5, estimate of order 4",
			torchEBM + "Dopri5Integrator; Dormand and Prince 1980", 5, false, true, false, control},
		{"dopri8", nil, "Prince and Dormand's pair of thirteen evaluations, for small tolerances in float64.", "order 8, estimate of order 7",
			torchEBM + "Dopri8Integrator; Prince and Dormand 1981, RK8(7)13M", 8, false, true, false, control},
		{"leapfrog", nil, "Symplectic and reversible, for H = E(x) + ½ Σ p²/m; one new force a step.",
			"p½ = p + ½ε F(x), x⁺ = x + ε p½/m, p⁺ = p½ + ½ε F(x⁺)", torchEBM + "LeapfrogIntegrator; Verlet 1967", 2, false, false, true, nil},
		{"generalised_leapfrog", []string{"generalized_leapfrog"}, "The leapfrog for a Hamiltonian that does not separate, by fixed-point iteration.",
			"p½ = p + ½ε F(x, p½), x⁺ = x + ½ε [V(x, p½) + V(x⁺, p½)], p⁺ = p½ + ½ε F(x⁺, p½)",
			torchEBM + "GeneralisedLeapfrogIntegrator; Girolami and Calderhead 2011", 2, false, false, true, iterations},
	}
}

// ByName returns the Runge–Kutta scheme of a name or an alias.
func ByName(name string) (RungeKutta, error) {
	kind, ok := findKind(name)
	if !ok || kind.Hamiltonian {
		return RungeKutta{}, fmt.Errorf("integrator: %q, want one of %s", name, strings.Join(Names(), ", "))
	}
	rk := tableau(kind.Name)
	rk.Name, rk.Order = kind.Name, kind.Order
	return rk, nil
}

func findKind(name string) (Kind, bool) {
	kinds := Kinds()
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name || slices.Contains(k.Aliases, name) })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

// Names are the schemes that ByName knows, without aliases.
func Names() []string { return named(func(k Kind) bool { return !k.Hamiltonian }) }

// SDENames are the schemes for equations with noise.
func SDENames() []string { return named(func(k Kind) bool { return k.SDE }) }

// AdaptiveNames are the schemes that choose their step sizes.
func AdaptiveNames() []string { return named(func(k Kind) bool { return k.Adaptive }) }

func named(which func(Kind) bool) []string {
	var out []string
	for _, k := range Kinds() {
		if which(k) {
			out = append(out, k.Name)
		}
	}
	return out
}
