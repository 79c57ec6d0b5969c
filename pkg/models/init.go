package models

import (
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// Inits are the names of the rules for first weights that an MLP knows.
func Inits() []string { return []string{"torch", "xavier_uniform", "kaiming_uniform", "normal"} }

// initOf gives the rules for the weight [out, in] and the bias [out] of a layer.
//
//	torch            both U(±1/√in), PyTorch's default for a linear layer
//	xavier_uniform   weight U(±√(6/(in + out))), bias 0 (Glorot and Bengio 2010)
//	kaiming_uniform  weight U(±√(6/in)), bias 0 (He et al. 2015)
//	normal           weight N(0, init_std²), bias 0
func initOf(rule string, std float64, in, out int) (weight, bias Init) {
	switch rule {
	case "xavier_uniform":
		return xavierInit(in, out), zeroInit
	case "kaiming_uniform":
		return uniformInit(math.Sqrt(6 / float64(in))), zeroInit
	case "normal":
		return normalInit(std), zeroInit
	}
	bound := uniformInit(1 / math.Sqrt(float64(in)))
	return bound, bound
}

// torchLinear starts as PyTorch's linear layers do.
func torchLinear(in, out int) linear {
	weight, bias := initOf("torch", 0, in, out)
	return linear{in, out, weight, bias}
}

// xavierInit is U(±√(6/(in + out))).
func xavierInit(in, out int) Init { return uniformInit(math.Sqrt(6 / float64(in+out))) }

// normalInit is N(0, std²).
func normalInit(std float64) Init {
	return func(shape []int, stream *rng.Stream) []float64 {
		values := stream.Normals(Param{Shape: shape}.Size())
		for i := range values {
			values[i] *= std
		}
		return values
	}
}

func uniformInit(bound float64) Init {
	return func(shape []int, stream *rng.Stream) []float64 {
		values := make([]float64, Param{Shape: shape}.Size())
		for i := range values {
			values[i] = bound * (2*stream.Float64() - 1)
		}
		return values
	}
}

func zeroInit(shape []int, _ *rng.Stream) []float64 {
	return make([]float64, Param{Shape: shape}.Size())
}
