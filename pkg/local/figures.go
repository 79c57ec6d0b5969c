package local

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
	"github.com/kelvin-ebm/kelvin/pkg/plots"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// landscapeGrid is the number of points of the longer side of the landscape figure.
const landscapeGrid = 240

// shownPoints is the most points drawn in a figure: more only hide what is under them.
const shownPoints = 2000

// title is the first line of a run's figures.
func (p *Parts) title(what string, step int) (title, subtitle string) {
	return p.Config.Name + ": " + what, fmt.Sprintf("step %d", step)
}

// LandscapeFigure draws the model's density in two dimensions with the training data over it.
func (p *Parts) LandscapeFigure(t engine.Learner) (*plots.Figure, error) {
	if p.Data.Dim != 2 {
		return nil, fmt.Errorf("landscape: the data have %d dimensions, want 2", p.Data.Dim)
	}
	grid, err := plots.GridAround(p.Data.Rows, 0.25, landscapeGrid)
	if err != nil {
		return nil, err
	}
	if grid.Values, err = energies(t)(grid.Points()); err != nil {
		return nil, err
	}
	density, err := grid.Density()
	if err != nil {
		return nil, err
	}
	title, subtitle := p.title("model density", t.Step())
	return plots.Landscape(density, plots.LandscapeOptions{Title: title, Subtitle: subtitle + ", with training data", Quantity: plots.Density, Points: firstPoints(p.Data.Rows, 2)})
}

// SamplesFigure sets model samples against the data: side by side in two dimensions, as images where a row is one. Samples
// of a conditional model stand in a row for each label. Colours are shown as grey.
func (p *Parts) SamplesFigure(samples *Samples, step int) (*plots.Figure, error) {
	title, subtitle := p.title("samples", step)
	x := to64(samples.X)
	if p.inPlane() && p.Test.N() > 0 {
		return plots.SamplesAgainstData(firstPoints(p.Test.Rows, 2), firstPoints(x, 2), plots.SamplesOptions{Title: title, Subtitle: subtitle + ", held-out data on the left"})
	}
	channels, height, width, ok := p.Data.Image()
	if !ok || p.Test.N() == 0 {
		return nil, fmt.Errorf("samples: no picture of %d held-out rows of shape %v, want some of 2 numbers or an image", p.Test.N(), p.Data.Shape)
	}
	// Pictures are in the file's numbers, whatever scaling the model saw.
	grey := func(rows []float64) []float64 {
		return meanOfChannels(p.Data.Raw(rows), channels, height*width)
	}
	lo, hi := bounds(grey(p.Data.Rows))
	o := plots.SheetOptions{Title: title, Subtitle: subtitle, Height: height, Width: width, Lo: lo, Hi: hi}
	count := min(64, len(x)/p.Data.Dim, p.Test.N()) * p.Data.Dim
	data, model := p.Test.Rows[:count], x[:count]
	if samples.Labels != nil {
		const columns = 16
		o.Columns, o.Rows, o.Subtitle = columns, p.Classes, subtitle+", a label a row"
		data = byLabel(p.Test.Rows, p.Data.Dim, p.Test.Labels, p.Classes, columns)
		model = byLabel(x, p.Data.Dim, samples.Labels, p.Classes, columns)
	}
	return plots.SampleSheet(o, plots.Sheet{Name: "held-out data", Images: grey(data)}, plots.Sheet{Name: "model", Images: grey(model)})
}

// byLabel takes the first rows of every label, as many of each as there are of the rarest, at most n.
func byLabel[L int | int32](rows []float64, dim int, labels []L, classes, n int) []float64 {
	of := make([][]int, classes)
	for i, y := range labels {
		if int(y) < classes {
			of[y] = append(of[y], i)
		}
	}
	of = slices.DeleteFunc(of, func(rows []int) bool { return len(rows) == 0 }) // one label for all
	for _, members := range of {
		n = min(n, len(members))
	}
	var out []float64
	for _, members := range of {
		for _, i := range members[:n] {
			out = append(out, rows[i*dim:(i+1)*dim]...)
		}
	}
	return out
}

// meanOfChannels makes images [n, channels·size] grey, [n, size].
func meanOfChannels(images []float64, channels, size int) []float64 {
	if channels == 1 {
		return images
	}
	out := make([]float64, len(images)/channels)
	for i, v := range images {
		out[i/(channels*size)*size+i%size] += v / float64(channels)
	}
	return out
}

// inPlane says whether rows are points of the plane.
func (p *Parts) inPlane() bool { return p.Data.Dim == 2 && len(p.Data.Shape) == 1 }

// hasPicture says whether SamplesFigure can draw the data.
func (p *Parts) hasPicture() bool {
	_, _, _, image := p.Data.Image()
	return p.Test.N() > 0 && (p.inPlane() || image)
}

func firstPoints(rows []float64, dim int) []float64 { // rows of toy sets come in order: take them evenly
	n := len(rows) / dim
	if n <= shownPoints {
		return rows
	}
	out := make([]float64, 0, shownPoints*dim)
	for i := range shownPoints {
		at := i * n / shownPoints
		out = append(out, rows[at*dim:(at+1)*dim]...)
	}
	return out
}

// CurvesFigure draws loss, energies and acceptance over the steps of a run's metrics.
func CurvesFigure(dir, name string) (*plots.Figure, error) {
	records, err := runlog.ReadMetrics(dir)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("curves: %s has no records yet", folder{dir: dir}.path(runlog.MetricsFile))
	}
	line := func(key, label string) plots.Series {
		x, y := runlog.Series(records, key)
		return plots.Series{Name: label, X: x, Y: y}
	}
	panels := []plots.Panel{{Title: "loss", Series: []plots.Series{line("loss", "loss")}, Smooth: true}}
	if x, _ := runlog.Series(records, "energy_model"); len(x) > 0 {
		panels = append(panels, plots.Panel{Title: "mean energy (nats)", Series: []plots.Series{line("energy_data", "data"), line("energy_model", "model")}, Smooth: true})
	}
	if x, _ := runlog.Series(records, "grad_norm"); len(x) > 0 && len(panels) == 1 {
		panels = append(panels, plots.Panel{Title: "norm of the gradient", Series: []plots.Series{line("grad_norm", "norm")}, Smooth: true})
	}
	if x, y := runlog.ListSeries(records, "swap_accept"); len(x) > 0 {
		panels = append(panels, plots.Panel{Title: "swap acceptance a pair of rungs", Series: plots.SeriesOf("rungs", plots.PairNames(len(y[0])), x, y), Range: [2]float64{0, 1}, Ordered: true, Smooth: true})
	}
	if x, y := runlog.ListSeries(records, "explorer_accept"); len(x) > 0 {
		names := make([]string, len(y[0]))
		for k := range names {
			names[k] = fmt.Sprint(k)
		}
		panels = append(panels, plots.Panel{Title: "explorer acceptance a rung", Series: plots.SeriesOf("rung", names, x, y), Range: [2]float64{0, 1}, Ordered: true, Smooth: true})
	}
	return plots.Curves(plots.CurvesOptions{Title: name + ": training", Subtitle: fmt.Sprintf("%d steps", records[len(records)-1].Step)}, panels...)
}

// FormingGIF draws the landscapes kept during the run as an animation; nil where there are none.
func FormingGIF(dir, name string) ([]byte, error) {
	kept, err := loadFrames(folder{dir: dir})
	if err != nil || len(kept) == 0 {
		return nil, err
	}
	frames := make([]plots.Frame, len(kept))
	for i, l := range kept {
		g := plots.Grid{X0: l.X0, X1: l.X1, Y0: l.Y0, Y1: l.Y1, NX: l.N, NY: l.N, Values: l.Energy}
		density, err := g.Density()
		if err != nil {
			return nil, fmt.Errorf("frame of step %d: %w", l.Step, err)
		}
		frames[i] = plots.Frame{Grid: density, Samples: l.Points, Label: fmt.Sprintf("step %d", l.Step)}
	}
	var out bytes.Buffer
	if err := plots.FormingGIF(&out, frames, plots.FormingOptions{Title: name}); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Figures draws all that exists for a run into its folder and writes report.html.
func Figures(dir string, info runlog.RunInfo, p *Parts, t engine.Learner, ev *Evaluation) error {
	f := folder{dir: dir}
	var figures []plots.ReportFigure
	add := func(file, caption string, wide bool, fig *plots.Figure, err error) error {
		if err != nil {
			return err
		}
		figures = append(figures, plots.ReportFigure{Figure: fig, Title: file, Caption: caption, Wide: wide})
		return fig.Save(f.path(file))
	}
	if p.Data.Dim == 2 && p.field() == nil {
		fig, err := p.LandscapeFigure(t)
		if err := add("landscape.png", "The model's density, with the training data.", false, fig, err); err != nil {
			return err
		}
	}
	if p.hasPicture() && ev.samples != nil {
		fig, err := p.SamplesFigure(ev.samples, t.Step())
		if err := add("samples.png", "Held-out data and samples of the model.", true, fig, err); err != nil {
			return err
		}
	}
	fig, err := CurvesFigure(dir, p.Config.Name)
	if err := add("curves.png", "Loss, energies and acceptance while training.", true, fig, err); err != nil {
		return err
	}
	gif, err := FormingGIF(dir, p.Config.Name)
	if err != nil {
		return err
	}
	if gif != nil {
		if err := atomicfile.WriteFile(f.path("landscape.gif"), gif, 0o644); err != nil {
			return err
		}
		forming := plots.ReportFigure{File: gif, Title: "landscape.gif", Caption: "The landscape forming, with the chains of the target rung."}
		figures = slices.Insert(figures, 1, forming)
	}
	var sections []plots.Section
	if t := ev.Drawn(); t != nil {
		training, err := ladderHistory(dir)
		if err != nil {
			return err
		}
		section, err := t.section(training)
		if err != nil {
			return err
		}
		sections = append(sections, section)
	}
	return p.writeReport(f, figures, sections, info, ev)
}
