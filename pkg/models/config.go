package models

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Config is the `model` section of an experiment: a network or an analytic energy. Which keys a kind reads is in
// [Kinds]; any other key that is set is a fault. A key left out has the kind's default.
type Config struct {
	Kind string `yaml:"kind"`          // mlp, conv, a field, or the name of an analytic energy
	Dim  int    `yaml:"dim,omitempty"` // coordinates of a state; where it is left out, those of the data
	// Base is gaussian for E = f − log q with q fitted to the data, none for E = f; "" lets the experiment decide.
	// Build makes f; see WithBase.
	Base string `yaml:"base,omitempty"`

	Hidden       []int    `yaml:"hidden,flow,omitempty"`   // mlp: widths of the hidden layers
	Activation   string   `yaml:"activation,omitempty"`    // mlp: see Activations
	Init         string   `yaml:"init,omitempty"`          // mlp: see Inits
	InitStd      *float64 `yaml:"init_std,omitempty"`      // mlp with init: normal
	ZeroLast     *bool    `yaml:"zero_last,omitempty"`     // mlp: the last layer starts at 0
	SpectralNorm *bool    `yaml:"spectral_norm,omitempty"` // mlp: weights divided by their largest singular value

	Image    []int `yaml:"image,flow,omitempty"`    // conv: channels, height and width of a state
	Channels []int `yaml:"channels,flow,omitempty"` // conv: channels of each stage
	Blocks   int   `yaml:"blocks,omitempty"`        // conv: residual blocks a stage

	Means  [][]float64 `yaml:"means,flow,omitempty"`  // mixture, gaussian_mixture
	Logits []float64   `yaml:"logits,flow,omitempty"` // mixture
	Std    *float64    `yaml:"std,omitempty"`         // mixture

	Preset          string   `yaml:"preset,omitempty"`           // transformer: see Presets
	PatchSize       *int     `yaml:"patch_size,omitempty"`       // transformer: side of a patch
	EmbedDim        *int     `yaml:"embed_dim,omitempty"`        // transformer: width of a token
	HiddenDim       *int     `yaml:"hidden_dim,omitempty"`       // time_mlp: width of the hidden layers
	Depth           *int     `yaml:"depth,omitempty"`            // transformer, time_mlp: blocks
	NumHeads        *int     `yaml:"num_heads,omitempty"`        // transformer: heads of the attention
	MLPRatio        *float64 `yaml:"mlp_ratio,omitempty"`        // transformer, time_mlp: width of a block's hidden layer
	CondDim         *int     `yaml:"cond_dim,omitempty"`         // transformer, time_mlp: width of the vector of time and label
	HeadDim         *int     `yaml:"head_dim,omitempty"`         // transformer: width before the head
	HeadDepth       int      `yaml:"head_depth,omitempty"`       // transformer: blocks before the head
	HeadNumHeads    *int     `yaml:"head_num_heads,omitempty"`   // transformer: their heads
	PosEmbed        string   `yaml:"pos_embed,omitempty"`        // transformer: see PosEmbeds
	Conditioning    string   `yaml:"conditioning,omitempty"`     // time_mlp: see Conditionings
	TimeScale       *float64 `yaml:"time_scale,omitempty"`       // transformer, time_mlp: multiplies the time
	TimeFrequencies *int     `yaml:"time_frequencies,omitempty"` // transformer, time_mlp: width of its cosines and sines
	NumClasses      *int     `yaml:"num_classes,omitempty"`      // transformer, time_mlp: labels
	Energy          string   `yaml:"energy,omitempty"`           // fields: none, or see FieldEnergies

	Of       string   `yaml:"of,omitempty"`       // interaction: the kind of the energy, whose own options stand beside these
	SigmaW   *float64 `yaml:"sigma_w,omitempty"`  // interaction
	Strength *float64 `yaml:"strength,omitempty"` // interaction

	H *float64 `yaml:"h,omitempty"` // analytic energies: see their formulas
	K *float64 `yaml:"k,omitempty"`
	A *float64 `yaml:"a,omitempty"`
	B *float64 `yaml:"b,omitempty"`
	C *float64 `yaml:"c,omitempty"`

	Mean    []float64   `yaml:"mean,flow,omitempty"`    // gaussian
	Cov     [][]float64 `yaml:"cov,flow,omitempty"`     // gaussian
	Weights []float64   `yaml:"weights,flow,omitempty"` // gaussian_mixture
	Stds    []float64   `yaml:"stds,flow,omitempty"`    // gaussian_mixture
}

// Bases are the names that Config.Base knows.
func Bases() []string { return []string{"none", "gaussian"} }

// field is the field of c with a YAML key.
func (c *Config) field(key string) (reflect.Value, bool) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ","); name == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// keys are the YAML keys of Config, in order.
func (c Config) keys() []string {
	var out []string
	for f := range reflect.TypeOf(c).Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		out = append(out, name)
	}
	return out
}

func (c *Config) isSet(key string) bool {
	f, ok := c.field(key)
	return ok && !f.IsZero() // an empty list is set, and refused where a list is needed
}

// WithDefaults fills the keys that the kind reads and c leaves out. Dim and Base stay open.
func (c Config) WithDefaults() Config {
	kind, ok := c.describe()
	if !ok {
		return c
	}
	for _, p := range kind.Params {
		if p.value == nil || c.isSet(p.Key) {
			continue
		}
		// These belong to one rule alone, which comes before them in the table.
		if p.Key == "init_std" && c.Init != "normal" || p.Key == "mlp_ratio" && c.Conditioning == "concat" {
			continue
		}
		field, _ := c.field(p.Key)
		value := reflect.ValueOf(p.value)
		if size, ok := preset(c.Preset)[p.Key]; ok {
			value = reflect.ValueOf(size)
		}
		if field.Kind() == reflect.Pointer {
			pointer := reflect.New(value.Type())
			pointer.Elem().Set(value)
			value = pointer
		}
		field.Set(value)
	}
	return c
}

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	kind, ok := c.describe()
	if !ok {
		return fmt.Errorf("kind: %q, want one of %s", c.Kind, strings.Join(kindNames(), ", "))
	}
	var errs []error
	for _, key := range c.keys() {
		if key != "kind" && c.isSet(key) && !kind.has(key) {
			errs = append(errs, fmt.Errorf("%s: not an option of kind %s, want one of %s", key, c.Kind, strings.Join(kind.keys(), ", ")))
		}
	}
	if c.Base != "" && kind.has("base") && !slices.Contains(Bases(), c.Base) {
		errs = append(errs, fmt.Errorf("base: %q, want one of %s", c.Base, strings.Join(Bases(), ", ")))
	} else if c.Base == "gaussian" && c.IsField() {
		errs = append(errs, errors.New("base: gaussian with energy: none, want none: a field has no base"))
	}
	dim, err := c.pickDim(0)
	if err == nil {
		if dim == 0 {
			dim = c.someDim() // the data will say
		}
		_, err = c.WithDefaults().make(dim, 0)
	}
	return errors.Join(append(errs, err)...)
}

// pickDim reconciles the dimension of the data (0: not known), the key dim and the parameters. 0: none of them says.
func (c Config) pickDim(data int) (int, error) {
	type source struct {
		name string
		dim  int
	}
	own := 0
	kind := c.Kind
	if kind == kindInteraction {
		kind = c.Of
	}
	switch {
	case kind == "himmelblau" || kind == "booth":
		own = 2
	case len(c.Image) == 3:
		own = c.Image[0] * c.Image[1] * c.Image[2]
	case kind == "gaussian":
		own = len(c.Mean)
	case (kind == "mixture" || kind == "gaussian_mixture") && len(c.Means) > 0:
		own = len(c.Means[0])
	}
	if c.Dim < 0 {
		return 0, fmt.Errorf("dim: %d, want at least 1", c.Dim)
	}
	var first source
	for _, s := range []source{{"the data", data}, {"kind " + c.Kind, own}, {"dim", c.Dim}} {
		switch {
		case s.dim == 0:
		case first.dim == 0:
			first = s
		case s.dim != first.dim:
			return 0, fmt.Errorf("dim: %d by %s, but %d by %s: want the same", s.dim, s.name, first.dim, first.name)
		}
	}
	return first.dim, nil
}

// someDim is a dimension that the kind can be had in.
func (c Config) someDim() int {
	switch c.Kind {
	case "conv":
		side := 1 << min(len(c.WithDefaults().Channels), 16)
		return side * side
	case "transformer":
		side := max(1, min(*c.WithDefaults().PatchSize, 1<<16))
		return side * side
	}
	return 2
}

// Build makes the energy of a state of dim numbers, f without its base. dim 0 stands for what the section itself says. It
// refuses a field; see BuildNetwork.
func (c Config) Build(dim int) (Energy, error) {
	if c.IsField() {
		return nil, fmt.Errorf("models: energy: none makes a field of kind %s, want one of %s for an energy", c.Kind, strings.Join(FieldEnergies(), ", "))
	}
	n, err := c.BuildNetwork(dim, 0)
	if err != nil {
		return nil, err
	}
	return n.(Energy), nil
}

// BuildNetwork makes the energy or the field (see IsField) of a state of dim numbers. dim 0 stands for what the section
// itself says. classes is the number of labels that the network must know, 0 for none; only a field knows labels.
func (c Config) BuildNetwork(dim, classes int) (Network, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	if dim < 0 {
		return nil, fmt.Errorf("models: dim: %d, want at least 1", dim)
	}
	dim, err := c.pickDim(dim)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	if dim == 0 {
		return nil, fmt.Errorf("models: dim: missing, want the number of coordinates of kind %s", c.Kind)
	}
	n, err := c.WithDefaults().make(dim, classes)
	if err != nil {
		return nil, fmt.Errorf("models: %s: %w", c.Kind, err)
	}
	return n, nil
}

// make builds the network of a section with its defaults. A typed nil never leaves it.
func (c Config) make(dim, classes int) (Network, error) {
	if slices.Contains(fieldKinds(), c.Kind) {
		return c.makeField(dim, classes)
	}
	if classes > 0 {
		return nil, fmt.Errorf("kind: %s knows no labels, want one of %s", c.Kind, strings.Join(conditionalKinds(), ", "))
	}
	switch c.Kind {
	case "mlp":
		return networkOr(NewMLP(dim, c.mlpConfig()))
	case "conv":
		image, err := imageOf(c.Image, dim)
		if err != nil {
			return nil, err
		}
		return networkOr(NewConv(ConvConfig{Image: image, Channels: c.Channels, Blocks: c.Blocks, Activation: c.Activation, SpectralNorm: *c.SpectralNorm}))
	case "mixture":
		return networkOr(NewMixture(c.Means, c.Logits, *c.Std))
	case "gaussian":
		return networkOr(NewGaussianEnergy(c.Mean, c.Cov))
	case "double_well":
		return networkOr(NewDoubleWell(dim, *c.H, *c.B))
	case "double_well_tilted":
		return networkOr(NewTiltedDoubleWell(dim, *c.A, *c.C))
	case "harmonic":
		return networkOr(NewHarmonic(dim, *c.K))
	case "rosenbrock":
		return networkOr(NewRosenbrock(dim, *c.A, *c.B))
	case "ackley":
		return networkOr(NewAckley(dim, *c.A, *c.B, *c.C))
	case "rastrigin":
		return networkOr(NewRastrigin(dim, *c.A))
	case "himmelblau":
		return networkOr(NewHimmelblau(dim))
	case "booth":
		return networkOr(NewBooth(dim))
	case "styblinski_tang":
		return networkOr(NewStyblinskiTang(dim))
	case "gaussian_mixture":
		return networkOr(NewGaussianMixture(c.Weights, c.Means, c.Stds))
	case kindInteraction:
		return c.makeInteraction(dim)
	}
	return nil, fmt.Errorf("kind: %q, want one of %s", c.Kind, strings.Join(kindNames(), ", "))
}

func networkOr[N Network](n N, err error) (Network, error) {
	if err != nil {
		return nil, err
	}
	return n, nil
}

// New builds an energy by name, with parameters by their keys: numbers, lists, or text that says one ("2", "[0, 1]").
// dim 0 stands for what the parameters themselves say.
//
//	e, err := models.New("double_well", 2, map[string]any{"h": 3.5, "b": "1.4"})
func New(name string, dim int, params map[string]any) (Energy, error) {
	c := Config{Kind: name}
	c.Of, _ = params["of"].(string) // says which other options there are
	kind, ok := c.describe()
	if !ok {
		return nil, fmt.Errorf("models: %q, want one of %s", name, strings.Join(kindNames(), ", "))
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(params)) {
		if !kind.has(key) {
			errs = append(errs, fmt.Errorf("%s: not an option of %s, want one of %s", key, name, strings.Join(kind.keys()[1:], ", ")))
		} else if err := c.set(key, params[key]); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("models: %s: %w", name, errors.Join(errs...))
	}
	return c.Build(dim)
}

// set writes a key. JSON is the common notation of numbers, flags and lists, in text and in Go values.
func (c *Config) set(key string, value any) error {
	field, _ := c.field(key)
	text, isText := value.(string)
	if field.Kind() == reflect.String {
		if !isText {
			return fmt.Errorf("%s: %v, want text", key, value)
		}
		field.SetString(text)
		return nil
	}
	raw := []byte(text)
	if !isText {
		var err error
		if raw, err = json.Marshal(value); err != nil {
			return fmt.Errorf("%s: %v, want %s", key, value, wanted(field.Type()))
		}
	}
	target := reflect.New(field.Type())
	if err := json.Unmarshal(raw, target.Interface()); err != nil || target.Elem().IsZero() && field.Kind() != reflect.Int {
		return fmt.Errorf("%s: %s, want %s", key, raw, wanted(field.Type()))
	}
	field.Set(target.Elem())
	return nil
}

// wanted names a type for people.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Slice {
			return "a list of lists of numbers, [[1, 0], [0, 1]]"
		}
		return "a list of numbers, [1, 2]"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return "a number"
}
