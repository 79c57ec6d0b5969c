package plots

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
)

// tempered is a ladder of k rungs that mixes evenly: every pair rejects 0.4, walkers go up and down without a rejection.
func tempered(k int) Tempering {
	t := Tempering{Name: "bump", Suggested: k, Barrier: 0.4 * float64(k-1)}
	for i := range k {
		share := float64(i) / float64(k-1)
		t.Betas = append(t.Betas, share*share*share)
		t.Up = append(t.Up, 1-share)
		t.Histograms = append(t.Histograms, EnergyHistogram{Lo: -share, Hi: 3 - share, Counts: []int{1, 4, 6, 4, 1, 0}})
	}
	for range k - 1 {
		t.Rejections, t.Overlap = append(t.Rejections, 0.4), append(t.Overlap, 0.7)
	}
	for i := range 101 {
		b := float64(i) / 100
		t.GridBeta = append(t.GridBeta, b)
		t.GridLambda = append(t.GridLambda, t.Barrier/2/math.Sqrt(max(b, 1e-4)))
		t.GridBarrier = append(t.GridBarrier, t.Barrier*math.Sqrt(b))
	}
	for i := range 6 {
		r := TemperingRound{Scan: 1 << (i + 4), Betas: t.Betas, TripRate: 0.09, Predicted: 0.1, Bound: 0.2, Restarts: 10}
		if i == 0 {
			r.TripRate = math.NaN()
		}
		t.Rounds = append(t.Rounds, r)
	}
	for s := range 40 * k {
		row := make([]int32, min(k, 16))
		for w := range row {
			at := (s + w) % (2 * k)
			row[w] = int32(min(at, 2*k-1-at))
		}
		t.Index = append(t.Index, row)
	}
	return t
}

func svgOf(t *testing.T, f *Figure, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	svg, err := f.SVG(Light)
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, svg)
	if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) {
		t.Error("a coordinate is not finite")
	}
	return string(svg)
}

func TestTemperingPicturesSayWhatTheyShow(t *testing.T) {
	mixes := tempered(6)
	nan := math.NaN()
	for _, tc := range []struct {
		name   string
		change func(*Tempering)
		draw   func(Tempering) (*Figure, error)
		want   []string
	}{
		{"an even ladder", func(*Tempering) {}, Tempering.LadderFigure, []string{"Neighbours swap evenly: 60 % accepted", "bump · 6 rungs · the barrier asks for 6", ">0.008<", ">0.60<", "mean 0.60", "ladder of each round"}},
		{"a pair that hardly swaps", func(t *Tempering) { t.Rejections[2] = 0.997 }, Tempering.LadderFigure, []string{"Swaps between rungs 2–3 are rare: 0.3 % accepted", ">0.00<"}},
		{"uneven swaps", func(t *Tempering) { t.Rejections[0], t.Rejections[4] = 0.1, 0.8 }, Tempering.LadderFigure, []string{"Uneven swaps: 20 % at rungs 4–5, 90 % at rungs 0–1"}},
		{"pairs not tried", func(t *Tempering) { t.Rejections = []float64{nan, 0.3, nan, nan, nan} }, Tempering.LadderFigure, []string{"70 % of the swaps between rungs 1–2 are accepted", ">–<"}},
		{"a ladder that grew", func(t *Tempering) { t.Rounds[0].Betas = []float64{0, 0.1, 1} }, Tempering.LadderFigure, []string{"ladder of each round"}},
		{"a barrier", func(*Tempering) {}, Tempering.BarrierFigure, []string{"Barrier Λ = 2.00, half of it below β = 0.25", "local barrier λ(β)"}},
		{"a lower bound", func(t *Tempering) { t.LowerBound = true }, Tempering.BarrierFigure, []string{"Barrier Λ ≥ 2.00", "a lower bound: some pair rejected every swap"}},
		{"no barrier", func(t *Tempering) {
			t.Barrier, t.GridLambda, t.GridBarrier = 0, make([]float64, 101), make([]float64, 101)
		}, Tempering.BarrierFigure, []string{"Barrier Λ = 0.00<"}},
		{"round trips", func(*Tempering) {}, Tempering.TripsFigure, []string{"Round trips at 90 % of the rate that swaps allow", "restarts of the target so far: 60", "predicted", "bound", "round 6 of 6"}},
		{"too little exploration", func(t *Tempering) { t.Rounds[5].TripRate = 0.03 }, Tempering.TripsFigure, []string{"at 30 % of", "below half: exploration forgets too little"}},
		{"a rate without a prediction", func(t *Tempering) { t.Rounds[5].Predicted = nan }, Tempering.TripsFigure, []string{"0.09 round trips a scan and ladder"}},
		{"one short round", func(t *Tempering) { t.Rounds = t.Rounds[:1] }, Tempering.TripsFigure, []string{"No round was long enough for a round trip"}},
		{"an even flow", func(*Tempering) {}, Tempering.UpFigure, []string{"without a bottleneck", "ideal"}},
		{"a cliff", func(t *Tempering) { t.Up = []float64{1, 0.95, 0.9, 0.1, 0.05, 0} }, Tempering.UpFigure, []string{"A bottleneck between rungs 2 and 3: a drop of 0.80"}},
		{"rungs out of reach", func(t *Tempering) { t.Up[3] = nan }, Tempering.UpFigure, []string{"No walker from either end has reached rung 3"}},
		// Walker 0 comes 20 times; the others are on their way from no rung 0 yet when they first reach the target, and come 19 times.
		{"walkers", func(*Tempering) {}, Tempering.IndexFigure, []string{"Walkers came from rung 0 to the target 115 times in 240 scans", "6 walkers · 6 rungs", "rung 5, the target"}},
		{"walkers by every tenth scan", func(t *Tempering) { t.IndexStride = 10 }, Tempering.IndexFigure, []string{"in 2,391 scans", "every 10th scan"}},
		{"a walker that stands still", func(t *Tempering) {
			for _, row := range t.Index {
				row[4] = 2
			}
		}, Tempering.IndexFigure, []string{"1 of 6 walkers stood on one rung for more than 60 scans"}},
		{"walkers that never cross", func(t *Tempering) { t.Index = t.Index[:4] }, Tempering.IndexFigure, []string{"No walker came from rung 0 to the target in 4 scans"}},
		{"energies", func(*Tempering) {}, Tempering.EnergiesFigure, []string{"Energies of neighbours overlap, least on rungs 0 and 1: 0.70", "energy (nats)", ">0.216<", ">overlap<"}},
		{"energies apart", func(t *Tempering) { t.Overlap[1], t.EnergyName = 0.02, "V" }, Tempering.EnergiesFigure, []string{"Energies of rungs 1 and 2 hardly overlap: 0.02", ">V<"}},
		{"energies alone", func(t *Tempering) { t.Overlap, t.Betas = nil, nil }, Tempering.EnergiesFigure, []string{"Energies on every rung"}},
		{"a hot rung that reaches far", func(t *Tempering) { t.Histograms[0].Hi = 3000 }, Tempering.EnergiesFigure, []string{"100 % beyond"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data := tempered(6)
			tc.change(&data)
			f, err := tc.draw(data)
			svg := svgOf(t, f, err)
			for _, want := range tc.want {
				if !strings.Contains(svg, want) {
					t.Errorf("the figure lacks %q", want)
				}
			}
		})
	}
	f, err := mixes.LadderFigure()
	first := svgOf(t, f, err)
	f, err = tempered(6).LadderFigure()
	if first != svgOf(t, f, err) {
		t.Error("the same data gave two pictures")
	}
}

func TestTemperingDrawsShortAndLongLadders(t *testing.T) {
	for _, k := range []int{2, 3, 17, 64} {
		s, err := tempered(k).Section()
		if err != nil {
			t.Fatal(err)
		}
		var files []string
		for _, f := range s.Figures {
			svg := svgOf(t, f.Figure, nil)
			if len(svg) > 400_000 {
				t.Errorf("%d rungs: %s: %d bytes", k, f.Title, len(svg))
			}
			files = append(files, f.Title)
		}
		want := []string{"ladder.png", "barrier.png", "trips.png", "updown.png", "energies.png", "index.png"}
		if k == 2 {
			want = slices.Delete(want, 3, 4) // both rungs turn every walker: nothing to see
		}
		if !slices.Equal(files, want) {
			t.Errorf("%d rungs: %v, want %v", k, files, want)
		}
		if rows := s.Tables[0].Rows; len(rows) != k || rows[k-1][2] != "–" || rows[0][2] != "0.600" {
			t.Errorf("%d rungs: table %v", k, rows)
		}
	}
	s, err := Tempering{Name: "nothing"}.Section()
	if err != nil || len(s.Figures)+len(s.Tables) != 0 {
		t.Errorf("no data: %d figures, %v", len(s.Figures), err)
	}
}

func TestReportHasSections(t *testing.T) {
	s, err := Tempering{Betas: []float64{0, 1}, Rejections: []float64{0.5}}.Section()
	if err != nil {
		t.Fatal(err)
	}
	s.Verdict, s.Notes = "Mixes.", []string{"rungs 0–1 accept < 60 %"}
	var out bytes.Buffer
	if err := WriteReport(&out, ReportData{Name: "a", Sections: []Section{s}}); err != nil {
		t.Fatal(err)
	}
	wellFormed(t, out.Bytes())
	for _, want := range []string{"<h2>Tempering</h2>", "Mixes.", "accept &lt; 60 %", `<th scope="col">β</th>`, "<td>0.500</td>", "ladder.png"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(out.String(), "<h2>Figures</h2>") {
		t.Error("the page has a section of figures with none in it")
	}
	s.Tables[0].Rows[1] = []string{"1"}
	if err := WriteReport(&out, ReportData{Name: "a", Sections: []Section{s}}); err == nil || !strings.Contains(err.Error(), "row 1: 1 cells, want 3") {
		t.Error(err)
	}
	s.Figures[0].Figure = nil
	if err := WriteReport(&out, ReportData{Name: "a", Sections: []Section{s}}); err == nil || !strings.Contains(err.Error(), "section Tempering: figure 0 (ladder.png)") {
		t.Error(err)
	}
}

func TestBetaScaleGivesEveryRungItsPlace(t *testing.T) {
	even := newBetaScale([]float64{0, 0.3, 0.6, 1})
	if even != (betaScale{}) || even.Normalize(0, 1, 0.3) != 0.3 {
		t.Errorf("%+v for an even ladder", even)
	}
	// Four steps by ln β: the stretch from 0 to 1e-4 is as long as one of them.
	hot := newBetaScale([]float64{0, 1e-4, 1e-3, 1e-2, 1e-1, 1})
	for i, b := range []float64{0, 1e-4, 1e-3, 1e-2, 1e-1, 1} {
		if got := hot.Normalize(0, 1, b); math.Abs(got-float64(i)/5) > 1e-12 {
			t.Errorf("β %g at %g, want %g", b, got, float64(i)/5)
		}
		if got := hot.beta(hot.at(b)); math.Abs(got-b) > 1e-15 {
			t.Errorf("β %g came back as %g", b, got)
		}
	}
	var labels []string
	for _, tick := range hot.Ticks(-1e-5, 1.2) {
		if tick.Label != "" {
			labels = append(labels, tick.Label)
		}
	}
	if got := strings.Join(labels, " "); got != "0 0.0001 0.001 0.01 0.1 1" {
		t.Error("ticks", got)
	}
}

func TestTemperingFaultsAreNamed(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, tc := range []struct {
		name   string
		change func(*Tempering)
		draw   func(Tempering) (*Figure, error)
		want   string
	}{
		{"no β", func(t *Tempering) { t.Betas = nil }, Tempering.LadderFigure, "ladder: betas: 0, want at least 2 rungs"},
		{"falling β", func(t *Tempering) { t.Betas[2] = 0 }, Tempering.LadderFigure, "betas[2]: 0 after"},
		{"negative β", func(t *Tempering) { t.Betas[0] = -1 }, Tempering.LadderFigure, "betas[0]: -1, want at least 0"},
		{"no rejections", func(t *Tempering) { t.Rejections = nil }, Tempering.LadderFigure, "rejections: 0, want 5"},
		{"no swap tried", func(t *Tempering) { t.Rejections = slices.Repeat([]float64{nan}, 5) }, Tempering.LadderFigure, "rejections: all NaN"},
		{"rejection", func(t *Tempering) { t.Rejections[1] = 1.5 }, Tempering.LadderFigure, "rejections[1]: 1.5, want a share from 0 to 1"},
		{"a round's ladder", func(t *Tempering) { t.Rounds[1].Betas = []float64{0, nan} }, Tempering.LadderFigure, "rounds[1].betas[1]: NaN"},
		{"no grid", func(t *Tempering) { t.GridBeta = nil }, Tempering.BarrierFigure, "barrier: grid β: 0, want at least 2"},
		{"λ", func(t *Tempering) { t.GridLambda[3] = -1 }, Tempering.BarrierFigure, "λ[3]: -1, want at least 0"},
		{"Λ(β)", func(t *Tempering) { t.GridBarrier[3] = inf }, Tempering.BarrierFigure, "Λ[3]: +Inf"},
		{"Λ(β) missing", func(t *Tempering) { t.GridBarrier = nil }, Tempering.BarrierFigure, "grid: 101 β, 101 λ and 0 Λ"},
		{"Λ", func(t *Tempering) { t.Barrier = nan }, Tempering.BarrierFigure, "barrier: NaN, want a finite number"},
		{"no rounds", func(t *Tempering) { t.Rounds = nil }, Tempering.TripsFigure, "trips: rounds: none"},
		{"order of rounds", func(t *Tempering) { t.Rounds[2].Scan = 16 }, Tempering.TripsFigure, "rounds[2].scan: 16, want"},
		{"rate", func(t *Tempering) { t.Rounds[2].TripRate = inf }, Tempering.TripsFigure, "rounds[2]: trip rate: +Inf"},
		{"restarts", func(t *Tempering) { t.Rounds[2].Restarts = -1 }, Tempering.TripsFigure, "rounds[2]: restarts: -1"},
		{"no walkers", func(t *Tempering) { t.Up = nil }, Tempering.UpFigure, "up: shares: 0, want 2"},
		{"walkers of another ladder", func(t *Tempering) { t.Up = t.Up[:3] }, Tempering.UpFigure, "up: shares: 3, want one for each of 6 rungs"},
		{"no index", func(t *Tempering) { t.Index = nil }, Tempering.IndexFigure, "index: 0 rows, want at least 2"},
		{"ragged index", func(t *Tempering) { t.Index[3] = t.Index[3][:2] }, Tempering.IndexFigure, "index[3]: 2 walkers, want 6"},
		{"rung", func(t *Tempering) { t.Index[3][1] = 6 }, Tempering.IndexFigure, "index[3][1]: rung 6, want one of 6"},
		{"stride", func(t *Tempering) { t.IndexStride = -1 }, Tempering.IndexFigure, "index stride: -1"},
		{"histograms", func(t *Tempering) { t.Histograms = t.Histograms[:3] }, Tempering.EnergiesFigure, "energies: histograms: 3, want one for each of 6 rungs"},
		{"empty histogram", func(t *Tempering) { t.Histograms[1].Counts = nil }, Tempering.EnergiesFigure, "histograms[1]: counts: none"},
		{"edges", func(t *Tempering) { t.Histograms[1].Lo = inf }, Tempering.EnergiesFigure, "histograms[1]: edges[0]: +Inf"},
		{"counts", func(t *Tempering) { t.Histograms[1].Counts[2] = -1 }, Tempering.EnergiesFigure, "histograms[1]: counts[2]: -1"},
		{"overlap", func(t *Tempering) { t.Overlap = t.Overlap[:2] }, Tempering.EnergiesFigure, "overlap: 2, want 5"},
		{"a section of them", func(t *Tempering) { t.Overlap, t.Barrier = t.Overlap[:2], nan }, func(t Tempering) (*Figure, error) { _, err := t.Section(); return nil, err }, "overlap: 2, want 5"},
	} {
		data := tempered(6)
		tc.change(&data)
		_, err := tc.draw(data)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "plots: ") {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
}
