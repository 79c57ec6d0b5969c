package plots

import (
	"image/color"
	"math"
)

// Theme holds the colours of a figure.
type Theme struct {
	Background, Foreground, Muted, Grid color.NRGBA
	Data, Model                         color.NRGBA   // data and model samples, wherever they meet
	Series                              []color.NRGBA // of curves, in their order
	// OrderedFrom and OrderedTo are the lightness of the first and the last of ordered series.
	OrderedFrom, OrderedTo float64
}

// Light and Dark are the themes: for paper, and for screens that are set to dark.
var (
	Light = Theme{
		Background: rgb(0xffffff), Foreground: rgb(0x1c2230), Muted: rgb(0x667085), Grid: rgb(0xe6e8ee),
		Data: rgb(0x2563a8), Model: rgb(0xd9591c),
		Series:      []color.NRGBA{rgb(0x2563a8), rgb(0xd9591c), rgb(0x1d8a5f), rgb(0x8450b5), rgb(0xb8860b), rgb(0xc2335a), rgb(0x1b91a8), rgb(0x6b7280)},
		OrderedFrom: 0.78, OrderedTo: 0.30,
	}
	Dark = Theme{
		Background: rgb(0x15171d), Foreground: rgb(0xe7e9ef), Muted: rgb(0x98a1b3), Grid: rgb(0x2b303b),
		Data: rgb(0x6ab0f3), Model: rgb(0xff8a4c),
		Series:      []color.NRGBA{rgb(0x6ab0f3), rgb(0xff8a4c), rgb(0x4cc495), rgb(0xb992e6), rgb(0xe0b23f), rgb(0xf0708f), rgb(0x4fc3d9), rgb(0x9aa3b2)},
		OrderedFrom: 0.58, OrderedTo: 0.92,
	}
)

func rgb(hex uint32) color.NRGBA {
	return color.NRGBA{R: uint8(hex >> 16), G: uint8(hex >> 8), B: uint8(hex), A: 255}
}

func withAlpha(c color.NRGBA, alpha float64) color.NRGBA {
	c.A = uint8(math.Round(255 * alpha))
	return c
}

// Heat is the palette of densities and energies: from nearly black through violet, red and orange to pale yellow, as a
// glowing body gets hotter. Lightness rises in equal steps of OKLab (B. Ottosson, 2020), so that equal steps of the
// value look equal, in grey and to colour-blind readers too.
var Heat = heatPalette()

// Heat's path through OKLCH: the hue turns from violet (285°) over red (390° = 30°) to yellow (465° = 105°), the chroma
// is greatest in the middle, where the hues are strongest.
func heatPalette() (p [256]color.NRGBA) {
	for i := range p {
		t := float64(i) / 255
		hue := 282 + 180*math.Pow(t, 0.92)
		chroma := 0.035 + 0.165*math.Pow(math.Sin(math.Pi*math.Min(1, math.Pow(t, 0.85))), 0.9) + 0.035*t
		p[i] = oklch(0.13+0.84*t, chroma, hue)
	}
	return p
}

// orderedColor is the colour of the i-th of n ordered series, such as rungs: hot ones red, cold ones blue.
func (th Theme) orderedColor(i, n int) color.NRGBA {
	t := 1.0
	if n > 1 {
		t = float64(i) / float64(n-1)
	}
	l := th.OrderedFrom + (th.OrderedTo-th.OrderedFrom)*t
	return oklch(l, 0.16-0.05*t, 55-145*t)
}

// oklch turns lightness, chroma and hue (degrees) into a colour, with the chroma lowered as far as the screen's gamut
// asks for.
func oklch(l, chroma, hue float64) color.NRGBA {
	sin, cos := math.Sincos(hue * math.Pi / 180)
	lo, hi := 0.0, 1.0
	if _, ok := oklab(l, chroma*cos, chroma*sin); ok {
		lo = 1
	}
	for range 20 {
		if lo == 1 {
			break
		}
		mid := (lo + hi) / 2
		if _, ok := oklab(l, mid*chroma*cos, mid*chroma*sin); ok {
			lo = mid
		} else {
			hi = mid
		}
	}
	c, _ := oklab(l, lo*chroma*cos, lo*chroma*sin)
	return c
}

// oklab turns OKLab coordinates into sRGB and reports whether sRGB has the colour.
func oklab(l, a, b float64) (color.NRGBA, bool) {
	cube := func(x float64) float64 { return x * x * x }
	long := cube(l + 0.3963377774*a + 0.2158037573*b)
	medium := cube(l - 0.1055613458*a - 0.0638541728*b)
	short := cube(l - 0.0894841775*a - 1.2914855480*b)
	inside := true
	channel := func(x float64) uint8 {
		if x < -1e-4 || x > 1+1e-4 {
			inside = false
		}
		x = math.Min(1, math.Max(0, x))
		if x <= 0.0031308 {
			x *= 12.92
		} else {
			x = 1.055*math.Pow(x, 1/2.4) - 0.055
		}
		return uint8(math.Round(255 * x))
	}
	return color.NRGBA{
		R: channel(4.0767416621*long - 3.3077115913*medium + 0.2309699292*short),
		G: channel(-1.2684380046*long + 2.6097574011*medium - 0.3413193965*short),
		B: channel(-0.0041960863*long - 0.7034186147*medium + 1.7076147010*short),
		A: 255,
	}, inside
}
