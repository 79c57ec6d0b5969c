package plots

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"io"
	"math"
	"slices"
	"time"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Frame is one picture of a GIF: a density on a grid, samples [n, 2] over it (may be empty), and a label such as
// "step 1,200".
type Frame struct {
	Grid    Grid
	Samples []float64
	Label   string
}

// FormingOptions says how FormingGIF draws.
type FormingOptions struct {
	Title    string
	Width    int           // pixels, 400 by default
	Duration time.Duration // of all frames but the last, 6 s by default
	Hold     time.Duration // of the last frame, 2 s by default
	// MaxBytes is the size aimed at, 2 MiB by default: the colours become fewer until the file is no larger, at least 24.
	MaxBytes int
}

// FormingGIF writes a GIF of a density forming over the steps, which plays for ever. All frames share one colour scale, on
// which the colour goes with the square root of the density, so that a broad early density shows beside a sharp late
// one. It always has the dark theme.
func FormingGIF(w io.Writer, frames []Frame, o FormingOptions) error {
	if o.Width == 0 {
		o.Width = 400
	}
	if o.Duration == 0 {
		o.Duration = 6 * time.Second
	}
	if o.Hold == 0 {
		o.Hold = 2 * time.Second
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 2 << 20
	}
	if err := checkFrames(frames, o); err != nil {
		return fmt.Errorf("plots: gif: %w", err)
	}
	var out bytes.Buffer
	for _, levels := range []int{160, 96, 56, 36, 24} {
		out.Reset()
		if err := gif.EncodeAll(&out, formingGIF(frames, o, levels)); err != nil {
			return fmt.Errorf("plots: gif: %w", err)
		}
		if out.Len() <= o.MaxBytes {
			break
		}
	}
	if _, err := w.Write(out.Bytes()); err != nil {
		return fmt.Errorf("plots: gif: %w", err)
	}
	return nil
}

func checkFrames(frames []Frame, o FormingOptions) error {
	var errs []error
	if len(frames) == 0 {
		errs = append(errs, errors.New("no frames"))
	}
	if o.Width < 100 || o.Width > 4000 {
		errs = append(errs, fmt.Errorf("width: %d, want 100 to 4000 pixels", o.Width))
	}
	if o.Duration < 0 || o.Hold < 0 {
		errs = append(errs, fmt.Errorf("duration %v, hold %v: want at least 0", o.Duration, o.Hold))
	}
	for i, f := range frames {
		err := f.Grid.check()
		if err == nil && slices.Min(f.Grid.Values) < 0 {
			err = fmt.Errorf("grid: density %g, want at least 0", slices.Min(f.Grid.Values))
		}
		if a, b := f.Grid, frames[0].Grid; err == nil && (a.X0 != b.X0 || a.X1 != b.X1 || a.Y0 != b.Y0 || a.Y1 != b.Y1) {
			err = fmt.Errorf("grid: box [%g, %g]×[%g, %g], want that of the first frame", a.X0, a.X1, a.Y0, a.Y1)
		}
		if len(f.Samples) > 0 {
			err = errors.Join(err, checkPoints("samples", f.Samples))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("frame %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// Places in the palette of a GIF.
const (
	gifClear = 0 // a pixel that the frame before has right
	gifPoint = 1
	gifHot   = 2 // the bar of progress
	gifGrey  = 3 // first of gifGreys from background to foreground
	gifGreys = 16
	gifHeat  = gifGrey + gifGreys
)

func formingGIF(frames []Frame, o FormingOptions, levels int) *gif.GIF {
	pal := make(color.Palette, gifHeat+levels)
	pal[gifClear], pal[gifPoint], pal[gifHot] = color.NRGBA{}, pointColor, Dark.Model
	for i := range gifGreys {
		pal[gifGrey+i] = mix(Dark.Background, Dark.Foreground, float64(i)/(gifGreys-1))
	}
	for i := range levels {
		pal[gifHeat+i] = Heat[(255*i+(levels-1)/2)/(levels-1)]
	}
	const edge, top, bottom = 14, 40, 22
	g := frames[0].Grid
	panel := image.Rect(edge, top, o.Width-edge, top+min(2*o.Width, max(20, int(math.Round(float64(o.Width-2*edge)*(g.Y1-g.Y0)/(g.X1-g.X0))))))
	bounds := image.Rect(0, 0, o.Width, panel.Max.Y+bottom)
	scale := colorScale{gamma: 0.5}
	for _, f := range frames {
		scale.hi = max(scale.hi, slices.Max(f.Grid.Values))
	}
	out := &gif.GIF{Config: image.Config{ColorModel: pal, Width: bounds.Dx(), Height: bounds.Dy()}}
	var before *image.Paletted
	for k, f := range frames {
		img := image.NewPaletted(bounds, pal)
		drawChrome(img, o.Title, f.Label)
		for y := panel.Min.Y; y < panel.Max.Y; y++ {
			v := 1 - (float64(y-panel.Min.Y)+0.5)/float64(panel.Dy())
			for x := panel.Min.X; x < panel.Max.X; x++ {
				u := (float64(x-panel.Min.X) + 0.5) / float64(panel.Dx())
				img.Pix[img.PixOffset(x, y)] = uint8(gifHeat + int(math.Round(float64(levels-1)*scale.share(f.Grid.at(u, v)))))
			}
		}
		for i := 0; i < len(f.Samples); i += 2 {
			u, v := (f.Samples[i]-g.X0)/(g.X1-g.X0), (f.Samples[i+1]-g.Y0)/(g.Y1-g.Y0)
			if u < 0 || u > 1 || v < 0 || v > 1 { // too far for the picture, and perhaps for an int
				continue
			}
			drawDot(img, panel, panel.Min.X+int(u*float64(panel.Dx())), panel.Min.Y+int((1-v)*float64(panel.Dy())))
		}
		done := panel.Dx()
		if len(frames) > 1 {
			done = panel.Dx() * k / (len(frames) - 1)
		}
		for y := panel.Max.Y + 9; y < panel.Max.Y+12; y++ {
			for x := panel.Min.X; x < panel.Max.X; x++ {
				c := uint8(gifGrey + 2)
				if x-panel.Min.X < done {
					c = gifHot
				}
				img.Pix[img.PixOffset(x, y)] = c
			}
		}
		delay := int(o.Duration / time.Duration(max(1, len(frames)-1)) / (10 * time.Millisecond))
		if k == len(frames)-1 {
			delay = int(o.Hold / (10 * time.Millisecond))
		}
		out.Image = append(out.Image, changes(before, img))
		out.Delay = append(out.Delay, max(2, delay)) // viewers slow down what is shorter
		out.Disposal = append(out.Disposal, gif.DisposalNone)
		before = img
	}
	return out
}

// changes returns what differs from the frame before: the box around it, clear where nothing changed.
func changes(before, img *image.Paletted) *image.Paletted {
	if before == nil {
		return img
	}
	box := image.Rectangle{}
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			if i := img.PixOffset(x, y); img.Pix[i] != before.Pix[i] {
				box = box.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	if box.Empty() { // a frame needs a pixel
		box = image.Rect(0, 0, 1, 1)
	}
	out := image.NewPaletted(box, img.Palette)
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			if i := img.PixOffset(x, y); img.Pix[i] != before.Pix[i] {
				out.Pix[out.PixOffset(x, y)] = img.Pix[i]
			}
		}
	}
	return out
}

// drawChrome fills the background and writes the title on the left and the label on the right, in the palette's greys.
func drawChrome(img *image.Paletted, title, label string) {
	f := &Figure{width: vg.Length(img.Rect.Dx()), height: vg.Length(img.Rect.Dy())}
	f.draw = func(c draw.Canvas, th Theme) {
		st := style(15, true, th.Foreground)
		st.YAlign = text.YCenter
		at := vg.Point{X: 14, Y: c.Max.Y - 20}
		c.FillText(st, at, title)
		st = style(13, false, th.Foreground)
		st.XAlign, st.YAlign = text.XRight, text.YCenter
		at.X = c.Max.X - 14
		c.FillText(st, at, label)
	}
	drawn := f.image(Dark, 72)
	lo, hi := float64(Dark.Background.G), float64(Dark.Foreground.G)
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			_, g, _, _ := drawn.At(x, y).RGBA()
			t := (float64(g>>8) - lo) / (hi - lo)
			img.Pix[img.PixOffset(x, y)] = uint8(gifGrey + int(math.Round((gifGreys-1)*math.Min(1, math.Max(0, t)))))
		}
	}
}

// drawDot draws a point three pixels wide.
func drawDot(img *image.Paletted, panel image.Rectangle, x, y int) {
	for _, d := range []image.Point{{0, 0}, {1, 0}, {-1, 0}, {0, 1}, {0, -1}} {
		if p := image.Pt(x, y).Add(d); p.In(panel) {
			img.Pix[img.PixOffset(p.X, p.Y)] = gifPoint
		}
	}
}

func mix(a, b color.NRGBA, t float64) color.NRGBA {
	m := func(x, y uint8) uint8 { return uint8(math.Round(float64(x)*(1-t) + float64(y)*t)) }
	return color.NRGBA{m(a.R, b.R), m(a.G, b.G), m(a.B, b.B), 255}
}
