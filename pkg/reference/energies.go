package reference

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// setting is an option of an analytic energy, with its value as `--set` takes it.
type setting struct{ key, value string }

// settings are the options in the examples of the energies that need some, in the plane.
var settings = map[string][]setting{
	"gaussian":           {{"mean", "[1, -1]"}, {"cov", "[[2, 0.5], [0.5, 1]]"}},
	"gaussian_mixture":   {{"means", "[[-2, 0], [2, 0]]"}, {"weights", "[0.3, 0.7]"}, {"stds", "[0.5]"}},
	"double_well":        {{"h", "3"}},
	"double_well_tilted": {{"a", "4"}, {"c", "0.5"}},
	"interaction":        {{"of", "harmonic"}, {"sigma_w", "20"}},
}

// flags are what a command line says beyond the energy's name and options, for a sampler that suits it.
var flags = map[string]string{
	"double_well":        "--reference-std 1",
	"double_well_tilted": "--rungs 6 --reference-std 2 --step-size 0.02",
	"gaussian_mixture":   "--rungs 6 --step-size 0.1",
	"harmonic":           "--step-size 0.5",
	"gaussian":           "--step-size 0.3",
	"himmelblau":         "--rungs 8 --step-size 0.005",
	"rosenbrock":         "--rungs 8 --reference-std 1.5 --step-size 0.002",
	"rastrigin":          "--rungs 8 --step-size 0.002",
	"styblinski_tang":    "--rungs 8",
	"interaction":        "--sampler langevin",
}

// energyEntries describes the analytic energies, with what is known of their laws.
func energyEntries() (out []entry, err error) {
	for _, k := range models.Kinds() {
		if !slices.Contains(models.AnalyticKinds(), k.Name) {
			continue
		}
		params := map[string]any{}
		command := []string{"coordinator sample --energy", k.Name}
		for _, s := range settings[k.Name] {
			params[s.key] = s.value
			text := s.key + "=" + s.value
			if strings.ContainsAny(text, " []") {
				text = "'" + text + "'"
			}
			command = append(command, "--set", text)
		}
		if f := flags[k.Name]; f != "" {
			command = append(command, f)
		}
		e, err := models.New(k.Name, 2, params)
		if err != nil {
			return nil, err
		}
		options := modelOptions(k)
		for i := range options {
			if options[i].key == "dim" { // there are no data to say it
				options[i].def = "that of the other options, else 2"
			}
		}
		out = append(out, entry{name: k.Name, doc: k.Doc, formula: "E(x) = " + k.Formula, source: k.Source, options: options,
			facts: factsOf(e), command: strings.Join(command, " ")})
	}
	return out, nil
}

// factsOf is what is known of an energy, in rows.
func factsOf(e models.Energy) (rows [][2]string) {
	known, ok := e.(models.Known)
	if !ok {
		return nil
	}
	add := func(name string, values ...any) {
		var parts []string
		for _, v := range values {
			parts = append(parts, numbers(v))
		}
		rows = append(rows, [2]string{name, strings.Join(parts, " ")})
	}
	points := func(name string, points [][]float64) {
		var all []any
		for _, p := range points {
			all = append(all, p)
		}
		if len(all) > 0 {
			add(name, all...)
		}
	}
	f := known.Known()
	points("minima of E", f.Minima)
	if f.MinEnergy != nil {
		add("E there", *f.MinEnergy)
	}
	if f.Mean != nil {
		add("mean", f.Mean)
	}
	if f.Variance != nil {
		add("variance of the coordinates", f.Variance)
	}
	if f.LogZ != nil {
		add("log Z", *f.LogZ)
	}
	if !slices.EqualFunc(f.Modes, f.Minima, slices.Equal) {
		points("modes", f.Modes)
	}
	if len(f.Weights) > 1 {
		add("their masses", f.Weights)
	}
	return rows
}

// numbers writes a number or a list of them, to six digits.
func numbers(v any) string {
	round := func(x float64) json.Number {
		text := fmt.Sprintf("%.6g", x)
		if text == "-0" {
			text = "0"
		}
		return json.Number(text)
	}
	var value any
	switch v := v.(type) {
	case float64:
		value = round(v)
	case []float64:
		list := []json.Number{}
		for _, x := range v {
			list = append(list, round(x))
		}
		value = list
	}
	text, _ := json.Marshal(value) // numbers always have JSON
	return strings.ReplaceAll(string(text), ",", ", ")
}
