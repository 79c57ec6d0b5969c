// Package experiment is the YAML of an experiment: its keys, their defaults, and what is wrong with a file.
//
// Load reads a file strictly and reports every fault at once, each with its line, an arrow under the key and what would
// be right. What it returns has every default written in:
//
//	config, err := experiment.Load("examples/two-moons.yaml", []string{"train.steps=2000", "sampler.step_size=0.01"})
//	if err != nil {
//		return err // a *experiment.Error
//	}
//	fmt.Println(config.Tempering.Rungs, config.Buffer.Size)
//	resolved, err := experiment.Marshal(config) // loads back to the same value
//	notes, err := experiment.Explain(config)    // the same, and for every key what it does and who set it
//
// Each section is the Config of the package that it configures; this one adds what spans several of them.
package experiment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Config is an experiment. A program may fill it by hand: whatever it leaves zero, Resolve gives its default.
type Config struct {
	Name      string                 `yaml:"name"`
	Seed      uint64                 `yaml:"seed"`
	Data      datasets.Config        `yaml:"data"`
	Model     models.Config          `yaml:"model"`
	Loss      losses.Config          `yaml:"loss"`
	Sampler   samplers.Config        `yaml:"sampler"`
	Tempering tempering.Config       `yaml:"tempering"`
	Buffer    buffer.Config          `yaml:"buffer"` // unused, and zero, under loss.kind: contrastive_divergence
	Optimizer engine.OptimizerConfig `yaml:"optimizer"`
	Averaging averaging.Config       `yaml:"averaging"`
	Train     TrainConfig            `yaml:"train"`
	Evaluate  EvaluateConfig         `yaml:"evaluate"`
	Backend   backend.Config         `yaml:"backend"`

	// Dir is the folder that a relative data.path starts at: that of the file.
	Dir string `yaml:"-"`

	origins map[string]Origin // keys that the file or a flag set
	filled  map[string]bool   // keys that Resolve decided
}

// TrainConfig is the `train` section: how long to train, and what to keep on the way. Exactly one of Steps and Epochs
// is set.
type TrainConfig struct {
	Steps  int `yaml:"steps,omitempty"`  // optimizer steps
	Epochs int `yaml:"epochs,omitempty"` // passes over the training rows
	Batch  int `yaml:"batch"`            // training rows a step
	// Split is the number of shards, equal parts, that the rows of a step are cut into where the loss keeps no chains; 1 where it does:
	// its rows go with its ladders, see [tempering.Config].
	Split    int     `yaml:"split"`
	CutEvery float64 `yaml:"cut_every"` // seconds between cuts; 0 = at the end and on interruption only
	LogEvery int     `yaml:"log_every"` // steps between metric records
	Frames   int     `yaml:"frames"`    // pictures of the landscape kept for the GIF; 0 = none
}

// EvaluateConfig is the `evaluate` section: how the trained model is held against the test set.
type EvaluateConfig struct {
	Samples     int `yaml:"samples"`     // model samples drawn for MMD, sliced Wasserstein and mode coverage
	Scans       int `yaml:"scans"`       // scans that fresh chains make before they count as samples, in which a ladder adapts
	Measure     int `yaml:"measure"`     // scans of the ladder on which log Z is measured; 0 = no log Z
	Every       int `yaml:"every"`       // training steps between two test likelihoods on the way; 0 = none
	Projections int `yaml:"projections"` // directions of the sliced Wasserstein distance
}

// CutInterval is CutEvery as a duration; 0 means no cuts on the way.
func (c TrainConfig) CutInterval() time.Duration {
	return time.Duration(c.CutEvery * float64(time.Second))
}

// Bounds of an experiment's file, far above what anybody needs: the YAML parser's time grows with the square of the
// number of lines and of the nesting.
const (
	maxBytes   = 1 << 18
	maxLines   = 10_000
	maxNesting = 100
)

// Load reads an experiment from a file, lays the overrides over it ("a.b=c", where c is YAML), fills the defaults and
// checks it. A *Error lists every fault.
func Load(path string, sets []string) (*Config, error) {
	whole := func(format string, args ...any) error {
		return &Error{File: path, Faults: []Fault{{At: Origin{File: path}, Text: fmt.Sprintf(format, args...)}}}
	}
	f, err := os.Open(path)
	var pathError *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, whole("no such file")
	case errors.As(err, &pathError):
		return nil, whole("cannot be opened: %v", pathError.Err)
	case err != nil:
		return nil, whole("cannot be opened: %v", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, whole("a folder, want an experiment file in it")
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, whole("cannot be read: %v", err)
	}
	return Parse(path, raw, sets)
}

// Parse is Load of a text; name stands for the file in errors, and its folder is that of a relative data.path.
func Parse(name string, raw []byte, sets []string) (*Config, error) {
	from := Origin{File: name}
	fail := func(faults []Fault) error {
		sortFaults(faults)
		text := strings.ReplaceAll(strings.TrimPrefix(string(raw), "\ufeff"), "\r\n", "\n")
		return &Error{File: name, Faults: faults, lines: strings.Split(text, "\n")}
	}
	r := &reading{from: from}
	if fault, bad := unreadable(raw, from); bad {
		return nil, fail([]Fault{fault})
	}
	root := r.read([]byte(strings.TrimPrefix(string(raw), "\ufeff")))
	if len(r.faults) > 0 && root == nil {
		return nil, fail(r.faults)
	}
	switch {
	case root == nil && len(sets) == 0:
		r.fault(from, "", "empty, want sections such as data, model and train; `coordinator config schema` has them all")
		return nil, fail(r.faults)
	case root == nil:
		root = &node{kind: mapNode, at: from}
	case root.kind != mapNode:
		r.fault(root.at, "", "%s, want sections such as data, model and train", root.what())
		return nil, fail(r.faults)
	}
	for _, set := range sets {
		if o, ok := r.parseOverride(set); ok {
			r.apply(root, o)
		}
	}

	c := &Config{Dir: filepath.Dir(name)}
	d := &decoder{faults: r.faults, origins: map[string]Origin{}, excused: map[string]bool{}}
	for _, f := range r.faults {
		if f.Path != "" {
			d.excused[f.Path] = true
		}
	}
	d.structValue(root, reflect.ValueOf(c).Elem(), "")
	c.origins = maps.Clone(d.origins)
	maps.DeleteFunc(c.origins, func(path string, _ Origin) bool { return d.isExcused(path) }) // the default stands in
	if c.Name == "" && !c.isSet("name", "") {
		base := filepath.Base(name)
		c.Name = strings.TrimSuffix(base, filepath.Ext(base))
		c.filled = map[string]bool{"name": true}
	}
	c.Resolve()
	for _, err := range flatten(c.Validate()) {
		path, _, _ := cutKey(err.Error())
		if !d.isExcused(path) {
			d.faults = append(d.faults, Fault{At: d.origin(path, from), Path: path, Text: err.Error()})
		}
	}
	if len(d.faults) > 0 {
		return nil, fail(d.faults)
	}
	return c, nil
}

// origin is where the key was set, or else the nearest section around it.
func (d *decoder) origin(path string, file Origin) Origin {
	for path != "" {
		if o, ok := d.origins[path]; ok {
			return o
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return file
}

// unreadable finds what makes bytes no text.
func unreadable(raw []byte, from Origin) (Fault, bool) {
	if len(raw) > maxBytes {
		return Fault{At: from, Text: fmt.Sprintf("larger than %d KiB, want an experiment: a few lines of YAML", maxBytes>>10)}, true
	}
	line, col, open, dashes := 1, 1, 0, 0
	for i := 0; i < len(raw); {
		r, size := utf8.DecodeRune(raw[i:])
		bad := ""
		switch {
		case r == utf8.RuneError && size == 1:
			bad = fmt.Sprintf("the byte 0x%02x is not UTF-8, want a text file saved as UTF-8", raw[i])
		case r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f:
			bad = fmt.Sprintf("the control character 0x%02x, want a text file", r)
		case line > maxLines:
			bad = fmt.Sprintf("more than %d lines, want an experiment: a few lines of YAML", maxLines)
		case open > maxNesting || dashes > maxNesting:
			bad = fmt.Sprintf("more than %d levels, want an experiment: sections with keys", maxNesting)
		}
		if bad != "" {
			from.Line, from.Col = line, col
			return Fault{At: from, Text: bad}, true
		}
		switch r {
		case '[', '{':
			open++
		case ']', '}':
			open--
		case '-', '?':
		case ' ':
			if i > 0 && (raw[i-1] == '-' || raw[i-1] == '?') {
				dashes++ // "- - - x": lists within lists, on one line
			}
		default:
			dashes = 0
		}
		if i += size; r == '\n' {
			line, col = line+1, 1
		} else {
			col++
		}
	}
	return Fault{}, false
}

// Equal says whether two experiments say the same, wherever their keys were set.
func (c *Config) Equal(other *Config) bool {
	a, b := *c, *other
	for _, x := range []*Config{&a, &b} {
		x.Dir, x.origins, x.filled = "", nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// Clone is a copy that may be changed and resolved without touching c. The sections' lists are shared.
func (c *Config) Clone() *Config {
	out := *c
	out.origins, out.filled = maps.Clone(c.origins), maps.Clone(c.filled)
	return &out
}

// DataPath is data.path from where the process stands; empty where the data come from no file.
func (c *Config) DataPath() string {
	if c.Data.Path == "" || filepath.IsAbs(c.Data.Path) {
		return c.Data.Path
	}
	return filepath.Join(c.Dir, c.Data.Path)
}

// Rebase makes data.path relative to another folder, in which the experiment is going to be written.
func (c *Config) Rebase(dir string) error {
	if c.Data.Path != "" && !filepath.IsAbs(c.Data.Path) {
		from, err := filepath.Abs(c.DataPath())
		if err != nil {
			return fmt.Errorf("experiment: data.path: %w", err)
		}
		to, err := filepath.Abs(dir)
		if err != nil {
			return fmt.Errorf("experiment: folder %s: %w", dir, err)
		}
		if c.Data.Path, err = filepath.Rel(to, from); err != nil {
			c.Data.Path = from // another drive
		}
		c.Data.Path = filepath.ToSlash(c.Data.Path)
	}
	c.Dir = dir
	return nil
}
