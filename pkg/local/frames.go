package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
)

// frameGrid is the number of points a side of the landscapes that the GIF is made of.
const frameGrid = 96

// Landscape is an energy on a grid over a rectangle, with states of the target rung.
type Landscape struct {
	Step           int
	X0, X1, Y0, Y1 float64
	N              int       // points a side
	Energy         []float64 // [N, N], row by row from Y0 up
	Points         []float64 // [n, 2]
}

// Landscape evaluates the energy on a grid of n×n points over the data and a margin round them. The dimension must be 2.
func (p *Parts) Landscape(l engine.Learner, n int) (*Landscape, error) {
	if p.Data.Dim != 2 {
		return nil, fmt.Errorf("landscape: dimension %d, want 2", p.Data.Dim)
	}
	out := &Landscape{Step: l.Step(), N: n}
	out.X0, out.X1, out.Y0, out.Y1 = frame(p.Data.Rows)
	x := make([]float32, 0, 2*n*n)
	for j := range n {
		for i := range n {
			x = append(x, float32(out.X0+(out.X1-out.X0)*float64(i)/float64(n-1)), float32(out.Y0+(out.Y1-out.Y0)*float64(j)/float64(n-1)))
		}
	}
	var err error
	if out.Energy, err = l.Energies(x); err != nil {
		return nil, err
	}
	c := p.chainsOf(l)
	if c == nil {
		return out, nil // no chains to show
	}
	chains, err := c.TargetChains()
	if err != nil {
		return nil, err
	}
	out.Points = to64(chains)
	return out, nil
}

// frame is a rectangle round rows [n, 2] with a quarter of the larger side as margin.
func frame(rows []float64) (x0, x1, y0, y1 float64) {
	x0, x1, y0, y1 = math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for i := 0; i+1 < len(rows); i += 2 {
		x0, x1 = min(x0, rows[i]), max(x1, rows[i])
		y0, y1 = min(y0, rows[i+1]), max(y1, rows[i+1])
	}
	margin := 0.25 * max(x1-x0, y1-y0, 1e-6)
	return x0 - margin, x1 + margin, y0 - margin, y1 + margin
}

// frameEvery is the number of steps between two frames.
func (p *Parts) frameEvery() int {
	n := p.Config.Train.Frames
	return (p.Steps + n - 1) / n
}

// keepFrame keeps a picture of the landscape for the GIF; nothing in other dimensions than 2.
func (r *run) keepFrame() error {
	if r.parts.Data.Dim != 2 || r.parts.field() != nil || r.parts.Config.Train.Frames == 0 {
		return nil
	}
	l, err := r.parts.Landscape(r.trainer, frameGrid)
	if err != nil {
		return err
	}
	// A chain that left is no reason to stop before the step that notices: only finite points are kept.
	points := l.Points[:0]
	for i := 0; i+1 < len(l.Points); i += 2 {
		if s := l.Points[i] + l.Points[i+1]; !math.IsNaN(s) && !math.IsInf(s, 0) {
			points = append(points, l.Points[i], l.Points[i+1])
		}
	}
	l.Points = points
	return l.save(r.folder)
}

func (l *Landscape) save(f folder) error {
	if err := os.MkdirAll(f.path(framesFolder), 0o755); err != nil {
		return fmt.Errorf("frame of step %d: %w", l.Step, err)
	}
	meta, err := json.Marshal([]float64{l.X0, l.X1, l.Y0, l.Y1})
	if err != nil {
		return err
	}
	energy := make([]float32, len(l.Energy))
	for i, v := range l.Energy {
		energy[i] = float32(v)
	}
	points := make([]float32, len(l.Points))
	for i, v := range l.Points {
		points[i] = float32(v)
	}
	return checkpoint.WriteSafetensors(f.path(framesFolder, fmt.Sprintf("%08d.safetensors", l.Step)), []checkpoint.Tensor{
		{Name: "energy", Shape: []int{l.N, l.N}, Data: energy},
		{Name: "points", Shape: []int{len(points) / 2, 2}, Data: points},
	}, map[string]string{"box": string(meta)})
}

// loadFrames reads the landscapes kept during a run, in the order of their steps.
func loadFrames(f folder) ([]*Landscape, error) {
	entries, err := os.ReadDir(f.path(framesFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []*Landscape
	for _, e := range entries {
		var step int
		if n, err := fmt.Sscanf(e.Name(), "%d.safetensors", &step); n != 1 || err != nil || filepath.Ext(e.Name()) != ".safetensors" {
			continue
		}
		l, err := loadFrame(f.path(framesFolder, e.Name()))
		if err != nil {
			return nil, err
		}
		l.Step = step
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *Landscape) int { return a.Step - b.Step })
	return out, nil
}

func loadFrame(path string) (*Landscape, error) {
	tensors, meta, err := checkpoint.ReadSafetensors(path)
	if err != nil {
		return nil, err
	}
	energy, err := checkpoint.Values[float32](tensors, "energy", -1, -1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	points, err := checkpoint.Values[float32](tensors, "points", -1, 2)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var box []float64
	if err := json.Unmarshal([]byte(meta["box"]), &box); err != nil || len(box) != 4 {
		return nil, fmt.Errorf("%s: box %q, want four numbers", path, meta["box"])
	}
	n := int(math.Sqrt(float64(len(energy))))
	if n*n != len(energy) {
		return nil, fmt.Errorf("%s: energy has %d points, want a square grid", path, len(energy))
	}
	return &Landscape{X0: box[0], X1: box[1], Y0: box[2], Y1: box[3], N: n, Energy: to64(energy), Points: to64(points)}, nil
}
