package backend

import (
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/shapes"
)

// goBuilder supplies what GoMLX's pure-Go backend lacks and gradients of slices and convolutions need.
type goBuilder struct {
	backends.Builder
	parameters map[backends.Op]bool
}

func newGoBuilder(inner backends.Builder) *goBuilder {
	return &goBuilder{Builder: inner, parameters: map[backends.Op]bool{}}
}

// Parameter implements [backends.Builder].
func (b *goBuilder) Parameter(name string, shape shapes.Shape, sharding *backends.ShardingSpec) (backends.Op, error) {
	op, err := b.Builder.Parameter(name, shape, sharding)
	if err == nil {
		b.parameters[op] = true
	}
	return op, err
}

// Compile implements [backends.Builder]. The wrapped builder drops what comes after the last output, and then has no room
// for a parameter there: an output that is a parameter is copied to the end.
func (b *goBuilder) Compile(outputs []backends.Op, shardings []*backends.ShardingSpec) (backends.Executable, error) {
	outputs = slices.Clone(outputs)
	for i, op := range outputs {
		if b.parameters[op] {
			var err error
			if outputs[i], err = b.Identity(op); err != nil {
				return nil, err
			}
		}
	}
	return b.Builder.Compile(outputs, shardings)
}

// ConvGeneral implements [backends.Builder]. Strides and dilations that are left out are 1, as on XLA.
func (b *goBuilder) ConvGeneral(input, kernel backends.Op, axes backends.ConvolveAxesConfig, strides []int, paddings [][2]int,
	inputDilations, kernelDilations []int, channelGroupCount, batchGroupCount int) (backends.Op, error) {
	n := len(axes.InputSpatial)
	for _, v := range []*[]int{&strides, &inputDilations, &kernelDilations} {
		if len(*v) == 0 {
			*v = slices.Repeat([]int{1}, n)
		}
	}
	if len(paddings) == 0 {
		paddings = make([][2]int, n)
	}
	return b.Builder.ConvGeneral(input, kernel, axes, strides, paddings, inputDilations, kernelDilations, channelGroupCount, batchGroupCount)
}

// Pad implements [backends.Builder] by concatenation with blocks of the fill value. As in XLA, an interior padding puts
// fill values between neighbours, and a negative padding at an end crops what is there after that.
func (b *goBuilder) Pad(x, fillValue backends.Op, axesConfig ...backends.PadAxis) (backends.Op, error) {
	shape, err := b.OpShape(x)
	if err != nil {
		return nil, fmt.Errorf("pad: %w", err)
	}
	fill, err := b.OpShape(fillValue)
	if err != nil {
		return nil, fmt.Errorf("pad: %w", err)
	}
	if fill.Rank() != 0 || fill.DType != shape.DType {
		return nil, fmt.Errorf("pad: fill value %s, want a scalar of type %s", fill, shape.DType)
	}
	if len(axesConfig) > shape.Rank() {
		return nil, fmt.Errorf("pad: %d axes to pad of %s, want at most %d", len(axesConfig), shape, shape.Rank())
	}
	dims := slices.Clone(shape.Dimensions)
	block := func(dims []int) (backends.Op, error) {
		return b.BroadcastInDim(fillValue, shapes.Make(shape.DType, dims...), nil)
	}
	for axis, pad := range axesConfig {
		if pad.Interior < 0 {
			return nil, fmt.Errorf("pad: interior padding %d of axis %d, want 0 or more", pad.Interior, axis)
		}
		if n := dims[axis]; pad.Interior > 0 && n > 1 {
			if x, err = b.stretch(x, dims, axis, pad.Interior, block); err != nil {
				return nil, err
			}
			dims[axis] = n + (n-1)*pad.Interior
		}
		length := dims[axis] + pad.Start + pad.End
		if length < 0 {
			return nil, fmt.Errorf("pad: start %d and end %d leave %d of %d elements on axis %d", pad.Start, pad.End, length, dims[axis], axis)
		}
		first, last := max(0, -pad.Start), dims[axis]-max(0, -pad.End)
		if first >= last {
			// All of x is cropped: what is left is fill.
			dims[axis] = length
			if x, err = block(dims); err != nil {
				return nil, err
			}
			continue
		}
		if first > 0 || last < dims[axis] {
			starts, limits, strides := make([]int, len(dims)), slices.Clone(dims), make([]int, len(dims))
			for i := range strides {
				strides[i] = 1
			}
			starts[axis], limits[axis] = first, last
			if x, err = b.Slice(x, starts, limits, strides); err != nil {
				return nil, err
			}
			dims[axis] = last - first
		}
		var parts []backends.Op
		for i, n := range []int{pad.Start, 0, pad.End} {
			part := x
			if i != 1 {
				if n <= 0 {
					continue
				}
				at := slices.Clone(dims)
				at[axis] = n
				if part, err = block(at); err != nil {
					return nil, err
				}
			}
			parts = append(parts, part)
		}
		if len(parts) > 1 {
			if x, err = b.Concatenate(axis, parts...); err != nil {
				return nil, err
			}
		}
		dims[axis] = length
	}
	return x, nil
}

// stretch puts n blocks of fill between the elements of an axis.
func (b *goBuilder) stretch(x backends.Op, dims []int, axis, n int, block func([]int) (backends.Op, error)) (backends.Op, error) {
	split := slices.Insert(slices.Clone(dims), axis+1, 1)
	x, err := b.Reshape(x, split...)
	if err != nil {
		return nil, err
	}
	split[axis+1] = n
	fill, err := block(split)
	if err != nil {
		return nil, err
	}
	if x, err = b.Concatenate(axis+1, x, fill); err != nil {
		return nil, err
	}
	joined := slices.Clone(dims)
	joined[axis] *= n + 1
	if x, err = b.Reshape(x, joined...); err != nil {
		return nil, err
	}
	starts, strides := make([]int, len(dims)), make([]int, len(dims))
	for i := range strides {
		strides[i] = 1
	}
	joined[axis] -= n // nothing follows the last element
	return b.Slice(x, starts, joined, strides)
}

// Reverse implements [backends.Builder] by gathering the elements of an axis from the last to the first.
func (b *goBuilder) Reverse(x backends.Op, axes ...int) (backends.Op, error) {
	shape, err := b.OpShape(x)
	if err != nil {
		return nil, fmt.Errorf("reverse: %w", err)
	}
	for i, axis := range axes {
		if axis < 0 || axis >= shape.Rank() || slices.Contains(axes[:i], axis) {
			return nil, fmt.Errorf("reverse: axes %v of %s, want different axes from 0 to %d", axes, shape, shape.Rank()-1)
		}
		n := shape.Dimensions[axis]
		if n < 2 {
			continue
		}
		order := make([]int32, n)
		for j := range order {
			order[j] = int32(n - 1 - j)
		}
		indices, err := b.Constant(order, n, 1)
		if err != nil {
			return nil, err
		}
		sizes := slices.Clone(shape.Dimensions)
		sizes[axis] = 1
		var offsets []int
		for a := range sizes {
			if a != axis {
				offsets = append(offsets, a)
			}
		}
		if x, err = b.Gather(x, indices, 1, offsets, []int{axis}, []int{axis}, sizes, false); err != nil {
			return nil, err
		}
	}
	return x, nil
}
