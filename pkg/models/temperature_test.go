package models_test

import (
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// A harmonic energy ½ k x² at temperature τ has the values and slopes of k/τ, and a network's follow its own.
func TestAtTemperature(t *testing.T) {
	const tau = 0.25
	network := zoo(t)["mlp spectral"]
	hot := models.AtTemperature(network, tau)
	x := somewhere(4, 3)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := eval(t, b, f64, append([]testutil.Tensor{x}, weightsOf(hot, 1)...), func(in []*Node) []*Node {
			e, grad := models.EnergyAndGrad(models.At(models.AtTemperature(must(t)(models.New("harmonic", 3, map[string]any{"k": 2})), tau), nil), in[0])
			plain, scaled := models.At(network, in[1:])(in[0]), models.At(hot, in[1:])(in[0])
			return []*Node{Sub(e, MulScalar(ReduceSum(Square(in[0]), -1), 1/tau)), Sub(grad, MulScalar(in[0], 2/tau)), Sub(scaled, DivScalar(plain, tau))}
		})
		for i, n := range []int{4, 12, 4} {
			testutil.Compare(t, "difference", out[i], testutil.Filled(0, n), testutil.Tolerance{ATol: 1e-12})
		}
	})
}

// What an energy says of itself also holds for one that is made of it.
func TestWrappersPassMarksOn(t *testing.T) {
	coupled := must(t)(models.New("interaction", 2, map[string]any{"of": "harmonic", "sigma_w": 1}))
	implicit := models.NewImplicitEqM(fieldZoo(t)["field_mlp"])
	plain := must(t)(models.New("harmonic", 2, nil))
	for name, wrap := range map[string]func(models.Energy) models.Energy{
		"temperature": func(e models.Energy) models.Energy { return models.AtTemperature(e, 2) },
		"base": func(e models.Energy) models.Energy {
			q := models.Gaussian{}
			for range e.Dim() {
				q.Mean, q.Std = append(q.Mean, 0), append(q.Std, 1)
			}
			return models.WithBase(e, q)
		},
	} {
		if !models.IsCoupled(wrap(coupled)) || models.IsCoupled(wrap(plain)) {
			t.Errorf("%s: coupled %v, of an energy that is not %v: want true and false", name, models.IsCoupled(wrap(coupled)), models.IsCoupled(wrap(plain)))
		}
		if _, ok := wrap(plain).(models.GradientOnly); ok {
			t.Errorf("%s: an energy becomes one of its gradient only", name)
		}
		g, ok := wrap(wrap(implicit)).(models.GradientOnly)
		if !ok || g.GradientOnly() != implicit.GradientOnly() {
			t.Errorf("%s: the mark of a gradient-only energy is lost", name)
		}
		for _, e := range []models.Energy{plain, implicit} {
			if _, ok := wrap(e).(models.Preparer); !ok || wrap(e).Dim() != e.Dim() || models.NumParams(wrap(e)) != models.NumParams(e) {
				t.Errorf("%s: another size, or no Prepare", name)
			}
		}
	}
}

func TestTemperatureMustBePositive(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a temperature of 0 is taken")
		}
	}()
	models.AtTemperature(must(t)(models.New("harmonic", 2, nil)), 0)
}
