package models

import (
	"fmt"
	"slices"
	"strings"
)

// IsField says whether the section names a field, not an energy.
func (c Config) IsField() bool {
	return slices.Contains(fieldKinds(), c.Kind) && (c.Energy == "" || c.Energy == "none")
}

// makeField builds the field of a section with its defaults, or the energy that `energy` makes of it.
func (c Config) makeField(dim, classes int) (Network, error) {
	var f faults
	if c.Energy != "none" && !slices.Contains(FieldEnergies(), c.Energy) {
		f.add("energy", "%q, want one of none, %s", c.Energy, strings.Join(FieldEnergies(), ", "))
	}
	if c.Preset != "" && preset(c.Preset) == nil {
		f.add("preset", "%q, want one of %s", c.Preset, strings.Join(Presets(), ", "))
	}
	if c.Kind == "transformer" { // a 0 would stand for another key there
		for _, key := range []string{"cond_dim", "head_dim", "head_num_heads"} {
			if v, _ := c.field(key); !v.IsNil() && v.Elem().Int() == 0 {
				f.add(key, "0, want at least 1")
			}
		}
	}
	switch {
	case classes > 0 && !c.IsField():
		f.add("energy", "%s knows no labels, want none for a loss with labels", c.Energy)
	case c.NumClasses != nil && classes > 0 && *c.NumClasses < classes:
		f.add("num_classes", "%d, want at least the %d of the data", *c.NumClasses, classes)
	case c.NumClasses != nil:
		classes = *c.NumClasses
	}
	field, err := c.buildField(dim, classes)
	if err != nil {
		f = append(f, err)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	if c.IsField() {
		return field, nil
	}
	return networkOr(NewEqMEnergy(field, c.Energy))
}

// buildField is the field before anything is made of it. A typed nil never leaves it.
func (c Config) buildField(dim, classes int) (Field, error) {
	or := func(v *int, value int) int {
		if v == nil {
			return value
		}
		return *v
	}
	switch c.Kind {
	case "transformer":
		image, err := imageOf(c.Image, dim)
		if err != nil {
			return nil, err
		}
		return fieldOr(NewDiT(TransformerConfig{
			InChannels: image[0], Size: [2]int{image[1], image[2]}, PatchSize: *c.PatchSize,
			EmbedDim: *c.EmbedDim, Depth: *c.Depth, NumHeads: *c.NumHeads, MLPRatio: *c.MLPRatio, CondDim: or(c.CondDim, *c.EmbedDim),
			HeadDim: or(c.HeadDim, *c.EmbedDim), HeadDepth: c.HeadDepth, HeadNumHeads: or(c.HeadNumHeads, *c.NumHeads), PosEmbed: c.PosEmbed,
			NumClasses: classes, Frequencies: *c.TimeFrequencies, TimeScale: *c.TimeScale,
		}))
	case "time_mlp":
		config := TimeMLPConfig{
			HiddenDim: *c.HiddenDim, Depth: *c.Depth, Conditioning: c.Conditioning, Activation: c.Activation, CondDim: or(c.CondDim, *c.HiddenDim),
			NumClasses: classes, Frequencies: *c.TimeFrequencies, TimeScale: *c.TimeScale,
		}
		if c.MLPRatio != nil {
			config.MLPRatio = *c.MLPRatio
		}
		return fieldOr(NewTimeConditionedMLP(dim, config))
	}
	if classes > 0 {
		return nil, fmt.Errorf("kind: %s knows no labels, want one of %s", c.Kind, strings.Join(conditionalKinds(), ", "))
	}
	return fieldOr(NewFieldMLP(dim, c.mlpConfig()))
}

func fieldOr[F Field](f F, err error) (Field, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (c Config) mlpConfig() MLPConfig {
	config := MLPConfig{Hidden: c.Hidden, Activation: c.Activation, Init: c.Init, ZeroLast: *c.ZeroLast, SpectralNorm: *c.SpectralNorm}
	if c.InitStd != nil {
		config.InitStd = *c.InitStd
	}
	return config
}
