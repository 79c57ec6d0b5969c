package averaging_test

import (
	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// fataler is what tests, fuzz targets and rapid have in common.
type fataler interface {
	Helper()
	Fatal(...any)
}

func normals(n int, stream uint64) []float32 {
	s := rng.New(1, rng.InitParams, stream, 0)
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(s.Normal())
	}
	return x
}

func encoder(t fataler, format string, n int) *averaging.Encoder {
	t.Helper()
	e, err := averaging.NewEncoder(format, n)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func decoded(v averaging.Vector) []float32 {
	x := make([]float32, v.Len())
	v.Decode(x)
	return x
}

// fleet is a leader and its groups, all at the same parameters.
type fleet struct {
	cfg    averaging.Config
	outer  *averaging.Outer
	groups []*averaging.Group
}

func newFleet(t fataler, cfg averaging.Config, theta []float32) *fleet {
	t.Helper()
	cfg = cfg.WithDefaults()
	f := &fleet{cfg: cfg}
	var err error
	if f.outer, err = averaging.NewOuter(cfg, theta); err != nil {
		t.Fatal(err)
	}
	for range cfg.Groups {
		g, err := averaging.NewGroup(cfg, theta)
		if err != nil {
			t.Fatal(err)
		}
		f.groups = append(f.groups, g)
	}
	return f
}

// round makes one round of what the groups have, and returns what each goes on from.
func (f *fleet) round(t fataler, have [][]float32) [][]float32 {
	t.Helper()
	r := f.outer.Open(1)
	for g, x := range have {
		c := averaging.Contribution{Generation: 1, Round: r.Number(), Group: g, Vector: f.groups[g].Contribution(x), Weight: 1}
		if err := r.Add(c); err != nil {
			t.Fatal(err)
		}
	}
	update, err := f.outer.Step(r)
	if err != nil {
		t.Fatal(err)
	}
	next := make([][]float32, len(have))
	for g := range next {
		if next[g], err = f.groups[g].Apply(update); err != nil {
			t.Fatal(err)
		}
	}
	return next
}
