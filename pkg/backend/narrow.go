package backend

import (
	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/dtypes"
	"github.com/gomlx/gomlx/pkg/core/shapes"
)

// narrowBuilder writes matrix products over few numbers as sums of outer products, for XLA on the CPU. Its matrix product
// copies the operands into blocks, which for the first layer of a network on two coordinates takes longer than the
// arithmetic (4096×2 by 2×256: 1.9 ms against 0.6), and it cannot be fused with what follows.
type narrowBuilder struct{ backends.Builder }

const (
	narrowest = 4  // numbers summed over
	wide      = 16 // a result at least this wide and high; a smaller one is not worth more operations
)

// DotGeneral implements [backends.Builder].
func (b *narrowBuilder) DotGeneral(x backends.Op, contractX, batchX []int, y backends.Op, contractY, batchY []int) (backends.Op, error) {
	sx, errX := b.OpShape(x)
	sy, errY := b.OpShape(y)
	if errX != nil || errY != nil || len(contractX) != 1 || len(contractY) != 1 || len(batchX) != 0 || sx.Rank() != 2 || sy.Rank() != 2 ||
		sx.DType != sy.DType || sx.DType != dtypes.Float32 && sx.DType != dtypes.Float64 {
		return b.Builder.DotGeneral(x, contractX, batchX, y, contractY, batchY)
	}
	cx, cy := contractX[0], contractY[0]
	n, rows, columns := sx.Dimensions[cx], sx.Dimensions[1-cx], sy.Dimensions[1-cy]
	if n < 1 || n > narrowest || rows < wide || columns < wide {
		return b.Builder.DotGeneral(x, contractX, batchX, y, contractY, batchY)
	}
	// line is entry i along an axis of a matrix, laid out along an axis of the result.
	out := shapes.Make(sx.DType, rows, columns)
	line := func(op backends.Op, dims []int, along, i, axis int) (backends.Op, error) {
		starts, limits := []int{0, 0}, []int{dims[0], dims[1]}
		starts[along], limits[along] = i, i+1
		part, err := b.Slice(op, starts, limits, []int{1, 1})
		if err != nil {
			return nil, err
		}
		if part, err = b.Reshape(part, dims[1-along]); err != nil {
			return nil, err
		}
		return b.BroadcastInDim(part, out, []int{axis})
	}
	var total backends.Op
	for i := range n {
		left, err := line(x, sx.Dimensions, cx, i, 0)
		if err != nil {
			return nil, err
		}
		right, err := line(y, sy.Dimensions, cy, i, 1)
		if err != nil {
			return nil, err
		}
		term, err := b.Mul(left, right)
		if err != nil {
			return nil, err
		}
		if total == nil {
			total = term
		} else if total, err = b.Add(total, term); err != nil {
			return nil, err
		}
	}
	return total, nil
}
