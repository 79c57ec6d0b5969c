package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// energyFlags name an analytic energy and the sampler that draws from it.
type energyFlags struct {
	name                 string
	dim                  int
	sets                 []string
	sampler              string
	steps                int
	stepSize, noiseScale string // numbers or schedules, as in an experiment
	diagnostics          string
}

var energyFlagNames = []string{"dim", "set", "sampler", "steps", "step-size", "noise-scale"}

func (e *energyFlags) add(cmd *cobra.Command) {
	kinds := slices.DeleteFunc(samplers.KindNames(), func(k string) bool { return k == "flow" })
	f := cmd.Flags()
	f.StringVar(&e.name, "energy", "", "name of an analytic energy: "+strings.Join(models.AnalyticKinds(), ", "))
	f.StringArrayVar(&e.sets, "set", nil, "a parameter of the energy, `key=value`, or of the sampler, sampler.key=value; may be given several times")
	f.IntVar(&e.dim, "dim", 0, "coordinates of a state, where the energy leaves it open (default 2)")
	f.StringVar(&e.sampler, "sampler", "mala", strings.Join(kinds, ", ")+", with --energy")
	f.IntVar(&e.steps, "steps", 0, "chain steps a scan, or of a descent or an annealing, with --energy (default 10, or the sampler's)")
	f.StringVar(&e.stepSize, "step-size", "", "step size of the target rung, a number or a schedule, with --energy (default 0.01, or the sampler's)")
	f.StringVar(&e.noiseScale, "noise-scale", "", "noise scale of the Langevin kinds, a number or a schedule, with --energy (default 1)")
}

// overrides splits the settings of the energy from those of the sampler, and adds to these what the flags say.
func (e *energyFlags) overrides(cmd *cobra.Command) (energy map[string]any, sampler []string, err error) {
	energy, sampler = map[string]any{}, []string{"kind=" + e.sampler}
	short := e.sampler == "mala" || e.sampler == "langevin" // those with scans of many short steps
	for _, o := range []struct{ flag, key, value, usual string }{
		{"steps", "steps", fmt.Sprint(e.steps), "10"}, {"step-size", "step_size", e.stepSize, "0.01"}, {"noise-scale", "noise_scale", e.noiseScale, ""},
	} {
		switch {
		case cmd.Flags().Changed(o.flag):
			sampler = append(sampler, o.key+"="+o.value)
		case short && o.usual != "":
			sampler = append(sampler, o.key+"="+o.usual)
		}
	}
	for _, p := range e.sets {
		key, value, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return nil, nil, usageErrorf("--set: %q, want key=value", p)
		}
		if own, ok := strings.CutPrefix(key, "sampler."); ok {
			sampler = append(sampler, own+"="+value)
			continue
		}
		energy[key] = value
	}
	return energy, sampler, nil
}

// read makes the energy and the sampler of the flags.
func (e *energyFlags) read(cmd *cobra.Command) (models.Energy, samplers.Config, error) {
	energyOptions, samplerOptions, err := e.overrides(cmd)
	if err != nil {
		return nil, samplers.Config{}, err
	}
	if e.sampler == "flow" {
		return nil, samplers.Config{}, usageErrorf("--sampler: flow follows a field from noise to data, want --run of a model that is one")
	}
	energy, err := local.AnalyticEnergy(e.name, e.dim, energyOptions)
	if err != nil {
		return nil, samplers.Config{}, usageError{err}
	}
	sampler, err := local.SamplerConfig(samplerOptions)
	if err != nil {
		return nil, samplers.Config{}, usageError{err}
	}
	return energy, sampler, nil
}

// facts are what is known of an energy.
func facts(e models.Energy) models.Facts {
	if k, ok := e.(models.Known); ok {
		return k.Known()
	}
	return models.Facts{}
}

func (e *energyFlags) sample(cmd *cobra.Command, out, temperingOut string, s local.SampleOptions, stop *stopFlags, flags backendFlags) (err error) {
	energy, sampler, err := e.read(cmd)
	if err != nil {
		return err
	}
	s.Sampler = sampler
	s.Diagnostics = e.diagnostics != ""
	rounds := &roundTable{w: cmd.ErrOrStderr()}
	s.Each = rounds.add
	if err := s.Validate(); err != nil {
		return usageError{err}
	}
	b, err := flags.open(cmd)
	if err != nil {
		return err
	}
	defer func() {
		if closing := b.Close(); err == nil {
			err = closing
		}
	}()
	got, err := local.SampleEnergy(cmd.Context(), b, energy, s)
	if err != nil {
		return err
	}
	if rounds.err != nil {
		return rounds.err
	}
	files, err := e.write(energy.Dim(), out, got)
	if err != nil {
		return err
	}
	if got.Tempering != nil {
		got.Tempering.Name = e.name
		if temperingOut != "" {
			if err := got.Tempering.Write(temperingOut); err != nil {
				return err
			}
			files = append(files, filepath.Join(temperingOut, local.TemperingFile))
		}
	}
	t := newTable(cmd.OutOrStdout(), "coordinate", "mean", "± se", "known", "variance", "known")
	t.SetTitle("%s, %d samples, %s on %s", e.name, len(got.Energy), got.Explorer, b.Kind())
	facts := facts(energy)
	known := func(v []float64, i int) string {
		if i >= len(v) {
			return "–"
		}
		return fmt.Sprintf("%.4f", v[i])
	}
	for i := range min(energy.Dim(), 10) {
		t.AppendRow(table.Row{i, fmt.Sprintf("%.4f", got.Mean[i]), stdErr(got.StdErr[i]), known(facts.Mean, i), fmt.Sprintf("%.4f", got.Variance[i]), known(facts.Variance, i)})
	}
	if len(got.Energy) > 0 { // else interrupted before the first
		t.Render()
	}
	var lines []string
	if got.Tempering != nil {
		lines = append(lines, swapLines(got.Tempering, stop)...)
	}
	if len(got.Accept) > 0 {
		lines = append(lines, "explorer acceptance "+local.Shares(got.Accept).String())
	}
	if got.Rejected > 0 {
		lines = append(lines, fmt.Sprintf("%d proposals were not finite and were rejected, the first by chain %d at step %d", got.Rejected, got.Trace.FirstChain, got.Trace.FirstStep))
	}
	if t := got.Tempering; t != nil {
		lines = append(append(lines, logZLines(t, facts.LogZ)...), verdictLines(t)...)
	}
	if err := printf(cmd.OutOrStdout(), "%s\n", strings.Join(append(lines, files...), "\n")); err != nil {
		return err
	}
	return interrupted(got.Tempering)
}

// write writes the samples, where there are any, and the diagnostics where they are asked for.
func (e *energyFlags) write(dim int, out string, got *local.EnergySamples) (files []string, err error) {
	n := len(got.Energy)
	if n == 0 { // interrupted before the first
		return nil, nil
	}
	arrays := []datasets.Array{{Name: "x", Shape: []int{n, dim}, Data: got.X}, {Name: "energy", Shape: []int{n}, Data: got.Energy}}
	var diagnostics []datasets.Array
	if got.Trace != nil {
		for _, a := range got.Trace.Arrays() {
			switch {
			case a.Name == "x":
			case strings.HasPrefix(a.Name, "trajectory"):
				arrays = append(arrays, a)
			default:
				diagnostics = append(diagnostics, a)
			}
		}
	}
	if err := local.WriteArrays(out, arrays); err != nil {
		return nil, err
	}
	if e.diagnostics == "" {
		return []string{out}, nil
	}
	return []string{out, e.diagnostics}, local.WriteArrays(e.diagnostics, diagnostics)
}

// stdErr is a standard error, and a dash for one that is unknown.
func stdErr(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.4f", v)
}
