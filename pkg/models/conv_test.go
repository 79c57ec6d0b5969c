package models_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// image is [channels][height][width] in plain Go.
type image [][][]float64

func newImage(channels, height, width int) image {
	out := make(image, channels)
	for c := range out {
		out[c] = make([][]float64, height)
		for i := range out[c] {
			out[c][i] = make([]float64, width)
		}
	}
	return out
}

func (m image) each(f func(c, i, j int)) {
	for c := range m {
		for i := range m[c] {
			for j := range m[c][i] {
				f(c, i, j)
			}
		}
	}
}

// convolved is the definition: a sum over input channels and taps, zeros outside, for kernels of any odd size.
func (m image) convolved(w testutil.Tensor, bias []float64) image {
	out, in, k := w.Shape[0], w.Shape[1], w.Shape[2]
	height, width := len(m[0]), len(m[0][0])
	y := newImage(out, height, width)
	y.each(func(c, i, j int) {
		if bias != nil {
			y[c][i][j] = bias[c]
		}
		for from := range in {
			for di := range k {
				for dj := range k {
					if r, s := i+di-k/2, j+dj-k/2; r >= 0 && r < height && s >= 0 && s < width {
						y[c][i][j] += w.Data[((c*in+from)*k+di)*k+dj] * m[from][r][s]
					}
				}
			}
		}
	})
	return y
}

func (m image) activated() image {
	y := newImage(len(m), len(m[0]), len(m[0][0]))
	m.each(func(c, i, j int) { y[c][i][j] = m[c][i][j] / (1 + math.Exp(-m[c][i][j])) })
	return y
}

func (m image) halved() image {
	y := newImage(len(m), len(m[0])/2, len(m[0][0])/2)
	y.each(func(c, i, j int) {
		y[c][i][j] = (m[c][2*i][2*j] + m[c][2*i+1][2*j] + m[c][2*i][2*j+1] + m[c][2*i+1][2*j+1]) / 4
	})
	return y
}

// convEnergy is the network written out in loops, with silu.
func convEnergy(x image, stages, blocks int, w map[string]testutil.Tensor) float64 {
	conv := func(m image, name string) image { return m.convolved(w[name+".weight"], w[name+".bias"].Data) }
	h := conv(x, "stem")
	for b := range stages * blocks {
		if b > 0 && b%blocks == 0 {
			h = h.halved()
		}
		name := fmt.Sprintf("blocks.%d.", b)
		change := conv(conv(h.activated(), name+"conv1").activated(), name+"conv2")
		if shortcut, ok := w[name+"shortcut.weight"]; ok {
			h = h.convolved(shortcut, nil)
		}
		h.each(func(c, i, j int) { h[c][i][j] += change[c][i][j] })
	}
	e := w["head.bias"].Data[0]
	h = h.activated()
	h.each(func(c, i, j int) { e += w["head.weight"].Data[c] * h[c][i][j] })
	return e
}

func TestConvAgainstLoops(t *testing.T) {
	const batch = 3
	e := must(t)(models.New("conv", 0, map[string]any{"image": []int{2, 4, 6}, "channels": []int{3, 5}, "blocks": 2}))
	x, weights := somewhere(batch, 48), weightsOf(e, 2)
	named := map[string]testutil.Tensor{}
	var names []string
	for i, p := range e.Params() {
		named[p.Name] = weights[i]
		names = append(names, fmt.Sprint(p.Name, p.Shape))
	}
	want := []string{"stem.weight[3 2 3 3]", "stem.bias[3]",
		"blocks.0.conv1.weight[3 3 3 3]", "blocks.0.conv1.bias[3]", "blocks.0.conv2.weight[3 3 3 3]", "blocks.0.conv2.bias[3]",
		"blocks.1.conv1.weight[3 3 3 3]", "blocks.1.conv1.bias[3]", "blocks.1.conv2.weight[3 3 3 3]", "blocks.1.conv2.bias[3]",
		"blocks.2.conv1.weight[5 3 3 3]", "blocks.2.conv1.bias[5]", "blocks.2.conv2.weight[5 5 3 3]", "blocks.2.conv2.bias[5]", "blocks.2.shortcut.weight[5 3 1 1]",
		"blocks.3.conv1.weight[5 5 3 3]", "blocks.3.conv1.bias[5]", "blocks.3.conv2.weight[5 5 3 3]", "blocks.3.conv2.bias[5]",
		"head.weight[1 5]", "head.bias[1]"}
	if !slices.Equal(names, want) {
		t.Errorf("parameters %v, want %v", names, want)
	}
	var energies []float64
	for b := range batch {
		m := newImage(2, 4, 6)
		m.each(func(c, i, j int) { m[c][i][j] = x.Data[48*b+24*c+6*i+j] })
		energies = append(energies, convEnergy(m, 2, 2, named))
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		double, single := evalBoth(t, b, append([]testutil.Tensor{x}, weights...), func(in []*Node) []*Node {
			return []*Node{e.Energy(in[0], in[1:])}
		})
		testutil.Compare(t, "energy", double[0], tensor(energies, batch), testutil.Tolerance{RTol: 1e-11, ATol: 1e-11})
		testutil.Compare(t, "energy in float32", single[0], tensor(energies, batch), testutil.Tolerance{RTol: 1e-4, ATol: 1e-5})
	})
}

// With spectral_norm the energy is that of the plain network at kernels divided by their largest singular values, found
// by LAPACK, and so does not depend on the size of the kernels.
func TestConvSpectralNormDividesKernels(t *testing.T) {
	params := map[string]any{"image": []int{1, 4, 4}, "channels": []int{3, 4}, "activation": "tanh"}
	plain := must(t)(models.New("conv", 0, params))
	params["spectral_norm"] = true
	normal := must(t)(models.New("conv", 0, params))
	x, weights := somewhere(4, 16), weightsOf(plain, 2)
	scaled := func(scale func(w testutil.Tensor) float64) []testutil.Tensor {
		out := []testutil.Tensor{x}
		for _, w := range weights {
			if len(w.Shape) > 1 {
				s := scale(w)
				w.Data = slices.Clone(w.Data)
				for i := range w.Data {
					w.Data[i] *= s
				}
			}
			out = append(out, w)
		}
		return out
	}
	divided := scaled(func(w testutil.Tensor) float64 { return 1 / sigma(tensor(w.Data, w.Shape[0], len(w.Data)/w.Shape[0])) })
	large := scaled(func(testutil.Tensor) float64 { return 100 })
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := append(divided, large...)
		out := eval(t, b, f64, in, func(in []*Node) []*Node {
			n := len(divided)
			return []*Node{plain.Energy(in[0], in[1:n]), normal.Energy(in[n], in[n+1:])}
		})
		testutil.Compare(t, "energy", out[1], tensor(out[0], 4), testutil.Tolerance{RTol: 1e-4, ATol: 1e-4})
	})
}

func TestConvFaults(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    models.Config
		dim  int
		want string // "" where it builds
	}{
		{"a square", models.Config{Kind: "conv"}, 64, ""},
		{"an image of its own", models.Config{Kind: "conv", Image: []int{3, 4, 8}}, 0, ""},
		{"no square", models.Config{Kind: "conv"}, 60, "image: missing, and 60 numbers are no square: want [channels, height, width]"},
		{"two sides", models.Config{Kind: "conv", Image: []int{8, 8}}, 64, "image: 2 numbers, want three, [channels, height, width]"},
		{"an image for other data", models.Config{Kind: "conv", Image: []int{1, 8, 8}}, 128, "dim: 64 by kind conv, but 128 by the data"},
		{"an odd image", models.Config{Kind: "conv"}, 49, "image: height 7, want a multiple of 2, which 2 stages can halve\nimage: width 7"},
		{"an odd image that nobody halves", models.Config{Kind: "conv", Channels: []int{4}}, 49, ""},
		{"nothing right", models.Config{Kind: "conv", Channels: []int{0}, Blocks: -1, Activation: "sin"}, 16,
			"channels: stage 0 has 0, want at least 1\nblocks: -1, want at least 1\nactivation: \"sin\", want one of "},
		{"no stages", models.Config{Kind: "conv", Channels: []int{}}, 16, "channels: empty"},
		{"an option of an mlp", models.Config{Kind: "conv", Hidden: []int{3}}, 64, "hidden: not an option of kind conv"},
		{"no pixels", models.Config{Kind: "conv", Image: []int{1, -2, -2}}, 0, "image: height -2, want at least 1\nimage: width -2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := tc.c.Build(tc.dim)
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || e != nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want it to say %q", err, tc.want)
			}
		})
	}
}
