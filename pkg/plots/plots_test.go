package plots

import (
	"bytes"
	"encoding/xml"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// bump is a grid with an energy that is lowest at (1, 0.5).
func bump(nx, ny int) Grid {
	g := NewGrid(-2, 3, -1, 1.5, nx, ny)
	points := g.Points()
	for i := range g.Values {
		x, y := points[2*i]-1, points[2*i+1]-0.5
		g.Values[i] = 8 * (x*x + y*y)
	}
	return g
}

func density(t *testing.T, g Grid) Grid {
	t.Helper()
	d, err := g.Density()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ring has n points on a circle.
func ring(n int) []float64 {
	var points []float64
	for i := range n {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / float64(n))
		points = append(points, cos, sin)
	}
	return points
}

func steps(n int, f func(x float64) float64) Series {
	s := Series{Name: "loss"}
	for i := range n {
		s.X, s.Y = append(s.X, float64(i+1)), append(s.Y, f(float64(i+1)))
	}
	return s
}

func luminance(c color.Color) float64 {
	r, g, b, _ := c.RGBA()
	linear := func(v uint32) float64 { return math.Pow(float64(v)/0xffff, 2.2) }
	return 0.2126*linear(r) + 0.7152*linear(g) + 0.0722*linear(b)
}

func TestHeatGetsBrighterAllTheWay(t *testing.T) {
	for i := 1; i < len(Heat); i++ {
		if luminance(Heat[i]) <= luminance(Heat[i-1]) {
			t.Errorf("colour %d %v is not brighter than %v", i, Heat[i], Heat[i-1])
		}
	}
	if lo, hi := luminance(Heat[0]), luminance(Heat[255]); lo > 0.01 || hi < 0.85 {
		t.Errorf("luminance from %g to %g", lo, hi)
	}
}

func TestGridsGoFromTheBottomLeft(t *testing.T) {
	g := NewGrid(-2, 2, 0, 1, 3, 2)
	want := []float64{-2, 0, 0, 0, 2, 0, -2, 1, 0, 1, 2, 1}
	if got := g.Points(); !slices.Equal(got, want) {
		t.Errorf("points %v", got)
	}
	copy(g.Values, []float64{0, 1, 2, 10, 11, 12})
	for _, tc := range []struct{ u, v, want float64 }{{0, 0, 0}, {1, 0, 2}, {0, 1, 10}, {1, 1, 12}, {0.75, 0.5, 6.5}} {
		if got := g.at(tc.u, tc.v); math.Abs(got-tc.want) > 1e-12 {
			t.Errorf("at(%g, %g) = %g, want %g", tc.u, tc.v, got, tc.want)
		}
	}
}

func TestGridAround(t *testing.T) {
	g, err := GridAround([]float64{0, 0, 4, 1, 2, 2}, 0.25, 61)
	if err != nil {
		t.Fatal(err)
	}
	if g.X0 != -1 || g.X1 != 5 || g.Y0 != -1 || g.Y1 != 3 || g.NX != 61 || g.NY != 41 {
		t.Errorf("%v %v %v %v %d×%d", g.X0, g.X1, g.Y0, g.Y1, g.NX, g.NY)
	}
	for _, points := range [][]float64{{3, 3}, {0, 1, 5, 1}} { // a point, a line
		g, err := GridAround(points, 0, 20)
		if err != nil || g.check() != nil {
			t.Errorf("%v: %v, %v", points, err, g.check())
		}
	}
}

// A Gaussian of precision 16 has the density 16/(2π) at its centre; its mass within r is 1 − exp(−8r²).
func TestDensityIntegratesToOne(t *testing.T) {
	d := density(t, bump(401, 201))
	mass := 0.0
	for i, p := range d.Values {
		mass += p * d.weight(i)
	}
	if math.Abs(mass-1) > 1e-12 {
		t.Errorf("mass %g", mass)
	}
	// The box cuts 3e-4 of the mass off.
	if got, want := slices.Max(d.Values), 16/(2*math.Pi); math.Abs(got/want-1) > 1e-3 {
		t.Errorf("peak %g, want %g", got, want)
	}
	for k, share := range []float64{0.9, 0.5} {
		level := d.massLevels([]float64{0.9, 0.5})[k]
		if want := (1 - share) * 16 / (2 * math.Pi); math.Abs(level/want-1) > 0.02 {
			t.Errorf("level around %g of the mass %g, want %g", share, level, want)
		}
	}
}

// brightest returns the place of the brightest and of the darkest pixel inside a rectangle.
func brightest(img image.Image, r image.Rectangle) (bright, dark image.Point) {
	hi, lo := -1.0, 2.0
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			l := luminance(img.At(x, y))
			if l > hi {
				hi, bright = l, image.Pt(x, y)
			}
			if l < lo {
				lo, dark = l, image.Pt(x, y)
			}
		}
	}
	return bright, dark
}

func TestLandscapesAreBrightWhereTheModelIsLikely(t *testing.T) {
	for name, fig := range map[string]func() (*Figure, error){
		"density": func() (*Figure, error) { return Landscape(density(t, bump(120, 60)), LandscapeOptions{Title: "bump"}) },
		"energy": func() (*Figure, error) {
			return Landscape(bump(120, 60), LandscapeOptions{Title: "bump", Quantity: Energy})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := fig()
			if err != nil {
				t.Fatal(err)
			}
			for _, th := range []Theme{Light, Dark} {
				img := f.Image(th)
				b := img.Bounds()
				if b.Dx() != int(math.Round(float64(f.width)*2)) || b.Dy() != int(math.Round(float64(f.height)*2)) {
					t.Fatalf("size %v for %v×%v points", b, f.width, f.height)
				}
				if got := color.NRGBAModel.Convert(img.At(1, 1)); got != th.Background {
					t.Errorf("corner %v, want %v", got, th.Background)
				}
				// The data area is 340×170 points; its corner is a low-density spot, its place (0.6, 0.6) the centre of the bump.
				left := 2 * (margin + float64(yLabelWidth(-1, 1.5)))
				top := 2 * (margin + float64(headerHeight("bump", "")) + legendRow + 6)
				corner := img.At(int(left)+20, int(top)+20)
				centre := img.At(int(left+680*0.6), int(top+340*0.4))
				if luminance(corner) > 0.02 || luminance(centre) < 0.8 {
					t.Errorf("corner %v, centre %v", corner, centre)
				}
			}
		})
	}
}

func TestFlatAndNarrowLandscapesCanBeDrawn(t *testing.T) {
	flat := NewGrid(0, 1, 0, 1, 5, 5)
	narrow := NewGrid(0, 100, 0, 1, 50, 3)
	for i := range narrow.Values {
		narrow.Values[i] = float64(i % 7)
	}
	for _, g := range []Grid{flat, narrow} {
		for _, q := range []Quantity{Density, Energy} {
			f, err := Landscape(g, LandscapeOptions{Quantity: q, Points: []float64{0.5, 0.5, 1e300, -1e300}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.SVG(Light); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestSamplesStandBesideData(t *testing.T) {
	samples := append(ring(500), 50, 50)
	f, err := SamplesAgainstData(ring(500), samples, SamplesOptions{Title: "ring"})
	if err != nil {
		t.Fatal(err)
	}
	img := f.Image(Light)
	count := func(r image.Rectangle, red bool) (n int) {
		for y := r.Min.Y; y < r.Max.Y; y++ {
			for x := r.Min.X; x < r.Max.X; x++ {
				if r, _, b, _ := img.At(x, y).RGBA(); red && r > b+0x3000 || !red && b > r+0x3000 {
					n++
				}
			}
		}
		return n
	}
	b := img.Bounds()
	left, right := image.Rect(0, 0, b.Dx()/2, b.Dy()), image.Rect(b.Dx()/2, 0, b.Dx(), b.Dy())
	if count(left, false) < 1000 || count(left, true) > 0 || count(right, true) < 1000 || count(right, false) > 0 {
		t.Errorf("blue and red pixels: left %d, %d, right %d, %d", count(left, false), count(left, true), count(right, false), count(right, true))
	}
	svg, err := f.SVG(Light)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(svg), "501 points, 1 of them outside") {
		t.Error("the point outside is not told")
	}
}

func TestCurvesTellAboutOutliers(t *testing.T) {
	s := steps(2000, func(x float64) float64 {
		if x < 4 {
			return 1e6
		}
		return 1 / x
	})
	pairs := make([]Series, 12)
	for i := range pairs {
		pairs[i] = steps(300, func(x float64) float64 { return math.Exp(-float64(i) / 10) })
		pairs[i].Name = PairNames(12)[i]
	}
	f, err := Curves(CurvesOptions{Title: "run"},
		Panel{Title: "loss", Series: []Series{s}, Smooth: true, Levels: []Level{{"entropy", 0.29}}},
		Panel{Title: "log", Series: []Series{s}, LogY: true},
		Panel{Title: "swaps", Series: pairs, Ordered: true, Range: [2]float64{0, 1}},
		Panel{Title: "constant", Series: []Series{steps(5, func(float64) float64 { return 0 })}},
		Panel{Title: "one point", Series: []Series{{X: []float64{7}, Y: []float64{3}}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	svg, err := f.SVG(Dark)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 values outside the axis", "entropy", ">0–1<", ">11–12<", "Arimo"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the figure lacks %q", want)
		}
	}
	if strings.Contains(string(svg), "NaN") {
		t.Error("a coordinate is NaN")
	}
	if _, err := f.PNG(Light); err != nil {
		t.Error(err)
	}
	logX, err := Curves(CurvesOptions{LogX: true}, Panel{Title: "loss", Series: []Series{s}, Smooth: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := logX.PNG(Light); err != nil {
		t.Error(err)
	}
}

func TestSmoothKeepsALineALine(t *testing.T) {
	s := smooth(steps(1000, func(x float64) float64 { return 2 * x }), false, math.Inf(-1), math.Inf(1))
	for i, y := range s.Y {
		if want := 2 * s.X[i]; math.Abs(y-want) > 1e-9 && i > 20 && i < 980 || math.Abs(y-want) > 21 {
			t.Fatalf("at %g: %g, want %g", s.X[i], y, want)
		}
	}
}

func TestThinKeepsTheExtremes(t *testing.T) {
	s := steps(10000, func(x float64) float64 { return math.Sin(x) })
	s.Y[5000], s.Y[5001] = 9, -9
	f, err := Curves(CurvesOptions{}, Panel{Series: []Series{s}, Range: [2]float64{-10, 10}})
	if err != nil {
		t.Fatal(err)
	}
	svg, err := f.SVG(Light)
	if err != nil {
		t.Fatal(err)
	}
	if len(svg) > 200_000 {
		t.Errorf("%d bytes for a curve", len(svg))
	}
}

func TestTicks(t *testing.T) {
	labels := func(ticks []string) string { return strings.Join(ticks, " ") }
	for _, tc := range []struct {
		lo, hi float64
		log    bool
		want   string
	}{
		{-1, 2, false, "−1 0 1 2"},
		{0, 9600, false, "0 2,000 4,000 6,000 8,000"},
		{0, 0.5, false, "0 0.1 0.2 0.3 0.4 0.5"},
		{0, 3e7, false, "0 1e7 2e7 3e7"},
		{-2e-5, 2e-5, false, "−2e−5 −1e−5 0 1e−5 2e−5"},
		{0.01, 100, true, "0.01 0.1 1 10 100"},
		{2, 40, true, "2 5 10 20"},
	} {
		var got []string
		list := ticks{}.Ticks(tc.lo, tc.hi)
		if tc.log {
			list = logTicks{}.Ticks(tc.lo, tc.hi)
		}
		for _, tick := range list {
			if tick.Label != "" {
				got = append(got, tick.Label)
			}
		}
		if labels(got) != tc.want {
			t.Errorf("%g to %g: %s, want %s", tc.lo, tc.hi, labels(got), tc.want)
		}
	}
}

func TestSampleSheetShowsPixels(t *testing.T) {
	images := []float64{0, 1, 0.5, 0.25, -3, 9, 0, 0, 0, 0, 0, 1} // three of 2×2
	f, err := SampleSheet(SheetOptions{Height: 2, Width: 2, Scale: 10, Columns: 2}, Sheet{"data", images}, Sheet{"model", images[:4]})
	if err != nil {
		t.Fatal(err)
	}
	img := f.Image(Light)
	const x0, y0 = 2 * margin, 2 * (margin + 16) // pixels of the first image's corner
	for _, tc := range []struct {
		x, y int
		want uint8
	}{
		{5, 5, 0}, {15, 5, 255}, {5, 15, 128}, {15, 15, 64}, // first image
		{29, 5, 0}, {39, 5, 255}, // second: clipped values
		{22, 5, 255},  // the gap is paper
		{15, 39, 255}, // third, second row
		{39, 39, 255}, // no fourth
		{9, 5, 0},     // sharp: the last column of black
		{10, 5, 255},  // and the first of white
	} {
		if got := color.GrayModel.Convert(img.At(x0+tc.x, y0+tc.y)).(color.Gray).Y; got != tc.want {
			t.Errorf("pixel (%d, %d) is %d, want %d", tc.x, tc.y, got, tc.want)
		}
	}
}

func TestGIFPlaysAllFrames(t *testing.T) {
	var frames []Frame
	g := bump(200, 100)
	for i := range 40 {
		e := g
		e.Values = slices.Clone(g.Values)
		for k := range e.Values {
			e.Values[k] *= float64(i+1) / 40
		}
		frames = append(frames, Frame{Grid: density(t, e), Samples: append(ring(128), 1e300, 0), Label: "step 1"})
	}
	var out bytes.Buffer
	if err := FormingGIF(&out, frames, FormingOptions{Title: "bump", Duration: 4 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 2<<20 {
		t.Errorf("%d bytes", out.Len())
	}
	anim, err := gif.DecodeAll(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if len(anim.Image) != 40 || anim.Config.Width != 400 || anim.Config.Height != 40+186+22 || anim.LoopCount != 0 {
		t.Errorf("%d frames of %d×%d, loop %d", len(anim.Image), anim.Config.Width, anim.Config.Height, anim.LoopCount)
	}
	if anim.Delay[0] != 10 || anim.Delay[39] != 200 {
		t.Errorf("delays %v", anim.Delay)
	}
	// Played to the end, the picture is the last frame drawn alone.
	screen := image.NewRGBA(image.Rect(0, 0, anim.Config.Width, anim.Config.Height))
	for _, f := range anim.Image {
		for y := f.Rect.Min.Y; y < f.Rect.Max.Y; y++ {
			for x := f.Rect.Min.X; x < f.Rect.Max.X; x++ {
				if _, _, _, a := f.At(x, y).RGBA(); a > 0 {
					screen.Set(x, y, f.At(x, y))
				}
			}
		}
	}
	bright, _ := brightest(screen, image.Rect(14, 40, 386, 226))
	if want := image.Pt(14+372*3/5, 40+186*2/5); math.Hypot(float64(bright.X-want.X), float64(bright.Y-want.Y)) > 6 {
		t.Errorf("brightest at %v, want near %v", bright, want)
	}
	small := new(bytes.Buffer)
	if err := FormingGIF(small, frames, FormingOptions{Title: "bump", MaxBytes: 1}); err != nil || small.Len() >= out.Len() {
		t.Errorf("%d bytes with the fewest colours, %d with all: %v", small.Len(), out.Len(), err)
	}
	if err := FormingGIF(io.Discard, frames[:1], FormingOptions{}); err != nil {
		t.Error("one frame:", err)
	}
	if err := FormingGIF(io.Discard, []Frame{frames[0], frames[0]}, FormingOptions{}); err != nil {
		t.Error("equal frames:", err)
	}
}

func TestFiguresAreSavedByTheirEnding(t *testing.T) {
	f, err := Landscape(density(t, bump(30, 20)), LandscapeOptions{Title: "bump", Points: ring(5)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := f.Save(filepath.Join(dir, "a.png")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "a.png"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	if err := f.Save(filepath.Join(dir, "a.svg")); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(filepath.Join(dir, "a.svg"))
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, svg)
	if !bytes.Contains(svg, []byte("data:image/png;base64,")) || bytes.Contains(svg, []byte("image/jpg")) {
		t.Error("the landscape's picture is not a PNG")
	}
	if err := f.Save(filepath.Join(dir, "a.bmp")); err == nil || !strings.Contains(err.Error(), ".png or .svg") {
		t.Error(err)
	}
	if err := f.Save(filepath.Join(dir, "none", "a.png")); err == nil {
		t.Error("saved into a folder that is not there")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left %v", entries)
	}
}

func wellFormed(t *testing.T, data []byte) {
	t.Helper()
	dec := xml.NewDecoder(bytes.NewReader(data))
	dec.Entity = xml.HTMLEntity
	for {
		if _, err := dec.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestReportIsOneFileThatNeedsNothing(t *testing.T) {
	land, err := Landscape(density(t, bump(30, 20)), LandscapeOptions{Title: "bump"})
	if err != nil {
		t.Fatal(err)
	}
	curves, err := Curves(CurvesOptions{}, Panel{Title: "loss", Series: []Series{steps(9, math.Sqrt)}})
	if err != nil {
		t.Fatal(err)
	}
	var anim bytes.Buffer
	if err := FormingGIF(&anim, []Frame{{Grid: density(t, bump(20, 10))}}, FormingOptions{}); err != nil {
		t.Fatal(err)
	}
	still, err := curves.PNG(Light)
	if err != nil {
		t.Fatal(err)
	}
	d := ReportData{
		Name: "moons <&> \"two\"", Subtitle: "9 steps", Verdict: "Good.", Warnings: []string{"biased & <unadjusted>"},
		Numbers:  []Number{{"NLL", "0.334", "± 0.012"}, {"MMD²", "0.001", ""}},
		Figures:  []ReportFigure{{Figure: land, Title: "Density", Caption: "a < b"}, {Figure: curves, Title: "Loss", Wide: true}, {File: anim.Bytes(), Title: "Forming"}, {File: still, Title: "Still"}},
		Tables:   []Table{{"Configuration", []Row{{"data.dataset", "two_moons", ""}, {"seed", "7", "default"}}}},
		Commands: []string{"coordinator train a.yaml --set name='<x>'"}, Footer: "v0.1.0",
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := Report(path, d); err != nil {
		t.Fatal(err)
	}
	html, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, html)
	page := string(html)
	for what, n := range map[string]int{
		`<img src="data:image/png;base64,`:       3,
		`<img src="data:image/gif;base64,`:       1,
		`srcset="data:image/png;base64,`:         2,
		"<script":                                0,
		"ZgotmplZ":                               0, // what html/template writes for a value it holds unsafe
		"http://":                                0,
		"https://":                               0,
		"moons &lt;&amp;&gt; &#34;two&#34;</h1>": 1,
		"biased &amp; &lt;unadjusted&gt;":        1,
		"<th scope=\"row\">data.dataset</th><td>two_moons</td>": 1,
		"@import":              0,
		Light.hexInk() + ";":   1,
		`class="wide"`:         1,
		"<dd class=\"value\">": 2,
	} {
		if got := strings.Count(page, what); got != n {
			t.Errorf("%q is there %d times, want %d", what, got, n)
		}
	}
	for _, m := range regexp.MustCompile(`(?:src|href|srcset)="([^"]*)"|url\(([^)]*)\)`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1]+m[2], "data:") {
			t.Errorf("refers to %.80s", m[0])
		}
	}
	var least bytes.Buffer
	if err := WriteReport(&least, ReportData{Name: "bare"}); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, least.Bytes())
	if strings.Contains(least.String(), "<h2>") {
		t.Error("a bare report has empty sections")
	}
}

func (th Theme) hexInk() string {
	const digits = "0123456789abcdef"
	s := "--ink:#"
	for _, c := range []uint8{th.Foreground.R, th.Foreground.G, th.Foreground.B} {
		s += string(digits[c>>4]) + string(digits[c&15])
	}
	return s
}

func TestFaultsAreNamed(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	bad := bump(5, 4)
	bad.Values[7] = nan // i = 2, j = 1
	negative := NewGrid(0, 1, 0, 1, 2, 2)
	negative.Values[1] = -1
	ok := NewGrid(0, 1, 0, 1, 2, 2)
	other := NewGrid(0, 2, 0, 1, 2, 2)
	line := Series{Name: "a", X: []float64{1, 2}, Y: []float64{1, nan}}
	discard := func(_ *Figure, err error) error { return err }
	density := func(g Grid) error { _, err := g.Density(); return err }
	around := func(p []float64, share float64, n int) error { _, err := GridAround(p, share, n); return err }
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"NaN in a grid", discard(Landscape(bad, LandscapeOptions{})), "landscape: grid: value at (0.5, -0.16666666666666663): NaN, want a finite number"},
		{"no grid", discard(Landscape(Grid{}, LandscapeOptions{})), "grid: 0×0 points, want at least 2×2"},
		{"box", discard(Landscape(Grid{NX: 2, NY: 2, X1: nan, Y1: 1}, LandscapeOptions{})), "grid: box [0, NaN]×[0, 1], want finite and rising edges"},
		{"values", discard(Landscape(Grid{NX: 2, NY: 2, X1: 1, Y1: 1}, LandscapeOptions{})), "grid: 0 values, want 2×2"},
		{"negative density", discard(Landscape(negative, LandscapeOptions{})), "density -1, want at least 0"},
		{"overlay", discard(Landscape(ok, LandscapeOptions{Points: []float64{1, 2, inf, 4}})), "points: point 1, coordinate 0: +Inf"},
		{"depth", discard(Landscape(ok, LandscapeOptions{Depth: -1})), "depth: -1"},
		{"density of a bad grid", density(bad), "density: grid: value at"},
		{"around nothing", around(nil, 0, 5), "grid: points: empty"},
		{"around with no resolution", around([]float64{1, 2}, nan, 1), "resolution 1, share NaN"},
		{"no samples", discard(SamplesAgainstData([]float64{1, 2}, nil, SamplesOptions{})), "samples: empty, want points [n, 2]"},
		{"odd data", discard(SamplesAgainstData([]float64{1, 2, 3}, []float64{1, 2}, SamplesOptions{})), "data: 3 numbers, want points [n, 2]"},
		{"falling box", discard(SamplesAgainstData([]float64{1, 2}, []float64{1, 2}, SamplesOptions{Box: [4]float64{1, 0, 0, 1}})), "box: edges 1 and 0"},
		{"no panels", discard(Curves(CurvesOptions{})), "no panels"},
		{"no series", discard(Curves(CurvesOptions{}, Panel{Title: "loss"})), "panel 0 (loss): no series"},
		{"NaN in a curve", discard(Curves(CurvesOptions{}, Panel{Series: []Series{line}})), `series "a": at x = 2: NaN, want a finite value`},
		{"x falls", discard(Curves(CurvesOptions{}, Panel{Series: []Series{{Name: "a", X: []float64{2, 1}, Y: []float64{1, 1}}}})), `series "a": x[1] = 1, want finite, rising values`},
		{"lengths", discard(Curves(CurvesOptions{}, Panel{Series: []Series{{Name: "a", X: []float64{2}}}})), `series "a": 1 x and 0 y`},
		{"log of 0", discard(Curves(CurvesOptions{}, Panel{LogY: true, Series: []Series{{Name: "a", X: []float64{1}, Y: []float64{0}}}})), "above 0 on a logarithmic axis"},
		{"level", discard(Curves(CurvesOptions{}, Panel{Levels: []Level{{"b", inf}}, Series: []Series{{X: []float64{1}, Y: []float64{0}}}})), `level "b": +Inf`},
		{"no sheets", discard(SampleSheet(SheetOptions{Height: 1, Width: 1})), "no sheets"},
		{"no size", discard(SampleSheet(SheetOptions{}, Sheet{"data", []float64{1}})), "images 0×0"},
		{"cut image", discard(SampleSheet(SheetOptions{Height: 2, Width: 2}, Sheet{"data", []float64{1}})), "data: 1 numbers, want images of 2×2"},
		{"NaN in an image", discard(SampleSheet(SheetOptions{Height: 2, Width: 2}, Sheet{"data", []float64{1, 1, 1, 1, 1, 1, nan, 1}})), "data: image 1, row 1, column 0: NaN"},
		{"no frames", FormingGIF(io.Discard, nil, FormingOptions{}), "no frames"},
		{"bad frame", FormingGIF(io.Discard, []Frame{{Grid: ok}, {Grid: bad}}, FormingOptions{}), "frame 1: grid: value at"},
		{"boxes", FormingGIF(io.Discard, []Frame{{Grid: ok}, {Grid: other}}, FormingOptions{}), "frame 1: grid: box [0, 2]×[0, 1], want that of the first frame"},
		{"bad samples", FormingGIF(io.Discard, []Frame{{Grid: ok, Samples: []float64{nan, 1}}}, FormingOptions{}), "frame 0: samples: point 0, coordinate 0: NaN"},
		{"nameless report", WriteReport(io.Discard, ReportData{}), "report: no name"},
		{"not a picture", WriteReport(io.Discard, ReportData{Name: "a", Figures: []ReportFigure{{Title: "f", File: []byte("BM")}}}), "figure 0 (f): 2 bytes that are neither a PNG nor a GIF"},
	} {
		if tc.err == nil || !strings.Contains(tc.err.Error(), tc.want) || !strings.HasPrefix(tc.err.Error(), "plots: ") {
			t.Errorf("%s: %v, want %s", tc.name, tc.err, tc.want)
		}
	}
}
