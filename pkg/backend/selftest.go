package backend

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	"github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"
)

// SelfTestResult is what a backend does with one layer, mean tanh(x·w)² of x [256, 64] and w [64, 64], and its gradient.
type SelfTestResult struct {
	Compile time.Duration
	Step    time.Duration // median call, values read
	Error   float64       // of the gradient, relative to its largest element
}

// selfTestTolerance allows for float32 sums over 256 rows, and for faster, less exact tanh.
const selfTestTolerance = 1e-4

// SelfTest compares a layer's gradient with the one worked out here in float64, and times it. It takes about a second.
func SelfTest(b *Backend) (SelfTestResult, error) {
	const rows, in, out = 256, 64, 64
	var r SelfTestResult
	x, w := make([]float32, rows*in), make([]float32, in*out)
	for i := range x {
		x[i] = float32(math.Sin(float64(3*i + 1)))
	}
	for i := range w {
		w[i] = float32(math.Cos(float64(7*i+2))) / 8
	}
	start := time.Now()
	f32 := func(dims ...int) shapes.Shape { return shapes.Make(dtypes.Float32, dims...) }
	p, err := Compile(b, "self-test", []Input{{"x", f32(rows, in)}, {"w", f32(in, out)}}, func(n []*graph.Node) []*graph.Node {
		loss := graph.ReduceAllMean(graph.Square(graph.Tanh(graph.Dot(n[0], n[1]))))
		return []*graph.Node{graph.Gradient(loss, n[1])[0]}
	})
	if err != nil {
		return r, err
	}
	defer p.Close()
	r.Compile = time.Since(start)
	tx, tw := tensors.FromFlatDataAndDimensions(x, rows, in), tensors.FromFlatDataAndDimensions(w, in, out)
	defer Release(tx, tw)
	var got []float32
	var times []time.Duration
	for range 21 {
		start := time.Now()
		result, err := p.Run(tx, tw)
		if err != nil {
			return r, err
		}
		got, err = Read[float32](result[0])
		Release(result...)
		if err != nil {
			return r, err
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	r.Step = times[len(times)/2]

	want := make([]float64, in*out)
	for i := range rows {
		for k := range out {
			var y float64
			for j := range in {
				y += float64(x[i*in+j]) * float64(w[j*out+k])
			}
			y = math.Tanh(y)
			d := 2 * y * (1 - y*y) / (rows * out)
			for j := range in {
				want[j*out+k] += d * float64(x[i*in+j])
			}
		}
	}
	largest := 0.0
	for i := range want {
		largest = max(largest, math.Abs(want[i]))
		r.Error = max(r.Error, math.Abs(float64(got[i])-want[i])) // NaN stays NaN
	}
	r.Error /= largest
	if !(r.Error <= selfTestTolerance) {
		return r, fmt.Errorf("backend: self-test on %s: gradient off by %.2g of its largest element, want at most %g", b.Kind(), r.Error, selfTestTolerance)
	}
	return r, nil
}
