package engine

import (
	"reflect"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

func TestKernelOfTheSampler(t *testing.T) {
	clamp := [2]float64{-1, 2}
	for _, tc := range []struct {
		name   string
		config samplers.Config
		want   samplers.Kernel
	}{
		{"mala", samplers.Config{Kind: "mala", Integrator: "euler_maruyama"}, samplers.MALA{}},
		{"langevin", samplers.Config{Kind: "langevin"}, samplers.Langevin{}},
		{"langevin by name", samplers.Config{Kind: "langevin", Integrator: "euler_maruyama"}, samplers.Langevin{}},
		{"heun", samplers.Config{Kind: "langevin", Integrator: "heun"}, samplers.Langevin{Heun: true}},
		{"clamp", samplers.Config{Kind: "langevin", Clamp: clamp[:]}, samplers.Langevin{Clamp: &clamp}},
	} {
		got := Spec{Sampler: tc.config}.kernel(nil)
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %#v, want %#v", tc.name, got, tc.want)
		}
	}
}
