package transport

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// blobCodecs are the decoders of the contents of blobs, each with a value that shows every field.
func blobCodecs() []codec {
	states := NewTensor([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	params := []Tensor{NewTensor([]int8{1, -2}, 2), NewTensor([]float32{0.5}), {BFloat16, []int{0, 4}, []byte{}}}
	return []codec{
		codecOf("rows", Rows{[]int32{3, 1}, states}, DecodeRows, func(v Rows) []byte { return v.Append(nil) }),
		codecOf("theta", Theta{true, []float64{0, 0.5, 1}, []float64{0.1, 0.2, 0.3}, params}, DecodeTheta, func(v Theta) []byte { return v.Append(nil) }),
		codecOf("gradient", Gradient{64, math.NaN(), params}, DecodeGradient, func(v Gradient) []byte { return v.Append(nil) }),
		codecOf("contribution", Contribution{1, 2, 3, 4, []float64{5}, []float64{6}, []float64{7, 8}, params}, DecodeContribution, func(v Contribution) []byte { return v.Append(nil) }),
	}
}

func TestBlobDecoders(t *testing.T) {
	checkRoundTrips(t, blobCodecs())
	checkMemory(t, blobCodecs())
	checkFixed(t, blobCodecs())
}

func FuzzRows(f *testing.F)         { fuzz(f, blobCodecs(), "rows") }
func FuzzTheta(f *testing.F)        { fuzz(f, blobCodecs(), "theta") }
func FuzzGradient(f *testing.F)     { fuzz(f, blobCodecs(), "gradient") }
func FuzzContribution(f *testing.F) { fuzz(f, blobCodecs(), "contribution") }

func TestBlobsNameWhatIsWrong(t *testing.T) {
	floats := NewTensor([]float64{1})
	checkFaults(t, []fault{
		{"fewer labels than states", func() error {
			_, err := DecodeRows(Rows{[]int32{1}, NewTensor([]float32{1, 2}, 2, 1)}.Append(nil))
			return err
		}, ErrMalformed},
		{"labels that are floats", func() error { _, err := DecodeRows(floats.append(floats.append(nil))); return err }, ErrMalformed},
		{"states without rows", func() error {
			_, err := DecodeRows(Rows{nil, Tensor{Float32, nil, make([]byte, 4)}}.Append(nil))
			return err
		}, ErrMalformed},
		{"betas that are states", func() error { _, err := DecodeTheta(NewTensor([]float32{1}).append([]byte{0})); return err }, ErrMalformed},
		{"rank 9", func() error { _, err := DecodeTheta([]byte{0, 1, 9}); return err }, ErrMalformed},
		{"type 8", func() error { _, err := DecodeTheta([]byte{0, 8, 1}); return err }, ErrMalformed},
		{"an axis of 2^31", func() error { _, err := DecodeTheta([]byte{0, 1, 1, 0, 0, 0, 0x80}); return err }, ErrMalformed},
		{"axes whose product overflows", func() error {
			_, err := DecodeTheta(append([]byte{0, 1, 8}, bytes.Repeat([]byte{0, 0, 0, 1}, 8)...))
			return err
		}, ErrMalformed},
		{"elements that are not there", func() error { _, err := DecodeTheta([]byte{0, 2, 1, 0xff, 0xff, 0xff, 0x7f, 1}); return err }, ErrShort},
		{"257 tensors", func() error {
			_, err := DecodeGradient(Gradient{Params: make257()}.Append(nil))
			return err
		}, ErrMalformed},
		{"floats read as labels", func() error { _, err := Values[int32](floats); return err }, ErrMalformed},
	})
}

func make257() (list []Tensor) {
	for range maxTensors + 1 {
		list = append(list, NewTensor([]int8{1}))
	}
	return list
}

func TestBlobsRoundTrip(t *testing.T) {
	floats := rapid.SliceOf(rapid.Float64())
	tensor := rapid.Custom(func(t *rapid.T) Tensor {
		dims := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 4).Draw(t, "dims")
		n, _ := elements(dims)
		d := rapid.SampledFrom([]DType{Float32, Float64, BFloat16, Int8, Uint8, Int32, Uint64}).Draw(t, "dtype")
		return Tensor{d, dims, rapid.SliceOfN(rapid.Byte(), n*d.Size(), n*d.Size()).Draw(t, "data")}
	})
	tensors := rapid.SliceOfN(tensor, 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		same(t, Theta{rapid.Bool().Draw(t, "c"), floats.Draw(t, "b"), floats.Draw(t, "s"), tensors.Draw(t, "p")}, Theta.Append, DecodeTheta)
		same(t, Gradient{rapid.Uint64().Draw(t, "r"), rapid.Float64().Draw(t, "l"), tensors.Draw(t, "p")}, Gradient.Append, DecodeGradient)
		same(t, Contribution{rapid.Uint64().Draw(t, "r"), rapid.Uint32().Draw(t, "g"), rapid.Float64().Draw(t, "w"), rapid.Float64().Draw(t, "l"), floats.Draw(t, "a"), floats.Draw(t, "n"), floats.Draw(t, "e"), tensors.Draw(t, "p")}, Contribution.Append, DecodeContribution)
		labels := rapid.SliceOf(rapid.Int32()).Draw(t, "labels")
		same(t, Rows{labels, NewTensor(make([]float32, 2*len(labels)), len(labels), 2)}, Rows.Append, DecodeRows)
	})
}
