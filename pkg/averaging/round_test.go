package averaging_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
)

// TestOrderOfArrivalChangesNothing adds the contributions of one round in any order, some of them twice and some of them
// poisoned, and wants the bytes, the refusals and the state of the order of ids.
func TestOrderOfArrivalChangesNothing(t *testing.T) {
	const n = 300
	rapid.Check(t, func(t *rapid.T) {
		cfg := averaging.Config{
			Groups: rapid.IntRange(1, 9).Draw(t, "groups"),
			Outer:  rapid.SampledFrom(averaging.Outers).Draw(t, "outer"),
			Format: rapid.SampledFrom(averaging.Formats).Draw(t, "format"),
		}.WithDefaults()
		if cfg.Groups == 1 {
			cfg.Format = "fp32"
		}
		sent := make([]averaging.Contribution, cfg.Groups)
		for g := range sent {
			x := normals(n, uint64(g))
			if g > 0 && rapid.Bool().Draw(t, "poisoned") {
				x[17] = float32(math.NaN())
			}
			sent[g] = averaging.Contribution{Generation: 3, Group: g, Vector: encoder(t, cfg.Format, n).Encode(x), Weight: rapid.IntRange(0, 3).Draw(t, "weight")}
		}
		run := func(order []averaging.Contribution) (update averaging.Vector, refused []*averaging.Poisoned, state averaging.State) {
			f := newFleet(t, cfg, make([]float32, n))
			r := f.outer.Open(3)
			answers := map[int]error{}
			for _, c := range order {
				err := r.Add(c)
				if before, again := answers[c.Group]; again && before != err {
					t.Fatalf("group %d: %v, then %v", c.Group, before, err)
				}
				answers[c.Group] = err
			}
			update, err := f.outer.Step(r)
			if err != nil {
				t.Fatal(err)
			}
			return update, r.Refused(), f.outer.Snapshot()
		}
		want, wantRefused, wantState := run(sent)
		shuffled := rapid.Permutation(append(sent, sent[:rapid.IntRange(0, len(sent)).Draw(t, "again")]...)).Draw(t, "order")
		got, refused, state := run(shuffled)
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatal("another order gave other bytes")
		}
		if diff := cmp.Diff(wantState, state); diff != "" {
			t.Fatalf("state (-by id +shuffled):\n%s", diff)
		}
		if len(refused) != len(wantRefused) {
			t.Fatalf("%d refused, want %d", len(refused), len(wantRefused))
		}
		for i := range refused {
			if refused[i].Error() != wantRefused[i].Error() {
				t.Fatalf("refused %v, want %v", refused[i], wantRefused[i])
			}
		}
	})
}

func TestAddRefusesWhatIsNotOfTheRound(t *testing.T) {
	f := newFleet(t, averaging.Config{Groups: 2, Outer: "sync"}, make([]float32, 2))
	r := f.outer.Open(7)
	vector := encoder(t, "fp32", 2).Encode([]float32{1, 2})
	good := averaging.Contribution{Generation: 7, Group: 1, Vector: vector, Weight: 4}
	for _, tc := range []struct {
		name   string
		change func(c *averaging.Contribution)
		is     error
		want   string
	}{
		{"old generation", func(c *averaging.Contribution) { c.Generation = 6 }, averaging.ErrStale, "generation 6 and round 0, want 7 and 0"},
		{"another round", func(c *averaging.Contribution) { c.Round = 1 }, averaging.ErrStale, "generation 7 and round 1"},
		{"group below", func(c *averaging.Contribution) { c.Group = -1 }, nil, "want a group from 0 to 1"},
		{"group above", func(c *averaging.Contribution) { c.Group = 2 }, nil, "want a group from 0 to 1"},
		{"format", func(c *averaging.Contribution) { c.Vector = encoder(t, "bf16", 2).Encode([]float32{1, 2}) }, nil, `2 elements of "bf16", want 2 of fp32`},
		{"length", func(c *averaging.Contribution) { c.Vector = encoder(t, "fp32", 1).Encode([]float32{1}) }, nil, `1 elements of "fp32", want 2 of fp32`},
		{"no vector", func(c *averaging.Contribution) { c.Vector = averaging.Vector{} }, nil, "want 2 of fp32"},
		{"weight", func(c *averaging.Contribution) { c.Weight = -1 }, nil, "weight -1"},
	} {
		c := good
		tc.change(&c)
		if err := r.Add(c); err == nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	for range 2 {
		if err := r.Add(good); err != nil {
			t.Errorf("the same contribution: %v", err)
		}
	}
	for name, change := range map[string]func(c *averaging.Contribution){
		"other bytes":  func(c *averaging.Contribution) { c.Vector = encoder(t, "fp32", 2).Encode([]float32{1, 3}) },
		"other weight": func(c *averaging.Contribution) { c.Weight = 5 },
	} {
		c := good
		change(&c)
		if err := r.Add(c); !errors.Is(err, averaging.ErrConflict) {
			t.Errorf("%s: %v, want ErrConflict", name, err)
		}
	}
	if _, err := f.outer.Step(r); err == nil || !strings.Contains(err.Error(), "groups [0] are missing") {
		t.Errorf("step without group 0: %v", err)
	}
	good.Group = 0
	if err := r.Add(good); err != nil {
		t.Fatal(err)
	}
	if _, err := f.outer.Step(r); err != nil {
		t.Errorf("step with all groups after one without: %v", err)
	}
	if _, err := f.outer.Step(r); !errors.Is(err, averaging.ErrStale) {
		t.Errorf("step of the same round again: %v, want ErrStale", err)
	}
	old := f.outer.Open(7)
	f.outer.Open(8)
	if _, err := f.outer.Step(old); !errors.Is(err, averaging.ErrStale) {
		t.Errorf("step of a round that was opened anew: %v, want ErrStale", err)
	}
}

// TestPoisonedContributionsAreNamedAndLeftOut: the mean is that of the healthy groups.
func TestPoisonedContributionsAreNamedAndLeftOut(t *testing.T) {
	for _, format := range averaging.Formats {
		for name, bad := range map[string]float64{"NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1)} {
			f := newFleet(t, averaging.Config{Groups: 3, Outer: "sync", Format: format}, make([]float32, 300))
			r := f.outer.Open(1)
			var answers [3]error
			for g := range 3 {
				x := make([]float32, 300)
				x[0], x[1] = float32(g), 0.3
				if g == 1 {
					f.groups[g].Contribution(x) // leaves a residual
					x[299] = float32(bad)
				}
				answers[g] = r.Add(averaging.Contribution{
					Generation: 1, Group: g, Vector: f.groups[g].Contribution(x), Weight: 1, Replica: "r-7", Step: 340, Loss: 3.25,
				})
			}
			var p *averaging.Poisoned
			if answers[0] != nil || answers[2] != nil || !errors.As(answers[1], &p) {
				t.Fatalf("%s, %s: answers %v, want group 1 refused", format, name, answers)
			}
			element := 299
			if format == "int8" {
				element, name = 256, "NaN" // the block
			}
			if p.Group != 1 || p.Replica != "r-7" || p.Step != 340 || p.Loss != 3.25 || p.Element != element || !math.IsNaN(p.Norm) {
				t.Errorf("%s, %s: %+v", format, name, p)
			}
			for _, want := range []string{"round 0", "group 1", "replica r-7", "step 340", "loss 3.25", "is " + name} {
				if !strings.Contains(p.Error(), want) {
					t.Errorf("%s: %q, want %q in it", format, p, want)
				}
			}
			update, err := f.outer.Step(r)
			if err != nil || decoded(update)[0] != 1 {
				t.Errorf("%s: mean of 0 and 2: %g, %v", format, decoded(update)[0], err)
			}
			for g, want := range map[int]bool{2: format == "int8", 1: false} {
				f.groups[1].Forget()
				if got := f.groups[g].Residual(); len(got) > 0 && (got[1] != 0) != want {
					t.Errorf("%s: residual %g of group %d, want one: %t", format, got[1], g, want)
				}
			}
		}
	}
}

func TestNoneLeftStops(t *testing.T) {
	f := newFleet(t, averaging.Config{Groups: 2}, make([]float32, 1))
	r := f.outer.Open(1)
	for g := range 2 {
		v := f.groups[g].Contribution([]float32{float32(math.NaN())})
		if err := r.Add(averaging.Contribution{Generation: 1, Group: g, Vector: v, Replica: "r"}); err == nil {
			t.Fatal("NaN: no error")
		}
	}
	_, err := f.outer.Step(r)
	var none *averaging.NoneLeft
	var p *averaging.Poisoned
	if !errors.As(err, &none) || len(none.Refused) != 2 || !errors.As(err, &p) {
		t.Fatalf("step: %v, want NoneLeft of two", err)
	}
	if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "group 1 (replica r") {
		t.Errorf("%q, want one line that names both", err)
	}
	if s := f.outer.Snapshot(); s.Round != 0 || s.Theta[0] != 0 || s.Norms != nil {
		t.Errorf("state %+v, want it as it was", s)
	}
}

// TestLimitOnNorms: after 8 rounds in which the groups moved by 1, 2 or 3, whatever the parameters and the form in which
// they are sent, a group may move by 20 and no more.
func TestLimitOnNorms(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  averaging.Config
	}{
		{"parameters", averaging.Config{Groups: 3}},
		{"differences", averaging.Config{Groups: 3, Outer: "nesterov"}},
		{"rounded differences", averaging.Config{Groups: 3, Format: "bf16"}},
		{"gradients", averaging.Config{Groups: 3, Outer: "sync"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			theta := []float32{1000, 0}
			f := newFleet(t, tc.cfg, theta)
			moved := func(by float32) []float32 {
				if tc.cfg.Outer == "sync" {
					return []float32{0, by}
				}
				base := f.outer.Theta()
				return []float32{base[0], base[1] - by}
			}
			last := func(by float32) error {
				r := f.outer.Open(1)
				return r.Add(averaging.Contribution{Generation: 1, Round: r.Number(), Vector: f.groups[0].Contribution(moved(by))})
			}
			f.round(t, [][]float32{moved(0), moved(0), moved(0)}) // stands still: no yardstick
			for range 7 {
				f.round(t, [][]float32{moved(1), moved(3), moved(2)})
			}
			if err := last(1000); err != nil {
				t.Errorf("norm 1000 after 7 rounds: %v, want nil: too few to tell", err)
			}
			f.round(t, [][]float32{moved(3), moved(1), moved(2)})
			if err := last(19.75); err != nil {
				t.Errorf("norm 19.75: %v", err)
			}
			var p *averaging.Poisoned
			if err := last(20.25); !errors.As(err, &p) {
				t.Fatalf("norm 20.25: %v, want Poisoned", err)
			}
			if math.Abs(p.Norm-20.25) > 0.1 || math.Abs(p.Median-2) > 1e-2 || p.Element != -1 || !strings.Contains(p.Error(), "10 times the running median") {
				t.Errorf("%v: %+v", p, p)
			}
			for range 33 {
				f.round(t, [][]float32{moved(15), moved(15), moved(15)})
			}
			if err := last(145); err != nil || len(f.outer.Snapshot().Norms) != 32 {
				t.Errorf("norm 145 after 33 rounds of 15: %v, %d rounds known, want nil and 32", err, len(f.outer.Snapshot().Norms))
			}
		})
	}
}
