package reference

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

func families() ([]family, error) {
	analytic, err := energyEntries()
	if err != nil {
		return nil, err
	}
	sections, err := sectionEntries()
	if err != nil {
		return nil, err
	}
	return []family{
		{"models.md", "Models", "The `model` section: an energy E(x) with p(x) ∝ exp(−E(x)), or a field f(x, t, label) for the losses of transport. An image is a state of channels · height · width numbers. " +
			"Energies without parameters are in [energies.md](energies.md); a model of your own in Go is in [examples/custom-energy](../../examples/custom-energy).", modelEntries()},
		{"energies.md", "Analytic energies", "Energies without parameters to train: `coordinator sample --energy NAME` draws from them, with options by `--set key=value`. What is known of a law is for the example's options, " +
			"in closed form or by quadrature to about 1e-10; tests hold samplers against it.", analytic},
		{"losses.md", "Losses", "The `loss` section: what is minimised over the parameters. x⁺ are rows of data, x⁻ states of chains, E the energy, f the network, and all means are over the batch. " +
			"`energy_penalty` and `gradient_penalty` are added as `energy_penalty · mean f²` and `gradient_penalty · mean ‖∇E‖²`. " +
			"`interpolant` and `coupling` are in [interpolants.md](interpolants.md) and [couplings.md](couplings.md).", lossEntries()},
		{"samplers.md", "Samplers", "The `sampler` section: how states move. E is the energy, ε the step size, z standard normal noise; a `number or a schedule` is one of [schedules.md](schedules.md). " +
			"`coordinator sample --energy NAME --sampler KIND` draws from an analytic energy, with `--set sampler.key=value`. Under tempering a rung at β follows βE, with a step size of its own.", samplerEntries()},
		{"interpolants.md", "Interpolants", "The path from noise x₀ at t = 0 to data x₁ at t = 1: xₜ = α(t)x₁ + σ(t)x₀, with the velocity uₜ = α̇x₁ + σ̇x₀. " +
			"`loss.interpolant` says which; a flow sampler follows it. `interpolant: vp` is short for `interpolant: {kind: vp}`.", interpolantEntries()},
		{"couplings.md", "Couplings", "`loss.coupling` says which noise goes with which row of data before a path is laid between the two; labels move with their rows. " +
			"x₀ is the noise, x₁ the data, i and j their rows in the batch. `coupling: exact_ot` is short for `coupling: {kind: exact_ot}`.", couplingEntries()},
		{"integrators.md", "Integrators", "Numeric steps of dx = f(x, t)dt, with noise √(2D h)z added where the equation has it. `sampler.integrator` names one, for flows and for Langevin dynamics; " +
			"of the options below the sampler has `atol` and `rtol`, and a program in Go has them all (`integrators.Controller`). The two leapfrogs are the steps of `hmc` and `rmhmc`.", integratorEntries()},
		{"schedules.md", "Schedules", "A scalar over steps n, for the keys that take a number or a schedule: `optimizer.lr`, `sampler.step_size`, `sampler.noise_scale` and `loss.sigma` among them. " +
			"A length that is left out is that of the run.", scheduleEntries()},
		{"datasets.md", "Datasets", "The `data` section: a toy law, drawn by the seed, or a file. U is uniform in (0, 1), z standard normal, and all draws are independent.", datasetEntries()},
		{"training.md", "Training, tempering, evaluation", "The sections that belong to no one component, and the keys of the file itself.", sections},
	}, nil
}

// options turns a table's rows into ours.
func options[P any](params []P, row func(P) option) (out []option) {
	for _, p := range params {
		out = append(out, row(p))
	}
	return out
}

func modelOptions(k models.Kind) []option {
	return options(k.Params, func(p models.KindParam) option {
		if p.Default == "" {
			p.Default = "required"
		}
		return option{p.Key, p.Doc, p.Default}
	})
}

func modelEntries() (out []entry) {
	for _, k := range models.Kinds() {
		if slices.Contains(models.AnalyticKinds(), k.Name) {
			continue
		}
		out = append(out, entry{name: k.Name, doc: k.Doc, formula: k.Formula, source: k.Source, options: modelOptions(k), example: exampleOf("model", k.Name)})
	}
	return out
}

func lossEntries() (out []entry) {
	for _, k := range losses.Kinds() {
		out = append(out, entry{name: k.Name, doc: k.Doc, formula: k.Formula, source: k.Source, example: exampleOf("loss", k.Name),
			options: options(k.Params, func(p losses.KindParam) option { return option{p.Key, p.Doc, p.Default} })})
	}
	return out
}

func samplerEntries() (out []entry) {
	for _, k := range samplers.Kinds() {
		e := entry{name: k.Name, doc: k.Doc, formula: k.Formula, source: k.Source, example: exampleOf("sampler", k.Name),
			options: options(k.Params, func(p samplers.KindParam) option { return option{p.Key, p.Doc, p.Default} })}
		if k.Name != "flow" { // has no energy to draw from: a trained field is needed
			e.command = "coordinator sample --energy double_well --reference-std 1 --sampler " + k.Name
		}
		out = append(out, e)
	}
	return out
}

func interpolantEntries() (out []entry) {
	for _, k := range interpolants.Kinds() {
		out = append(out, entry{name: k.Name, doc: k.Doc, formula: k.Formula, source: k.Source, example: exampleOf("interpolant", k.Name),
			options: options(k.Params, func(p interpolants.KindParam) option { return option{p.Key, p.Doc, p.Default} })})
	}
	return out
}

func couplingEntries() (out []entry) {
	for _, k := range couplings.Kinds() {
		out = append(out, entry{name: k.Name, doc: k.Doc, formula: k.Formula, source: k.Source, example: exampleOf("coupling", k.Name),
			options: options(k.Params, func(p couplings.KindParam) option { return option{p.Key, p.Doc, p.Default} })})
	}
	return out
}

func integratorEntries() (out []entry) {
	for _, k := range integrators.Kinds() {
		var uses []string
		switch {
		case k.Hamiltonian:
			uses = append(uses, "for positions and momenta")
		case k.SDE:
			uses = append(uses, "with noise and without")
		default:
			uses = append(uses, "without noise")
		}
		if k.Adaptive {
			uses = append(uses, "chooses its step sizes")
		}
		facts := [][2]string{{"order", fmt.Sprint(k.Order)}, {"use", strings.Join(uses, "; ")}}
		if len(k.Aliases) > 0 {
			facts = append(facts, [2]string{"also called", strings.Join(k.Aliases, ", ")})
		}
		out = append(out, entry{name: k.Name, doc: k.Doc, formula: k.Formula, source: k.Source, facts: facts, example: integratorExample(k),
			options: options(k.Params, func(p integrators.KindParam) option { return option{p.Key, p.Doc, p.Default} })})
	}
	return out
}

func scheduleEntries() (out []entry) {
	for _, k := range schedules.Kinds() {
		out = append(out, entry{name: k.Name, doc: k.Doc, formula: k.Formula, source: k.Source, example: exampleOf("schedule", k.Name),
			options: options(k.Params, func(p schedules.Param) option {
				if p.Default == "" {
					p.Default = "required"
				}
				return option{p.Key, p.Doc, p.Default}
			})})
	}
	return out
}

func datasetEntries() (out []entry) {
	for _, k := range datasets.Kinds() {
		out = append(out, entry{name: k.Name, doc: sentence(k.Definition), example: exampleOf("data", k.Name),
			options: options(k.Params, func(p datasets.Param) option {
				o := option{p.Key, p.Doc + "; " + p.Want, ""}
				switch {
				case p.Required:
					o.def = "required"
				case p.Default != nil:
					o.def = fmt.Sprint(p.Default)
				}
				return o
			})})
	}
	return out
}

// sentence gives a text a full stop, and a capital unless it begins with a symbol.
func sentence(text string) string {
	if len(text) > 1 && 'a' <= text[1] && text[1] <= 'z' || strings.HasPrefix(text, "a ") {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return text + "."
}

// sectionEntries are the sections whose keys experiment describes itself.
func sectionEntries() (out []entry, err error) {
	keys, err := experiment.Keys()
	if err != nil {
		return nil, err
	}
	out = []entry{{name: "file", doc: "The keys that stand beside the sections.", example: sectionExamples["file"]}}
	for _, k := range keys {
		section, key, inside := strings.Cut(k.Path, ".")
		switch {
		case inside:
			if last := &out[len(out)-1]; last.name == section {
				last.options = append(last.options, option{key, k.Doc, k.Default})
			}
		case slices.Contains(ownPages, section):
		case slices.Contains([]string{"name", "seed"}, section):
			out[0].options = append(out[0].options, option{section, k.Doc, k.Default})
		default:
			out = append(out, entry{name: section, doc: sentence(k.Doc), example: sectionExamples[section]})
		}
	}
	return out, nil
}

// ownPages are the sections that a page of their own describes.
var ownPages = []string{"data", "model", "loss", "sampler"}
