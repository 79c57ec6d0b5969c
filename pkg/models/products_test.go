package models_test

import (
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

func TestProductsCountsWhatANetworkKeeps(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	yes := true
	for _, tc := range []struct {
		name   string
		config models.Config
		dim    int
		want   int
	}{
		{"a perceptron: the widths of its layers", models.Config{Kind: "mlp", Hidden: []int{64, 32}}, 2, 64 + 32 + 1},
		{"and no more for its spectral norm, which is of the weights", models.Config{Kind: "mlp", Hidden: []int{64, 32}, SpectralNorm: &yes}, 2, 64 + 32 + 1},
		// Stem of 3 channels; a block of two convolutions; half the side: 5 channels in two convolutions and a shortcut; head.
		{"convolutions: channels and pixels", models.Config{Kind: "conv", Image: []int{1, 4, 4}, Channels: []int{3, 5}, Blocks: 1}, 16, 3*(3*16) + 3*(5*4) + 1},
		{"a formula", models.Config{Kind: "double_well", Dim: 4}, 4, 0},
		{"a field, whose first layer takes state and time apart", models.Config{Kind: "field_mlp", Hidden: []int{8, 8}}, 2, 8 + 8 + 8 + 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			network, err := tc.config.BuildNetwork(tc.dim, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := models.Products(b, network); err != nil || got != tc.want {
				t.Errorf("%d, %v, want %d", got, err, tc.want)
			}
		})
	}
}
