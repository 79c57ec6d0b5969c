package tempering

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func ExampleNewLadder() {
	ladder, err := NewLadder(Config{Rungs: 3, Chains: 1, Ladder: "geometric", Path: "power", BetaMin: 0.25}.WithDefaults())
	if err != nil {
		panic(err)
	}
	fmt.Println(ladder.Betas())
	// Output: [0.25 0.5 1]
}

func valid() Config {
	return Config{Rungs: 6, Chains: 128, Ladder: "cubic"}.WithDefaults()
}

func TestLaddersAreSpacedAsNamed(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   []float64
	}{
		{"cubic from 0", func(c *Config) { c.Rungs = 5 }, []float64{0, 1. / 64, 8. / 64, 27. / 64, 1}},
		{"cubic from beta_min", func(c *Config) { c.Rungs, c.Path, c.BetaMin = 3, "power", 0.2 }, []float64{0.2, 0.3, 1}},
		{"geometric", func(c *Config) { c.Rungs, c.Path, c.BetaMin, c.Ladder = 5, "power", 1./16, "geometric" }, []float64{1. / 16, 1. / 8, 1. / 4, 1. / 2, 1}},
		{"uniform from 0", func(c *Config) { c.Rungs, c.Ladder = 5, "uniform" }, []float64{0, 0.25, 0.5, 0.75, 1}},
		{"uniform from beta_min", func(c *Config) { c.Rungs, c.Path, c.BetaMin, c.Ladder = 3, "power", 0.2, "uniform" }, []float64{0.2, 0.6, 1}},
		{"adaptive starts cubic", func(c *Config) { c.Rungs, c.Ladder = 3, "adaptive" }, []float64{0, 1. / 8, 1}},
		{"adaptive starts geometric", func(c *Config) { c.Rungs, c.Path, c.BetaMin, c.Ladder = 3, "power", 0.25, "adaptive" }, []float64{0.25, 0.5, 1}},
		{"adaptive starts where betas say", func(c *Config) { c.Rungs, c.Ladder, c.Betas = 3, "adaptive", []float64{0, 0.7, 1} }, []float64{0, 0.7, 1}},
		{"fixed", func(c *Config) { c.Rungs, c.Ladder, c.Betas = 3, "fixed", []float64{0, 0.3, 1} }, []float64{0, 0.3, 1}},
		{"two rungs", func(c *Config) { c.Rungs = 2 }, []float64{0, 1}},
		{"one rung, linear", func(c *Config) { c.Rungs = 1 }, []float64{1}},
		{"one rung, power, beta_min not set", func(c *Config) { c.Rungs, c.Path, c.Ladder = 1, "power", "geometric" }, []float64{1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := valid()
			tc.change(&cfg)
			ladder, err := NewLadder(cfg)
			if err != nil {
				t.Fatal(err)
			}
			got := ladder.Betas()
			if len(got) != len(tc.want) || ladder.NumRungs() != len(tc.want) {
				t.Fatalf("got %v, want %v", got, tc.want)
			}
			for j, want := range tc.want {
				if math.Abs(got[j]-want) > 1e-15 {
					t.Errorf("rung %d: β = %.17g, want %.17g", j, got[j], want)
				}
			}
			if got[0] = 7; ladder.Betas()[0] == 7 {
				t.Error("Betas lets a caller change the ladder")
			}
		})
	}
}

func TestLadderOfRefuses(t *testing.T) {
	for _, betas := range [][]float64{nil, {0, 0.5}, {0, 0.5, 0.5, 1}, {0.5, 0.2, 1}, {-0.1, 1}, {math.NaN(), 1}, {0, math.NaN(), 1}, {0, math.Inf(1)}} {
		if l, err := LadderOf(betas); err == nil {
			t.Errorf("%v: got %v, want an error", betas, l)
		}
	}
	// So close to 1 that two neighbours round to one number.
	cfg := valid()
	cfg.Rungs, cfg.Path, cfg.Ladder, cfg.BetaMin = 4, "power", "geometric", math.Nextafter(1, 0)
	if _, err := NewLadder(cfg); err == nil || !strings.Contains(err.Error(), "increase") {
		t.Errorf("beta_min just below 1: %v, want an error about the ladder", err)
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatalf("a good section: %v", err)
	}
	nan := math.NaN()
	with := func(change func(*Config)) Config {
		c := valid()
		change(&c)
		return c
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"everything wrong", Config{Ladder: "linear", Path: "cubic", Reference: "normal", Schedule: "even", Window: -1, Exchange: "rows", VirtualSwaps: true}, []string{
			"rungs: 0", "chains: 0", "scans: 0", `ladder: "linear"`, `path: "cubic"`, `reference: "normal"`, `schedule: "even"`, `exchange: "rows"`,
			`placement: ""`, `gradient_on: ""`, "split: 0", "reference_scale: 0", "window: -1", "virtual_swaps: true on one rung", "adapt_every: 0"}},
		{"power path without beta_min", with(func(c *Config) { c.Path, c.Ladder, c.BetaMin, c.ReferenceScale = "power", "geometric", nan, nan }), []string{"beta_min: NaN", "reference_scale: NaN"}},
		{"geometric from zero", with(func(c *Config) { c.Ladder = "geometric" }), []string{"ladder: geometric needs path: power"}},
		{"too many rows", with(func(c *Config) { c.Rungs, c.Chains, c.ReferenceScale = 1<<20, 1<<20, math.Inf(1) }), []string{"chains: 1048576 on 1048576 rungs", "reference_scale: +Inf"}},
		{"power path with a reference", with(func(c *Config) { c.Path, c.Reference = "power", "variational" }), []string{"reference: variational needs path: linear"}},
		{"window without windowed", with(func(c *Config) { c.Window = 3 }), []string{"window: 3, not read by schedule: deo"}},
		{"fixed without betas", with(func(c *Config) { c.Ladder = "fixed" }), []string{"betas: missing"}},
		{"betas that nobody reads", with(func(c *Config) { c.Betas = []float64{0, 1} }), []string{"betas: not read by ladder: cubic"}},
		{"too few betas", with(func(c *Config) { c.Ladder, c.Betas = "fixed", []float64{0, 1} }), []string{"betas: 2 numbers, want 6"}},
		{"betas without the reference", with(func(c *Config) { c.Ladder, c.Rungs, c.Betas = "fixed", 2, []float64{0.1, 1} }), []string{"betas: 0.1 on rung 0, want 0"}},
		{"betas from zero on the power path", with(func(c *Config) { c.Ladder, c.Path, c.Rungs, c.Betas = "fixed", "power", 2, []float64{0, 1} }), []string{"betas: 0 on rung 0, want a positive number"}},
		{"betas out of order", with(func(c *Config) { c.Ladder, c.Rungs, c.Betas = "fixed", 3, []float64{0, 1, 1} }), []string{"betas: β = 1 on rung 2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.cfg.Validate()
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tc.want) {
				t.Errorf("%d faults, want %d:\n%v", len(lines), len(tc.want), err)
			}
			for i, want := range tc.want {
				if i < len(lines) && !strings.HasPrefix(lines[i], want) {
					t.Errorf("fault %d is %q, want it to start with %q", i, lines[i], want)
				}
			}
		})
	}
}
