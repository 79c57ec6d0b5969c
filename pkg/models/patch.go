package models

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// ConvPatchEmbed2D makes a token of each p×p patch of an image, by a convolution with kernel and stride p. Patches do not
// overlap, so it is one product. Its parameters are proj.weight [D, channels, p, p] and proj.bias [D].
type ConvPatchEmbed2D struct {
	InChannels int
	EmbedDim   int // D
	PatchSize  int // p
}

// Params lists proj.
func (e ConvPatchEmbed2D) Params() []Param {
	fanIn := e.InChannels * e.PatchSize * e.PatchSize
	return []Param{
		{Name: "proj.weight", Shape: []int{e.EmbedDim, e.InChannels, e.PatchSize, e.PatchSize}, Init: xavierInit(fanIn, e.EmbedDim)},
		{Name: "proj.bias", Shape: []int{e.EmbedDim}, Init: zeroInit},
	}
}

// Apply builds the tokens [batch, rows·columns, D] of an image [batch, channels, height, width], row by row.
func (e ConvPatchEmbed2D) Apply(image *Node, weights []*Node) *Node {
	x := patchGrid(image, e.PatchSize)
	d := x.Shape().Dimensions // batch, channels, rows, p, columns, p
	x = Reshape(TransposeAllDims(x, 0, 2, 4, 1, 3, 5), d[0], d[2]*d[4], d[1]*d[3]*d[5])
	return addBias(times(x, Reshape(weights[0], e.EmbedDim, -1)), weights[1])
}

// Patchify2D cuts an image [batch, channels, height, width] into p×p patches, [batch, rows·columns, p·p·channels]: row by
// row, and in a patch too, the channel fastest. It panics where p does not divide height and width.
func Patchify2D(image *Node, p int) *Node {
	x := patchGrid(image, p)
	d := x.Shape().Dimensions
	return Reshape(TransposeAllDims(x, 0, 2, 4, 3, 5, 1), d[0], d[2]*d[4], d[3]*d[5]*d[1])
}

// Unpatchify2D is the inverse of [Patchify2D] for a grid of rows and columns of patches.
func Unpatchify2D(patches *Node, p int, grid [2]int) *Node {
	d := patches.Shape().Dimensions
	if patches.Rank() != 3 || d[1] != grid[0]*grid[1] || d[2]%(p*p) != 0 {
		panic(fmt.Errorf("models: patches %s, want [batch, %d, a multiple of %d]", patches.Shape(), grid[0]*grid[1], p*p))
	}
	channels := d[2] / (p * p)
	x := Reshape(patches, d[0], grid[0], grid[1], p, p, channels)
	return Reshape(TransposeAllDims(x, 0, 5, 1, 3, 2, 4), d[0], channels, grid[0]*p, grid[1]*p)
}

// patchGrid is an image as [batch, channels, rows, p, columns, p].
func patchGrid(image *Node, p int) *Node {
	d := image.Shape().Dimensions
	if image.Rank() != 4 || d[2]%p != 0 || d[3]%p != 0 {
		panic(fmt.Errorf("models: image %s, want [batch, channels, height, width] with sides that patches of %d divide", image.Shape(), p))
	}
	return Reshape(image, d[0], d[1], d[2]/p, p, d[3]/p, p)
}

// SinCosPositions2D is the table [rows·columns, dim] that tells tokens of a grid where they are: the first half of a row
// for the column, the second for the row, each the sines and then the cosines of pos·10000^(−4k/dim), k < dim/4. dim is a
// multiple of 4. TorchEBM calls it build_2d_sincos_pos_embed.
func SinCosPositions2D(dim, rows, columns int) []float64 {
	quarter := dim / 4
	table := make([]float64, 0, rows*columns*dim)
	for row := range rows {
		for column := range columns {
			for _, pos := range []int{column, row} {
				for _, f := range []func(float64) float64{math.Sin, math.Cos} {
					for k := range quarter {
						table = append(table, f(float64(pos)*math.Pow(10000, -float64(k)/float64(quarter))))
					}
				}
			}
		}
	}
	return table
}
