package averaging_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
)

// TestBF16RoundsToNearestEven has the float32 and the expected upper half as bits.
func TestBF16RoundsToNearestEven(t *testing.T) {
	for _, tc := range []struct {
		name string
		bits uint32
		want uint16
	}{
		{"one", 0x3f800000, 0x3f80},
		{"below the middle", 0x3f807fff, 0x3f80},
		{"tie to the even one below", 0x3f808000, 0x3f80},
		{"above the middle", 0x3f808001, 0x3f81},
		{"tie to the even one above", 0x3f818000, 0x3f82},
		{"negative tie", 0xbf818000, 0xbf82},
		{"carry into the exponent", 0x3fffffff, 0x4000},
		{"zero", 0, 0},
		{"negative zero", 0x80000000, 0x8000},
		{"smallest subnormal, rounds to zero", 1, 0},
		{"tie of zero and the smallest subnormal", 0x00008000, 0},
		{"subnormal", 0x00018000, 2},
		{"subnormal that becomes normal", 0x007fffff, 0x0080},
		{"largest of bf16", 0x7f7f0000, 0x7f7f},
		{"just rounds down to it", 0x7f7f7fff, 0x7f7f},
		{"tie with infinity", 0x7f7f8000, 0x7f80},
		{"largest of float32", 0x7f7fffff, 0x7f80},
		{"infinity", 0x7f800000, 0x7f80},
		{"negative infinity", 0xff800000, 0xff80},
		{"NaN", 0x7fc00000, 0x7fc0},
		{"NaN whose mark is cut off", 0x7f800001, 0x7fc0},
		{"NaN that rounding would carry over", 0xffffffff, 0xffff},
	} {
		x := []float32{math.Float32frombits(tc.bits)}
		v := encoder(t, "bf16", 1).Encode(x)
		if got := binary.LittleEndian.Uint16(v.Bytes()); got != tc.want {
			t.Errorf("%s: %#08x → %#04x, want %#04x", tc.name, tc.bits, got, tc.want)
		}
		back := decoded(v)[0]
		if bits := math.Float32bits(back); back == back && bits != uint32(tc.want)<<16 {
			t.Errorf("%s: read back as %#08x", tc.name, bits)
		}
		if (back != back) != (x[0] != x[0]) {
			t.Errorf("%s: %g read back as %g", tc.name, x[0], back)
		}
	}
}

func TestFP32IsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.SliceOfN(rapid.Uint32(), 0, 20).Draw(t, "bits")
		x := make([]float32, len(bits))
		for i, u := range bits {
			x[i] = math.Float32frombits(u)
		}
		v := encoder(t, "fp32", len(x)).Encode(x)
		for i, got := range decoded(v) {
			if u := math.Float32bits(got); u != bits[i] || binary.LittleEndian.Uint32(v.Bytes()[4*i:]) != bits[i] {
				t.Fatalf("%#08x read back as %#08x", bits[i], u)
			}
		}
	})
}

func TestInt8Layout(t *testing.T) {
	x := make([]float32, 258)
	x[0], x[1], x[2], x[3], x[4] = 127, -126.4, 0.5, 1.5, -0.2 // scale 1: q = x rounded, ties to even
	x[256], x[257] = -254, 100                                 // scale 2
	e := encoder(t, "int8", len(x))
	v := e.Encode(x)
	want := make([]byte, 2*4+258)
	binary.LittleEndian.PutUint32(want, math.Float32bits(1))
	copy(want[4:], []byte{127, 0x82, 0, 2, 0})
	binary.LittleEndian.PutUint32(want[260:], math.Float32bits(2))
	copy(want[264:], []byte{0x81, 50})
	if !bytes.Equal(v.Bytes(), want) {
		t.Errorf("bytes %x\nwant %x", v.Bytes(), want)
	}
	residual := e.Residual()
	for i, want := range map[int]float32{0: 0, 1: -0.4, 2: 0.5, 3: -0.5, 4: -0.2, 256: 0, 257: 0} {
		if math.Abs(float64(residual[i]-want)) > 1e-5 {
			t.Errorf("residual %d: %g, want %g", i, residual[i], want)
		}
	}
	for i, want := range map[int]float32{0: 127, 1: -126, 2: 0, 3: 2, 4: 0, 5: 0, 256: -254, 257: 100} {
		if got := decoded(v)[i]; got != want {
			t.Errorf("element %d read back as %g, want %g", i, got, want)
		}
	}
}

// TestInt8LosesHalfAStepAndKeepsIt: each element is off by half of its block's step at most, up to the rounding of the
// division, and what it is off by is the residual.
func TestInt8LosesHalfAStepAndKeepsIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scale := math.Ldexp(1, rapid.IntRange(-100, 100).Draw(t, "exponent"))
		x := rapid.SliceOfN(rapid.Float32Range(-1, 1), 1, 600).Draw(t, "x")
		for i := range x {
			x[i] *= float32(scale)
		}
		e := encoder(t, "int8", len(x))
		got := decoded(e.Encode(x))
		residual := e.Residual()
		for from := 0; from < len(x); from += 256 {
			to := min(from+256, len(x))
			var top float64
			for _, f := range x[from:to] {
				top = max(top, math.Abs(float64(f)))
			}
			half := top / 127 / 2
			if 2*half < 0x1p-126 {
				half = top // no normal number is the step: all zeros
			}
			for i := from; i < to; i++ {
				lost := float64(x[i]) - float64(got[i])
				if math.Abs(lost) > half*(1+1e-4) {
					t.Fatalf("element %d: %g read back as %g, off by more than half a step %g", i, x[i], got[i], half)
				}
				if math.Abs(lost-float64(residual[i])) > 0x1p-23*half {
					t.Fatalf("element %d: %g lost, residual %g", i, lost, residual[i])
				}
			}
		}
	})
}

// TestErrorFeedbackLosesNothingOverTheRounds: what was decoded adds up to what was given, but for the last residual. Each
// round may round value + residual once, 2⁻²⁴ of numbers below 2.
func TestErrorFeedbackLosesNothingOverTheRounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const rounds = 30
		n := rapid.IntRange(1, 300).Draw(t, "n")
		e := encoder(t, "int8", n)
		given, received := make([]float64, n), make([]float64, n)
		stream := rapid.Uint64().Draw(t, "stream")
		for r := range rounds {
			x := normals(n, stream+uint64(r))
			for i := range x {
				x[i] = min(max(x[i]/4, -1), 1)
				given[i] += float64(x[i])
			}
			for i, f := range decoded(e.Encode(x)) {
				received[i] += float64(f)
			}
		}
		for i, r := range e.Residual() {
			if math.Abs(given[i]-received[i]-float64(r)) > rounds*0x1p-23 {
				t.Fatalf("element %d: given %g, received %g, residual %g", i, given[i], received[i], r)
			}
			if math.Abs(float64(r)) > 1.01/127/2 {
				t.Fatalf("residual %d: %g, want at most half a step", i, r)
			}
		}
	})
}

// TestErrorFeedbackMovesSmallElements: beside a 1 the step is 1/127, and a 0.001 alone would always be sent as 0.
func TestErrorFeedbackMovesSmallElements(t *testing.T) {
	e := encoder(t, "int8", 2)
	var sum float64
	for range 1000 {
		sum += float64(decoded(e.Encode([]float32{1, 0.001}))[1])
	}
	if math.Abs(sum-1) > 0.5/127+1e-4 {
		t.Errorf("1000 times 0.001 gave %g, want 1 within half a step", sum)
	}
}

func TestInt8OfNumbersWithoutAScale(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, bad := range map[string]float32{"NaN": nan, "Inf": inf, "−Inf": -inf, "overflow with the residual": math.MaxFloat32} {
		e := encoder(t, "int8", 300)
		before := make([]float32, 300)
		before[2], before[7], before[299] = 0.25, 3e38, 0.5
		if err := e.Restore(before); err != nil {
			t.Fatal(err)
		}
		x := make([]float32, 300)
		x[7] = bad
		got := decoded(e.Encode(x))
		residual := e.Residual()
		if got[0] == got[0] || got[255] == got[255] || got[256] != 0 || got[299] != 0.5 {
			t.Errorf("%s: read back as %g … %g, %g … %g, want NaN in the first block, 0 … 0.5 in the second", name, got[0], got[255], got[256], got[299])
		}
		if residual[2] != 0.25 || residual[7] != 3e38 || residual[299] != 0 {
			t.Errorf("%s: residual %g, %g and %g, want that of the first block as it was, none in the second", name, residual[2], residual[7], residual[299])
		}
	}
	e := encoder(t, "int8", 1)
	const tiny = 0x1p-140
	if got := decoded(e.Encode([]float32{tiny}))[0]; got != 0 || e.Residual()[0] != tiny {
		t.Errorf("a subnormal read back as %g with residual %g, want it in the residual", got, e.Residual()[0])
	}
	if got := decoded(e.Encode([]float32{1}))[0]; got != 1 {
		t.Errorf("1 read back as %g", got)
	}
	top := []float32{math.MaxFloat32, -math.MaxFloat32}
	if got := decoded(encoder(t, "int8", 2).Encode(top)); math.Abs(float64(got[0])/math.MaxFloat32-1) > 1e-6 || got[1] != -got[0] {
		t.Errorf("%g read back as %g", top, got)
	}
}

func TestEncoderRestore(t *testing.T) {
	e := encoder(t, "int8", 2)
	e.Encode([]float32{1, 0.3})
	for name, bad := range map[string][]float32{"length": {1}, "NaN": {0, float32(math.NaN())}} {
		if err := e.Restore(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := e.Restore(nil); err != nil || e.Residual()[1] != 0 {
		t.Errorf("without a residual: %v, residual %g, want zeros", err, e.Residual())
	}
	exact := encoder(t, "fp32", 2)
	if err := exact.Restore([]float32{1, 2}); err == nil {
		t.Error("residual of fp32: no error")
	}
	if exact.Residual() != nil {
		t.Error("fp32 has a residual, want none")
	}
	if _, err := averaging.NewEncoder("fp64", 1); err == nil {
		t.Error("fp64: no error")
	}
}

func TestParseRefuses(t *testing.T) {
	block := func(scale uint32, q ...byte) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, scale), q...)
	}
	for _, tc := range []struct {
		name, format string
		n            int
		data         []byte
		want         string
	}{
		{"unknown format", "fp8", 1, []byte{1}, "format"},
		{"negative length", "fp32", -1, nil, "-1 elements"},
		{"length that overflows", "fp32", math.MaxInt, nil, "elements"},
		{"fp32 too short", "fp32", 2, make([]byte, 7), "7 bytes, want 8"},
		{"bf16 too long", "bf16", 2, make([]byte, 5), "5 bytes, want 4"},
		{"int8 without its second scale", "int8", 257, make([]byte, 4+257), "261 bytes, want 265"},
		{"infinite scale", "int8", 1, block(0x7f800000, 1), "scale +Inf"},
		{"negative scale", "int8", 1, block(0xbf800000, 1), "scale -1"},
		{"negative zero", "int8", 1, block(0x80000000, 0), "scale -0"},
		{"subnormal scale", "int8", 1, block(1, 1), "scale 1e-45"},
		{"another NaN", "int8", 1, block(0x7fc00001, 0), "scale NaN"},
		{"elements under NaN", "int8", 1, block(0x7fc00000, 1), "under the scale NaN"},
		{"elements under 0", "int8", 1, block(0, 1), "under the scale 0"},
		{"−128", "int8", 2, block(0x3f800000, 127, 0x80), "element 1 is -128"},
	} {
		if _, err := averaging.Parse(tc.format, tc.n, tc.data); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// FuzzParse reads any bytes: what is taken decodes, and an encoder of the same numbers writes the same bytes under the
// formats that have one encoding a number.
func FuzzParse(f *testing.F) {
	for i, format := range averaging.Formats {
		v := encoder(f, format, 300).Encode(normals(300, 1))
		f.Add(uint8(i), 300, v.Bytes())
		f.Add(uint8(i), 0, []byte{})
	}
	nan := make([]float32, 257)
	nan[0] = float32(math.NaN())
	f.Add(uint8(2), 257, encoder(f, "int8", 257).Encode(nan).Bytes())
	f.Fuzz(func(t *testing.T, which uint8, n int, data []byte) {
		format := averaging.Formats[int(which)%len(averaging.Formats)]
		v, err := averaging.Parse(format, n, data)
		if err != nil {
			return
		}
		if v.Len() != n || v.Format() != format || !bytes.Equal(v.Bytes(), data) {
			t.Fatalf("%d elements of %s in %d bytes, want what was given", v.Len(), v.Format(), len(v.Bytes()))
		}
		x := decoded(v)
		again := encoder(t, format, n).Encode(x)
		if _, err := averaging.Parse(format, n, again.Bytes()); err != nil {
			t.Fatalf("written again: %v", err)
		}
		if format == "fp32" && !bytes.Equal(again.Bytes(), data) {
			t.Fatal("fp32 written again has other bytes")
		}
		for i, y := range decoded(again) {
			if format == "bf16" && y != x[i] && (y == y || x[i] == x[i]) {
				t.Fatalf("element %d: %g written again is %g", i, x[i], y)
			}
		}
	})
}
