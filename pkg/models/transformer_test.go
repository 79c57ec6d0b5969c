package models_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

func named(params []models.Param) []string {
	var out []string
	for _, p := range params {
		out = append(out, fmt.Sprint(p.Name, p.Shape))
	}
	return out
}

func field(t testing.TB, dim, classes int, c models.Config) models.Field {
	t.Helper()
	n, err := c.BuildNetwork(dim, classes)
	if err != nil {
		t.Fatal(err)
	}
	return n.(models.Field)
}

// The names and shapes are those of TorchEBM's state dicts, in another order.
func TestFieldNamesAndShapes(t *testing.T) {
	block := func(name string, width, cond int) []string {
		return []string{
			fmt.Sprintf("%s.attn.qkv.weight[%d %d]", name, 3*width, width), fmt.Sprintf("%s.attn.qkv.bias[%d]", name, 3*width),
			fmt.Sprintf("%s.attn.out_proj.weight[%d %d]", name, width, width), fmt.Sprintf("%s.attn.out_proj.bias[%d]", name, width),
			fmt.Sprintf("%s.mlp.net.0.weight[%d %d]", name, 4*width, width), fmt.Sprintf("%s.mlp.net.0.bias[%d]", name, 4*width),
			fmt.Sprintf("%s.mlp.net.3.weight[%d %d]", name, width, 4*width), fmt.Sprintf("%s.mlp.net.3.bias[%d]", name, width),
			fmt.Sprintf("%s.modulation.1.weight[%d %d]", name, 6*width, cond), fmt.Sprintf("%s.modulation.1.bias[%d]", name, 6*width),
		}
	}
	embedders := []string{"t_embedder.mlp.0.weight[6 256]", "t_embedder.mlp.0.bias[6]", "t_embedder.mlp.2.weight[6 6]", "t_embedder.mlp.2.bias[6]",
		"y_embedder.embedding.weight[11 6]"}
	for _, tc := range []struct {
		name string
		c    models.Config
		want []string
	}{
		{"transformer", models.Config{Kind: "transformer", Image: []int{3, 4, 8}, EmbedDim: new(8), Depth: new(2), CondDim: new(6),
			HeadDim: new(4), HeadDepth: 1, HeadNumHeads: new(2), PosEmbed: "learnable"},
			slices.Concat(embedders, []string{"pos_embed[1 8 8]", "patch_embed.proj.weight[8 3 2 2]", "patch_embed.proj.bias[8]"},
				block("blocks.0", 8, 6), block("blocks.1", 8, 6), []string{"head_proj.weight[4 8]", "head_proj.bias[4]"}, block("head_blocks.0", 4, 6),
				[]string{"head.modulation.1.weight[8 6]", "head.modulation.1.bias[8]", "head.proj.weight[12 4]", "head.proj.bias[12]"})},
		{"time_mlp", models.Config{Kind: "time_mlp", HiddenDim: new(5), Depth: new(1), CondDim: new(6), MLPRatio: new(2.0)},
			slices.Concat(embedders, []string{"stem.weight[5 96]", "stem.bias[5]", "blocks.0.mlp.net.0.weight[10 5]", "blocks.0.mlp.net.0.bias[10]",
				"blocks.0.mlp.net.3.weight[5 10]", "blocks.0.mlp.net.3.bias[5]", "blocks.0.modulation.1.weight[15 6]", "blocks.0.modulation.1.bias[15]",
				"head.modulation.1.weight[10 6]", "head.modulation.1.bias[10]", "head.proj.weight[96 5]", "head.proj.bias[96]"})},
		{"concat", models.Config{Kind: "time_mlp", HiddenDim: new(5), Depth: new(2), CondDim: new(6), Conditioning: "concat"},
			slices.Concat(embedders, []string{"net.0.weight[5 102]", "net.0.bias[5]", "net.2.weight[5 5]", "net.2.bias[5]", "net.4.weight[96 5]", "net.4.bias[96]"})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := named(field(t, 96, 10, tc.c).Params()); !slices.Equal(got, tc.want) {
				t.Errorf("parameters\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
	if got, want := named(field(t, 2, 0, models.Config{Kind: "field_mlp", Hidden: []int{4}}).Params()), []string{
		"net.0.weight[4 3]", "net.0.bias[4]", "net.2.weight[2 4]", "net.2.bias[2]"}; !slices.Equal(got, want) {
		t.Errorf("field_mlp: parameters %v, want %v", got, want)
	}
}

// A new transformer or adaLN-Zero perceptron gives 0, whatever it is asked, and its other weights follow their laws.
func TestFieldsStartAtZero(t *testing.T) {
	kinds := map[string]models.Field{
		"transformer": field(t, 16, 2, models.Config{Kind: "transformer", EmbedDim: new(8), Depth: new(1), NumHeads: new(2), PosEmbed: "learnable"}),
		"time_mlp":    field(t, 16, 2, models.Config{Kind: "time_mlp", HiddenDim: new(8), Depth: new(1)}),
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for name, f := range kinds {
			in := append([]testutil.Tensor{somewhere(3, 16), tensor([]float64{0, 0.5, 1}, 3)}, weightsOf(f, 2)...)
			out := eval(t, b, f32, in, func(in []*Node) []*Node {
				return []*Node{f.Field(in[0], in[1], Const(in[0].Graph(), []int32{0, 1, 2}), in[2:])}
			})
			if slices.ContainsFunc(out[0], func(v float64) bool { return v != 0 }) {
				t.Errorf("%s: %v, want zeros", name, out[0])
			}
		}
	})
	f := field(t, 64, 10, models.Config{Kind: "transformer", Depth: new(1), PosEmbed: "learnable"})
	weights := weightsOf(f, 1)
	for i, p := range f.Params() {
		sum, largest := 0.0, 0.0
		for _, v := range weights[i].Data {
			sum, largest = sum+v*v, max(largest, math.Abs(v))
		}
		deviation := math.Sqrt(sum / float64(p.Size()))
		normal := strings.Contains(p.Name, "embedder") || p.Name == "pos_embed"
		switch {
		case strings.HasSuffix(p.Name, "bias") || strings.Contains(p.Name, "modulation") || p.Name == "head.proj.weight":
			if largest != 0 {
				t.Errorf("%s starts at up to %g, want 0", p.Name, largest)
			}
		case normal: // five standard errors of a deviation are 5/√(2n) of it
			if d := deviation/0.02 - 1; math.Abs(d) > 5/math.Sqrt(2*float64(p.Size())) {
				t.Errorf("%s has the deviation %g, want 0.02", p.Name, deviation)
			}
		default: // a uniform law on ±a has the deviation a/√3
			in := p.Size() / p.Shape[0]
			bound := math.Sqrt(6 / float64(in+p.Shape[0]))
			if d := deviation*math.Sqrt(3)/bound - 1; largest > bound || math.Abs(d) > 5/math.Sqrt(float64(p.Size())) {
				t.Errorf("%s reaches %g with the deviation %g, want the uniform law on ±%g", p.Name, largest, deviation, bound)
			}
		}
	}
}

func TestSinCosPositions(t *testing.T) {
	const dim, rows, columns = 8, 2, 3
	table := models.SinCosPositions2D(dim, rows, columns)
	if want := []float64{0, 0, 1, 1, 0, 0, 1, 1}; !slices.Equal(table[:dim], want) {
		t.Errorf("the first row is %v, want %v", table[:dim], want)
	}
	// Token 4 is row 1, column 1; token 5 row 1, column 2. Frequencies 1 and 10000^(−1/2) = 1/100.
	for token, column := range map[int]float64{4: 1, 5: 2} {
		want := []float64{math.Sin(column), math.Sin(column / 100), math.Cos(column), math.Cos(column / 100),
			math.Sin(1), math.Sin(0.01), math.Cos(1), math.Cos(0.01)}
		for i, v := range table[token*dim : (token+1)*dim] {
			if !near(v, want[i], 1e-15) {
				t.Errorf("token %d: %v, want %v", token, table[token*dim:(token+1)*dim], want)
				break
			}
		}
	}
}

// Peebles and Xie (2023, table 1) count 33, 130, 458 and 675 million parameters for images of 4×32×32, 1000 labels and a
// head that also gives a variance; the patch size hardly matters.
func TestPresets(t *testing.T) {
	millions := map[string]float64{"s": 33, "b": 130, "l": 458, "xl": 675}
	if len(models.Presets()) != 12 {
		t.Errorf("presets %v, want twelve", models.Presets())
	}
	for _, name := range models.Presets() {
		size := strings.Split(name, "_")[1]
		f := field(t, 4*32*32, 1000, models.Config{Kind: "transformer", Preset: name, Image: []int{4, 32, 32}})
		if got := float64(models.NumParams(f)) / 1e6; math.Abs(got/millions[size]-1) > 0.02 {
			t.Errorf("%s has %.1f million parameters, want about %g", name, got, millions[size])
		}
	}
	c := models.Config{Kind: "transformer", Preset: "dit_b_4", Depth: new(2)}.WithDefaults()
	if *c.EmbedDim != 768 || *c.Depth != 2 || *c.NumHeads != 12 || *c.PatchSize != 4 {
		t.Errorf("dit_b_4 with depth 2: width %d, depth %d, %d heads, patches of %d; want 768, 2, 12, 4", *c.EmbedDim, *c.Depth, *c.NumHeads, *c.PatchSize)
	}
}

func TestFieldConfig(t *testing.T) {
	transformer := models.Config{Kind: "transformer"}
	energy := models.Config{Kind: "transformer", Energy: "dot"}
	for _, tc := range []struct {
		name         string
		c            models.Config
		dim, classes int
		field        bool
		knows        int
		err          string
	}{
		{"a transformer", transformer, 64, 0, true, 0, ""},
		{"labels of the data", transformer, 64, 10, true, 10, ""},
		{"more labels than the data", models.Config{Kind: "time_mlp", NumClasses: new(12)}, 3, 10, true, 12, ""},
		{"fewer labels than the data", models.Config{Kind: "time_mlp", NumClasses: new(3)}, 3, 10, true, 0, "num_classes: 3, want at least the 10 of the data"},
		{"labels without data", models.Config{Kind: "time_mlp", NumClasses: new(3)}, 3, 0, true, 3, ""},
		{"an energy", energy, 64, 0, false, 0, ""},
		{"an energy with labels", energy, 64, 10, false, 0, "energy: dot knows no labels"},
		{"a perceptron with labels", models.Config{Kind: "field_mlp"}, 2, 10, true, 0, "kind: field_mlp knows no labels, want one of transformer, time_mlp"},
		{"a plain energy with labels", models.Config{Kind: "mlp"}, 2, 10, false, 0, "kind: mlp knows no labels"},
		{"a plain energy", models.Config{Kind: "harmonic"}, 2, 0, false, 0, ""},
		{"no square", transformer, 60, 0, true, 0, "image: missing, and 60 numbers are no square"},
		{"another image", models.Config{Kind: "transformer", Image: []int{1, 8, 8}}, 60, 0, true, 0, "dim: 64 by kind transformer, but 60 by the data"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.c.IsField(); got != tc.field {
				t.Errorf("a field: %t, want %t", got, tc.field)
			}
			n, err := tc.c.BuildNetwork(tc.dim, tc.classes)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || n != nil {
					t.Errorf("%v, error %v, want none and %q", n, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f, isField := n.(models.Field)
			if _, isEnergy := n.(models.Energy); isField != tc.field || isEnergy == tc.field || n.Dim() != tc.dim {
				t.Errorf("%T of dimension %d, want a field: %t, of dimension %d", n, n.Dim(), tc.field, tc.dim)
			}
			if isField && f.Classes() != tc.knows {
				t.Errorf("%d labels, want %d", f.Classes(), tc.knows)
			}
		})
	}
	if e, err := transformer.Build(64); err == nil || e != nil || !strings.Contains(err.Error(), "energy: none makes a field of kind transformer") {
		t.Errorf("a field as an energy: %v, error %v", e, err)
	}
	if e, err := energy.Build(64); err != nil || e.Dim() != 64 {
		t.Errorf("a transformer as an energy: %v, error %v", e, err)
	}
}

func TestFieldsRefuseWrongArguments(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	labelled := field(t, 4, 3, models.Config{Kind: "transformer", EmbedDim: new(4), Depth: new(1), NumHeads: new(1)})
	plain := field(t, 4, 0, models.Config{Kind: "field_mlp", Hidden: []int{3}})
	timeless := field(t, 4, 0, models.Config{Kind: "time_mlp", Conditioning: "concat", HiddenDim: new(3), Depth: new(1), CondDim: new(0)})
	trunk, err := models.NewConditionalTransformer2D(models.TransformerConfig{InChannels: 1, Size: [2]int{2, 2}, PatchSize: 2, EmbedDim: 4, Depth: 1,
		NumHeads: 1, MLPRatio: 1, CondDim: 3, PosEmbed: "none"})
	if err != nil {
		t.Fatal(err)
	}
	labels := func(x *Node) *Node { return Const(x.Graph(), []int32{0, 1}) }
	for _, tc := range []struct {
		name  string
		of    models.Network
		shape []int
		build func(x *Node, w []*Node) *Node
		want  string
	}{
		{"states of another size", labelled, []int{2, 5}, func(x *Node, w []*Node) *Node { return labelled.Field(x, nil, nil, w) }, "want [batch, 4]"},
		{"fewer weights", labelled, []int{2, 4}, func(x *Node, w []*Node) *Node { return labelled.Field(x, nil, nil, w[1:]) }, "parameters, want"},
		{"labels of another batch", labelled, []int{3, 4}, func(x *Node, w []*Node) *Node { return labelled.Field(x, nil, labels(x), w) }, "want [3] as the batch"},
		{"labels that nobody knows", plain, []int{2, 4}, func(x *Node, w []*Node) *Node { return plain.Field(x, nil, labels(x), w) }, "labels for a field that knows none"},
		{"labels beside no time", timeless, []int{2, 4}, func(x *Node, w []*Node) *Node { return timeless.Field(x, nil, labels(x), w) }, "labels for a field that knows none"},
		{"an energy that no field has", plain, []int{2, 4}, func(x *Node, w []*Node) *Node { return models.FieldEnergy("cross", x, x) }, `"cross", want one of dot, mean, l2`},
		{"a vector of another width", trunk, []int{2, 4}, func(x *Node, w []*Node) *Node { return trunk.Apply(Reshape(x, 2, 1, 2, 2), x, w) }, "want [batch, 3]"},
	} {
		in := append([]testutil.Tensor{testutil.Filled(0, tc.shape...)}, weightsOf(tc.of, 1)...)
		_, err := tryEval(b, f32, in, func(in []*Node) []*Node { return []*Node{tc.build(in[0], in[1:])} })
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want it to say %q", tc.name, err, tc.want)
		}
	}
}
