package models_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// nodes are the inputs or the outputs of a recorded component, by name.
type nodes = map[string]*Node

// component is what a recorded case is about.
type component struct {
	params  []models.Param                        // whose values the case holds
	weights map[string]testutil.Tensor            // where they are, if not among the inputs
	knows   []string                              // parameters of the case
	build   func(in nodes, weights []*Node) nodes // the outputs; gradients of those named output follow from them
}

// fieldComponents are those of models.json but for the ones that have a test of their own.
var fieldComponents = map[string]func(t *testing.T, c testutil.Case, all []testutil.Case) component{
	"AdaLNZeroBlock": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		block := models.AdaLNZeroBlock{EmbedDim: whole(c, "embed_dim"), NumHeads: whole(c, "num_heads"), CondDim: whole(c, "cond_dim"),
			MLPRatio: c.Num("mlp_ratio", 4), Eps: c.Num("eps", 0)}
		return component{block.Params(), nil, []string{"embed_dim", "num_heads", "cond_dim", "mlp_ratio", "eps", "modulation"}, func(in nodes, w []*Node) nodes {
			return nodes{"output": block.Apply(in["x"], in["cond"], w)}
		}}
	},
	"MultiheadSelfAttention": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		attention := models.MultiheadSelfAttention{EmbedDim: whole(c, "embed_dim"), NumHeads: whole(c, "num_heads")}
		return component{attention.Params(), nil, []string{"embed_dim", "num_heads"}, func(in nodes, w []*Node) nodes {
			return nodes{"output": attention.Apply(in["x"], w)}
		}}
	},
	"FeedForward": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		mlp := models.FeedForward{EmbedDim: whole(c, "embed_dim"), Ratio: c.Num("mlp_ratio", 4), Activation: strings.TrimSuffix(c.Str("activation", "gelu"), "_tanh")}
		return component{mlp.Params(), nil, []string{"embed_dim", "mlp_ratio", "activation"}, func(in nodes, w []*Node) nodes {
			return nodes{"output": mlp.Apply(in["x"], w)}
		}}
	},
	"MLPTimestepEmbedder": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		n := whole(c, "frequency_embedding_size")
		embedder := models.TimestepEmbedder{OutDim: whole(c, "out_dim"), Frequencies: n, Scale: 1}
		if c.Num("max_period", 10000) != 10000 {
			t.Errorf("max_period: %v, want 10000", c.Params["max_period"])
		}
		return component{embedder.Params(), nil, []string{"out_dim", "frequency_embedding_size", "max_period"}, func(in nodes, w []*Node) nodes {
			return nodes{
				"freqs": ConstAs(in["t"], models.TimeFrequencies(n/2)), "sinusoid": embedder.Sinusoid(in["t"]), "output": embedder.Apply(in["t"], w)}
		}}
	},
	"LabelEmbedder": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		null := whole(c, "null_label")
		embedder := models.LabelEmbedder{NumClasses: whole(c, "num_classes"), OutDim: whole(c, "out_dim")}
		return component{embedder.Params(), nil, []string{"num_classes", "out_dim", "dropout_prob", "null_label"}, func(in nodes, w []*Node) nodes {
			return nodes{"output": embedder.Apply(in["labels"], w), "output_dropped": embedder.Apply(models.DropLabels(in["labels"], in["drop_mask"], null), w)}
		}}
	},
	"build_2d_sincos_pos_embed": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		dim, rows, columns := whole(c, "embed_dim"), whole(c, "grid_h"), whole(c, "grid_w")
		return component{nil, nil, []string{"embed_dim", "grid_h", "grid_w"}, func(in nodes, _ []*Node) nodes {
			return nodes{"table": ConstAs(in["one"], models.SinCosPositions2D(dim, rows, columns))}
		}}
	},
	"patchify2d": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		p, x := whole(c, "patch_size"), c.Inputs["x"].Shape
		return component{nil, nil, []string{"patch_size"}, func(in nodes, _ []*Node) nodes {
			tokens := models.Patchify2D(in["x"], p)
			return nodes{"tokens": tokens, "back": models.Unpatchify2D(tokens, p, [2]int{x[2] / p, x[3] / p})}
		}}
	},
	"ConvPatchEmbed2d": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		embed := models.ConvPatchEmbed2D{InChannels: whole(c, "in_channels"), EmbedDim: whole(c, "embed_dim"), PatchSize: whole(c, "patch_size")}
		return component{embed.Params(), nil, []string{"in_channels", "embed_dim", "patch_size"}, func(in nodes, w []*Node) nodes {
			return nodes{"output": embed.Apply(in["x"], w)}
		}}
	},
	"AdaLNZeroPatchHead": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		p, image := whole(c, "patch_size"), c.Expect["output"].Shape
		head := models.AdaLNZeroPatchHead{EmbedDim: whole(c, "embed_dim"), CondDim: whole(c, "cond_dim"), PatchSize: p,
			OutChannels: whole(c, "out_channels"), Grid: [2]int{image[2] / p, image[3] / p}, Eps: c.Num("eps", 0)}
		return component{head.Params(), nil, []string{"embed_dim", "cond_dim", "patch_size", "out_channels", "eps"}, func(in nodes, w []*Node) nodes {
			return nodes{"output": head.Apply(in["tokens"], in["cond"], w)}
		}}
	},
	"ConditionalTransformer2D": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		config := transformerConfig(t, c)
		config.PosEmbed = "none"
		if c.Bool("use_sincos_pos_embed", true) {
			config.PosEmbed = "sincos"
		}
		m, err := models.NewConditionalTransformer2D(config)
		if err != nil {
			t.Fatal(err)
		}
		return component{m.Params(), nil, append(transformerParams, "use_sincos_pos_embed", "modulation"), func(in nodes, w []*Node) nodes {
			return nodes{"output": m.Apply(in["x"], in["cond"], w)}
		}}
	},
	"DiT": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		m := dit(t, c)
		null := whole(c, "null_label")
		return component{m.Params(), nil, append(transformerParams, ditParams...), func(in nodes, w []*Node) nodes {
			x, t, y := in["x"], in["t"], in["labels"]
			out := nodes{"output": flatField(m, w)(x, t, y)}
			with := func(name string, c *Node) {
				own := w[len(m.Params())-len(m.Transformer().Params()):]
				out[name+".output"] = m.Transformer().Apply(x, c, own)
			}
			with("t", m.Embed(t, nil, w))
			if y != nil {
				with("y", m.Embed(nil, y, w))
				with("t_y", m.Embed(t, y, w))
				with("t_null", m.Embed(t, nullLike(y, null), w))
				if cond := in["cond"]; cond != nil {
					with("t_y_cond", Add(m.Embed(t, y, w), cond))
				}
			}
			return out
		}}
	},
	"ClassifierFreeGuidance":      guidance(models.ClassifierFreeGuidance),
	"LabelClassifierFreeGuidance": guidance(models.LabelClassifierFreeGuidance),
	"EqMEnergy": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		if c.Str("field", "") != "mlp" {
			t.Fatalf("field: %v, want mlp", c.Params["field"])
		}
		sizes := c.Params["field.sizes"].([]any)
		hidden := []int{}
		for _, n := range sizes[1 : len(sizes)-1] {
			hidden = append(hidden, int(n.(float64)))
		}
		field, err := models.NewFieldMLP(c.Inputs["x"].Shape[1], models.MLPConfig{Hidden: hidden, Activation: c.Str("field.activation", "silu"), Init: "torch"})
		if err != nil {
			t.Fatal(err)
		}
		weights := map[string]testutil.Tensor{}
		for name, in := range c.Inputs {
			if own, ok := strings.CutPrefix(name, "field."); ok {
				weights[own] = in
			}
		}
		return component{field.Params(), weights, []string{"field"}, func(in nodes, w []*Node) nodes {
			out := nodes{}
			add := func(kind string, e models.Energy) {
				out[kind+".energy"], out[kind+".gradient"] = models.EnergyAndGrad(models.At(e, w), in["x"])
			}
			for _, kind := range models.FieldEnergies() {
				e, err := models.NewEqMEnergy(field, kind)
				if err != nil {
					t.Fatal(err)
				}
				add(kind, e)
			}
			add("implicit", models.NewImplicitEqM(field))
			return out
		}}
	},
	"TimeConditionedMLP": func(t *testing.T, c testutil.Case, _ []testutil.Case) component {
		m, err := models.NewTimeConditionedMLP(whole(c, "in_dim"), models.TimeMLPConfig{
			HiddenDim: whole(c, "hidden_dim"), Depth: whole(c, "depth"), Conditioning: c.Str("conditioning", ""), MLPRatio: c.Num("mlp_ratio", 0),
			CondDim: whole(c, "cond_dim"), NumClasses: whole(c, "num_classes"), Frequencies: whole(c, "frequency_embedding_size"), TimeScale: 1})
		if err != nil {
			t.Fatal(err)
		}
		return component{m.Params(), nil, []string{"in_dim", "hidden_dim", "depth", "conditioning", "cond_dim", "num_classes", "frequency_embedding_size", "mlp_ratio"},
			func(in nodes, w []*Node) nodes {
				out := nodes{"output": m.Apply(in["x"], m.Embed(in["t"], nil, w), w)}
				if in["labels"] != nil {
					out["output_labels"] = m.Field(in["x"], in["t"], in["labels"], w)
				}
				return out
			}}
	},
}

var (
	transformerParams = []string{"in_channels", "out_channels", "input_size", "patch_size", "embed_dim", "depth", "num_heads", "cond_dim", "mlp_ratio", "eps"}
	ditParams         = []string{"num_classes", "frequency_embedding_size", "null_label", "pos_embed", "head_dim", "head_depth", "head_num_heads"}
)

func whole(c testutil.Case, key string) int { return int(c.Num(key, 0)) }

func nullLike(y *Node, null int) *Node {
	return AddScalar(ZerosLike(y), float64(null))
}

func transformerConfig(t *testing.T, c testutil.Case) models.TransformerConfig {
	if c.Num("eps", 1e-6) != 1e-6 {
		t.Errorf("eps: %v, want 1e-6", c.Params["eps"])
	}
	size := c.Inputs["x"].Shape[2:]
	if n, ok := c.Params["input_size"].(float64); ok && (int(n) != size[0] || int(n) != size[1]) {
		t.Errorf("input_size: %g for an image of %v", n, size)
	}
	return models.TransformerConfig{
		InChannels: whole(c, "in_channels"), OutChannels: whole(c, "out_channels"), Size: [2]int{size[0], size[1]}, PatchSize: whole(c, "patch_size"),
		EmbedDim: whole(c, "embed_dim"), Depth: whole(c, "depth"), NumHeads: whole(c, "num_heads"), CondDim: whole(c, "cond_dim"),
		MLPRatio: c.Num("mlp_ratio", 4), HeadDim: whole(c, "head_dim"), HeadDepth: whole(c, "head_depth"), HeadNumHeads: whole(c, "head_num_heads"),
		PosEmbed: c.Str("pos_embed", "sincos"),
	}
}

func dit(t *testing.T, c testutil.Case) *models.DiT {
	config := transformerConfig(t, c)
	config.NumClasses, config.Frequencies, config.TimeScale = whole(c, "num_classes"), whole(c, "frequency_embedding_size"), 1
	m, err := models.NewDiT(config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// flatField is a field on images, through the one on flat states.
func flatField(f models.Field, weights []*Node) models.FieldFn {
	return func(x, t, y *Node) *Node {
		return Reshape(f.Field(Reshape(x, x.Shape().Dimensions[0], f.Dim()), t, y, weights), x.Shape().Dimensions...)
	}
}

func guidance(rule func(models.FieldFn, models.Guidance) models.FieldFn) func(t *testing.T, c testutil.Case, all []testutil.Case) component {
	return func(t *testing.T, c testutil.Case, all []testutil.Case) component {
		if c.Str("energy", "") != "" {
			return guidedEnergy(t, c)
		}
		i := slices.IndexFunc(all, func(other testutil.Case) bool { return other.Name == c.Str("weights_from", "") })
		if i < 0 {
			t.Fatalf("weights_from: %v, want the name of a case", c.Params["weights_from"])
		}
		m := dit(t, c)
		null := whole(c, "null_label")
		if own := c.Num("null_label_id", float64(null)); int(own) != null {
			t.Errorf("null_label_id %g, null_label %d, want the same", own, null)
		}
		params := slices.Concat(transformerParams, ditParams, []string{"scales", "guide_channels", "weights_from", "null_label_id"})
		return component{m.Params(), all[i].Inputs, params, func(in nodes, w []*Node) nodes {
			x, t, y := Reshape(in["x"], -1, m.Dim()), in["t"], in["labels"]
			image := func(n *Node) *Node { return Reshape(n, in["x"].Shape().Dimensions...) }
			f := models.FieldAt(m, w)
			out := nodes{"cond.output": image(f(x, t, y)), "null.output": image(f(x, t, nullLike(y, null)))}
			channel := m.Dim() / in["x"].Shape().Dimensions[1]
			for _, scale := range c.Params["scales"].([]any) {
				name := "scale" + strconv.FormatFloat(scale.(float64), 'g', -1, 64)
				g := models.Guidance{Scale: scale.(float64), Null: null}
				some := g
				some.Coordinates = whole(c, "guide_channels") * channel
				out[name+".output"], out[name+".channels.output"] = image(rule(f, g)(x, t, y)), image(rule(f, some)(x, t, y))
				if c.Component == "LabelClassifierFreeGuidance" { // its cases always guide the first channels only
					out[name+".output"] = out[name+".channels.output"]
				}
			}
			return out
		}}
	}
}

func guidedEnergy(t *testing.T, c testutil.Case) component {
	if c.Str("energy", "") != "0.5*|(x - table[y]) A|^2" {
		t.Fatalf("energy: %v is unknown", c.Params["energy"])
	}
	return component{nil, nil, []string{"energy", "scale", "null_label"}, func(in nodes, _ []*Node) nodes {
		guided := models.GuidedEnergy(func(x, y *Node) *Node {
			z := Dot(Sub(x, Gather(in["table"], Reshape(y, -1, 1))), in["A"])
			return MulScalar(ReduceSum(Square(z), -1), 0.5)
		}, models.Guidance{Scale: c.Num("scale", 0), Null: whole(c, "null_label")})
		energy, gradient := models.EnergyAndGrad(func(x *Node) *Node { return guided(x, in["labels"]) }, in["x"])
		return nodes{"energy": energy, "gradient": gradient}
	}}
}

// recorded is a case made ready: its inputs, and what gives its expectations in the order of names.
type recorded struct {
	c      testutil.Case
	inputs []testutil.Tensor
	names  []string
	build  func(in []*Node) []*Node
}

func prepare(t *testing.T, c testutil.Case, all []testutil.Case) *recorded {
	of := fieldComponents[c.Component](t, c, all)
	if of.weights == nil {
		of.weights = c.Inputs
	}
	inputs := slices.Sorted(maps.Keys(c.Inputs))
	known := []string{"x", "t", "cond", "tokens", "labels", "drop_mask", "cotangent", "buffer", "A", "table", "field"}
	r := &recorded{c: c, names: slices.Sorted(maps.Keys(c.Expect))}
	for _, name := range inputs {
		r.inputs = append(r.inputs, c.Inputs[name])
	}
	flat := models.InitParams(partOf(of.params), 1)
	for _, p := range of.params {
		value, ok := of.weights[p.Name]
		if !ok && c.Str("modulation", "") == "zero" { // a fresh model, whatever its other weights
			value, ok = tensor(flat[:p.Size()], p.Shape...), true
		}
		if flat = flat[p.Size():]; !ok || !slices.Equal(value.Shape, p.Shape) {
			t.Fatalf("%s has shape %v in the case, %v in the model", p.Name, value.Shape, p.Shape)
		}
		r.inputs, known = append(r.inputs, value), append(known, p.Name)
	}
	c.Only(t, of.knows, known, r.names)
	r.inputs = append(r.inputs, tensor([]float64{1}))
	r.build = func(in []*Node) []*Node {
		named, weights := nodes{"one": in[len(in)-1]}, in[len(inputs):len(in)-1]
		for i, name := range inputs {
			if named[name] = in[i]; c.Inputs[name].DType == "int64" || name == "labels" {
				named[name] = ConvertDType(in[i], dtypes.Int32)
			}
		}
		outputs := of.build(named, weights)
		var out []*Node
		for _, name := range r.names {
			out = append(out, r.expectation(name, outputs, named, of.params, weights))
		}
		return out
	}
	return r
}

// expectation is an output, or the gradient of Σ output·cotangent for one that is named [PREFIX.]grad[_input].NAME.
func (r *recorded) expectation(name string, outputs, inputs nodes, params []models.Param, weights []*Node) *Node {
	if out, ok := outputs[name]; ok {
		return out
	}
	for _, kind := range []string{"grad_input.", "grad."} {
		prefix, of, found := strings.Cut(name, kind)
		if !found {
			continue
		}
		wrt := inputs[of]
		if i := slices.IndexFunc(params, func(p models.Param) bool { return p.Name == of }); kind == "grad." && i >= 0 {
			wrt = weights[i]
		}
		if out := outputs[prefix+"output"]; out != nil && wrt != nil && inputs["cotangent"] != nil {
			return Gradient(ReduceAllSum(Mul(out, inputs["cotangent"])), wrt)[0]
		}
	}
	panic(fmt.Errorf("%s: nothing computes %s", r.c.Name, name))
}

// partOf is a network that has the given parameters.
type partOf []models.Param

func (p partOf) Dim() int               { return 0 }
func (p partOf) Params() []models.Param { return p }

// TestReferenceFields checks the parts of transformers and fields.
func TestReferenceFields(t *testing.T) {
	all := testutil.Reference(t, "models")
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, c := range all {
			if c.Component == "InteractionModel" { // TestReferenceInteraction
				continue
			}
			t.Run(c.Name, func(t *testing.T) {
				if fieldComponents[c.Component] == nil {
					t.Fatalf("component %s: this test does not know it", c.Component)
				}
				r := prepare(t, c, all)
				for i, got := range eval(t, b, f64, r.inputs, r.build) {
					testutil.Compare(t, r.names[i], got, c.Expect[r.names[i]], c.For64(r.names[i]))
				}
				if b.Kind() != backend.Go { // compiling twice would take XLA long; TestFieldContract has it work in float32 too
					return
				}
				for i, got := range eval(t, b, f32, r.inputs, r.build) {
					testutil.Compare(t, r.names[i]+" in float32", got, c.Expect[r.names[i]], c.For32(r.names[i]))
				}
			})
		}
	})
}
