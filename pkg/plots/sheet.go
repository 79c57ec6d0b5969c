package plots

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Sheet is a block of grey images, such as "data" or "model".
type Sheet struct {
	Name   string
	Images []float64 // [n, height·width], row-major from the top
}

// SheetOptions says how SampleSheet draws.
type SheetOptions struct {
	Title, Subtitle string
	Height, Width   int     // of an image, in its pixels
	Columns         int     // images in a row, 16 by default
	Rows            int     // at most, in each sheet; 4 by default
	Scale           int     // pixels of the PNG a pixel of an image; chosen for a sheet of about 1,400 pixels by default
	Lo, Hi          float64 // the values of black and white, 0 and 1 by default; values beyond are black or white too
}

// SampleSheet draws sheets of small grey images below each other, such as data above and a model's samples below. A sheet
// with more images than places shows the first ones.
func SampleSheet(o SheetOptions, sheets ...Sheet) (*Figure, error) {
	if o.Columns == 0 {
		o.Columns = 16
	}
	if o.Rows == 0 {
		o.Rows = 4
	}
	if o.Lo == 0 && o.Hi == 0 {
		o.Hi = 1
	}
	var errs []error
	if o.Height < 1 || o.Width < 1 || o.Columns < 1 || o.Rows < 1 || o.Scale < 0 {
		errs = append(errs, fmt.Errorf("images %d×%d, %d columns, %d rows, scale %d: want at least 1 of each", o.Height, o.Width, o.Columns, o.Rows, o.Scale))
	}
	errs = append(errs, checkFinite("lo and hi", []float64{o.Lo, o.Hi}), rising("lo and hi", o.Lo, o.Hi))
	if len(sheets) == 0 {
		errs = append(errs, errors.New("no sheets"))
	}
	size := o.Height * o.Width
	for _, s := range sheets {
		if size > 0 && (len(s.Images) == 0 || len(s.Images)%size != 0) {
			errs = append(errs, fmt.Errorf("%s: %d numbers, want images of %d×%d", s.Name, len(s.Images), o.Height, o.Width))
			continue
		}
		for i, v := range s.Images {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				errs = append(errs, fmt.Errorf("%s: image %d, row %d, column %d: %g, want a finite number", s.Name, i/size, i%size/o.Width, i%o.Width, v))
				break
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("plots: sample sheet: %w", err)
	}
	columns := 0
	for _, s := range sheets {
		columns = max(columns, min(o.Columns, len(s.Images)/size))
	}
	const gap = 4 // pixels between images
	if o.Scale == 0 {
		o.Scale = max(1, min(16, (1400/columns-gap)/o.Width))
	}
	points := func(pixels int) vg.Length { return vg.Length(pixels) * 72 / dpi }
	const heading, space = 16, 12
	width := points(columns*(o.Width*o.Scale+gap) - gap)
	f := &Figure{
		width:  max(2*margin+width, 2*margin+style(titleSize, true, nil).Width(o.Title), 2*margin+style(subtitleSize, false, nil).Width(o.Subtitle)),
		height: 2*margin + headerHeight(o.Title, o.Subtitle) - space,
	}
	rasters := make([]*image.NRGBA, len(sheets))
	for i, s := range sheets {
		rasters[i] = raster(s, o, gap)
		f.height += heading + points(rasters[i].Bounds().Dy()) + space
	}
	f.draw = func(c draw.Canvas, th Theme) {
		c = header(inset(c), th, o.Title, o.Subtitle)
		for i, s := range sheets {
			st := style(panelSize, true, th.Foreground)
			st.YAlign = text.YTop
			c.FillText(st, vg.Point{X: c.Min.X, Y: c.Max.Y}, s.Name)
			note := style(labelSize, false, th.Muted)
			note.YAlign = text.YTop
			shown, all := min(o.Columns*o.Rows, len(s.Images)/size), len(s.Images)/size
			if shown < all {
				c.FillText(note, vg.Point{X: c.Min.X + st.Width(s.Name) + 8, Y: c.Max.Y - 0.5}, fmt.Sprintf("%s of %s", thousands(fmt.Sprint(shown)), thousands(fmt.Sprint(all))))
			}
			h := points(rasters[i].Bounds().Dy())
			top := c.Max.Y - heading
			c.DrawImage(vg.Rectangle{
				Min: vg.Point{X: c.Min.X, Y: top - h},
				Max: vg.Point{X: c.Min.X + points(rasters[i].Bounds().Dx()), Y: top},
			}, rasters[i])
			c = draw.Crop(c, 0, 0, 0, -heading-h-space)
		}
	}
	return f, nil
}

// raster lays a sheet's images out, transparent between them.
func raster(s Sheet, o SheetOptions, gap int) *image.NRGBA {
	size := o.Height * o.Width
	n := min(o.Columns*o.Rows, len(s.Images)/size)
	columns := min(n, o.Columns)
	rows := (n + columns - 1) / columns
	cellW, cellH := o.Width*o.Scale+gap, o.Height*o.Scale+gap
	img := image.NewNRGBA(image.Rect(0, 0, columns*cellW-gap, rows*cellH-gap))
	for k := range n {
		x0, y0 := k%columns*cellW, k/columns*cellH
		for y := range o.Height * o.Scale {
			for x := range o.Width * o.Scale {
				v := s.Images[k*size+y/o.Scale*o.Width+x/o.Scale]
				g := uint8(math.Round(255 * math.Min(1, math.Max(0, (v-o.Lo)/(o.Hi-o.Lo)))))
				img.SetNRGBA(x0+x, y0+y, color.NRGBA{g, g, g, 255})
			}
		}
	}
	return img
}
