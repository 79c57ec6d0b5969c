package tempering

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func ExampleNewLadder() {
	ladder, err := NewLadder(Config{Rungs: 3, Chains: 1, Scans: 1, Ladder: "geometric", Path: "power", BetaMin: 0.25, ReferenceScale: 1.5})
	if err != nil {
		panic(err)
	}
	fmt.Println(ladder.Betas())
	// Output: [0.25 0.5 1]
}

func valid() Config {
	return Config{Rungs: 6, Chains: 128, Scans: 1, Ladder: "cubic", Path: "linear", ReferenceScale: 1.5}
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
	for _, tc := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"everything wrong", Config{Ladder: "linear", Path: "cubic"}, []string{"rungs: 0", "chains: 0", "scans: 0", `ladder: "linear"`, `path: "cubic"`, "reference_scale: 0"}},
		{"power path without beta_min", Config{Rungs: 2, Chains: 1, Scans: 1, Ladder: "geometric", Path: "power", BetaMin: nan, ReferenceScale: nan}, []string{"beta_min: NaN", "reference_scale: NaN"}},
		{"geometric from zero", Config{Rungs: 2, Chains: 1, Scans: 1, Ladder: "geometric", Path: "linear", ReferenceScale: 1}, []string{"ladder: geometric needs path: power"}},
		{"too many rows", Config{Rungs: 1 << 20, Chains: 1 << 20, Scans: 1, Ladder: "cubic", Path: "linear", ReferenceScale: math.Inf(1)}, []string{"chains: 1048576 on 1048576 rungs", "reference_scale: +Inf"}},
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
