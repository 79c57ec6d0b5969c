// Package plots draws what a run has learned: the landscape of a two-dimensional model, samples beside data, curves over
// the steps, sheets of small images, the ladder of a tempered run, a GIF of the landscape forming, and report.html that
// shows all of it offline.
//
//	grid := plots.NewGrid(-2, 3, -1.5, 2, 200, 200)
//	copy(grid.Values, energies(grid.Points()))
//	density, err := grid.Density()
//	if err != nil {
//		return err
//	}
//	figure, err := plots.Landscape(density, plots.LandscapeOptions{Title: "two-moons", Subtitle: "step 9,600", Points: data})
//	if err != nil {
//		return err
//	}
//	err = figure.Save("landscape.png") // or .svg
//
// Input that is empty or not finite is an error that says which part of which argument is.
package plots

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"path/filepath"
	"strings"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// dpi of PNG files: two pixels a point, sharp on screens of high density.
const dpi = 144

// Figure is a picture that can be drawn in either theme and written as PNG or SVG.
type Figure struct {
	width, height vg.Length
	draw          func(c draw.Canvas, th Theme)
}

// Image draws the figure.
func (f *Figure) Image(th Theme) image.Image { return f.image(th, dpi) }

func (f *Figure) image(th Theme, dpi int) image.Image {
	canvas := vgimg.NewWith(vgimg.UseWH(f.width, f.height), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(th.Background))
	f.draw(draw.New(canvas), th)
	return canvas.Image()
}

// PNG draws the figure as a PNG file.
func (f *Figure) PNG(th Theme) ([]byte, error) {
	var out bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.DefaultCompression}
	if err := enc.Encode(&out, f.Image(th)); err != nil {
		return nil, fmt.Errorf("plots: png: %w", err)
	}
	return out.Bytes(), nil
}

// SVG draws the figure as an SVG file. Its text names Liberation Sans and, for readers without it, fonts of the same or
// nearly the same widths.
func (f *Figure) SVG(th Theme) ([]byte, error) {
	canvas := vgsvg.New(f.width, f.height)
	c := draw.New(canvas)
	c.SetColor(th.Background)
	c.Fill(c.Rectangle.Path())
	f.draw(c, th)
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("plots: svg: %w", err)
	}
	svg := out.Bytes()
	svg = bytes.ReplaceAll(svg, []byte("font-family:Liberation Sans"), []byte("font-family:'Liberation Sans',Arimo,Arial,Helvetica,sans-serif"))
	// gonum labels its PNGs as JPEGs and lets viewers keep their aspect.
	svg = bytes.ReplaceAll(svg, []byte("data:image/jpg;"), []byte("data:image/png;"))
	svg = bytes.ReplaceAll(svg, []byte("<image "), []byte(`<image preserveAspectRatio="none" `))
	return svg, nil
}

// Save writes the figure, light, to a file named .png or .svg. On an error nothing half-written is left.
func (f *Figure) Save(path string) error {
	var data []byte
	var err error
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".png":
		data, err = f.PNG(Light)
	case ".svg":
		data, err = f.SVG(Light)
	default:
		return fmt.Errorf("plots: %s: ending %q, want .png or .svg", path, ext)
	}
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("plots: %w", err)
	}
	return nil
}

// Sizes of text and space, in points.
const (
	titleSize    = 13
	subtitleSize = 9.5
	panelSize    = 10
	labelSize    = 9
	tickSize     = 8
	margin       = 14
)

func style(size float64, bold bool, c color.Color) text.Style {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Length(size)}
	if bold {
		f.Weight = xfont.WeightBold
	}
	return text.Style{Color: c, Font: f, XAlign: text.XLeft, YAlign: text.YBottom, Handler: text.Plain{Fonts: font.DefaultCache}}
}

// inset leaves the margin free on all sides.
func inset(c draw.Canvas) draw.Canvas { return draw.Crop(c, margin, -margin, margin, -margin) }

// headerHeight is what header takes.
func headerHeight(title, subtitle string) vg.Length {
	h := vg.Length(0)
	if title != "" {
		h += titleSize + 4
	}
	if subtitle != "" {
		h += subtitleSize + 4
	}
	if h > 0 {
		h = vg.Length(math.Ceil(float64(h))) + 6
	}
	return h
}

// header writes title and subtitle at the top left and returns the canvas below.
func header(c draw.Canvas, th Theme, title, subtitle string) draw.Canvas {
	y := c.Max.Y
	if title != "" {
		st := style(titleSize, true, th.Foreground)
		st.YAlign = text.YTop
		c.FillText(st, vg.Point{X: c.Min.X, Y: y}, title)
		y -= titleSize + 4
	}
	if subtitle != "" {
		st := style(subtitleSize, false, th.Muted)
		st.YAlign = text.YTop
		c.FillText(st, vg.Point{X: c.Min.X, Y: y}, subtitle)
	}
	return draw.Crop(c, 0, 0, 0, -headerHeight(title, subtitle))
}

// key is an entry of a legend.
type key struct {
	name  string
	color color.Color
	mark  int
}

const (
	markLine = iota
	markDot
	markDashes
)

const (
	keyMark = 14 // width of a legend's mark
	keyGap  = 12 // between entries
)

func keyWidth(k key) vg.Length {
	st := style(labelSize, false, nil)
	return keyMark + 4 + st.Width(k.name) + keyGap
}

// legendRows breaks a legend into rows of a width.
func legendRows(keys []key, width vg.Length) [][]key {
	var rows [][]key
	var used vg.Length
	for i, k := range keys {
		w := keyWidth(k)
		if i == 0 || used+w-keyGap > width {
			rows, used = append(rows, nil), 0
		}
		used += w
		rows[len(rows)-1] = append(rows[len(rows)-1], k)
	}
	return rows
}

const legendRow = 13 // height of a legend's row

// legend writes rows of entries from the top left and returns the canvas below: it never lies over data.
func legend(c draw.Canvas, th Theme, rows [][]key) draw.Canvas {
	for i, row := range rows {
		x, y := c.Min.X, c.Max.Y-legendRow*(vg.Length(i)+0.5)
		for _, k := range row {
			switch k.mark {
			case markDot:
				c.DrawGlyph(draw.GlyphStyle{Color: k.color, Radius: 3, Shape: draw.CircleGlyph{}}, vg.Point{X: x + keyMark/2, Y: y})
			default:
				ls := draw.LineStyle{Color: k.color, Width: 2}
				if k.mark == markDashes {
					ls.Width, ls.Dashes = 1, dashes
				}
				c.StrokeLine2(ls, x, y, x+keyMark, y)
			}
			st := style(labelSize, false, th.Foreground)
			st.YAlign = text.YCenter
			c.FillText(st, vg.Point{X: x + keyMark + 4, Y: y}, k.name)
			x += keyWidth(k)
		}
	}
	return draw.Crop(c, 0, 0, 0, -legendRow*vg.Length(len(rows)))
}

var dashes = []vg.Length{4, 3}

// checkFinite reports the first number that is not finite.
func checkFinite(name string, xs []float64) error {
	for i, x := range xs {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%s[%d]: %g, want a finite number", name, i, x)
		}
	}
	return nil
}

// checkPoints checks [n, 2] coordinates, row-major.
func checkPoints(name string, xy []float64) error {
	if len(xy) == 0 {
		return fmt.Errorf("%s: empty, want points [n, 2]", name)
	}
	if len(xy)%2 != 0 {
		return fmt.Errorf("%s: %d numbers, want points [n, 2]", name, len(xy))
	}
	for i, x := range xy {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%s: point %d, coordinate %d: %g, want a finite number", name, i/2, i%2, x)
		}
	}
	return nil
}
