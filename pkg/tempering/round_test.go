package tempering

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestRoundThroughJSON(t *testing.T) {
	nan := math.NaN()
	unknown := healthyRound()
	unknown.TripRate, unknown.SwapP99, unknown.LogZ.BridgeErr, unknown.LogZ.Rungs[2] = nan, nan, nan, nan
	unknown.Rejections[1], unknown.Up[2], unknown.RHat["norm"] = nan, nan, nan
	apart := healthyRound() // ladders that stand still, each elsewhere
	apart.RHat["energy"], apart.LogZ.Reverse = math.Inf(1), math.Inf(-1)
	for name, want := range map[string]*Round{"healthy": healthyRound(), "with unknown numbers": unknown, "with infinite numbers": apart, "empty": {}} {
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Round
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, &got, cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if was, is := want.Verdict(), got.Verdict(); was != is {
			t.Errorf("%s: verdict %q once it is read, was %q", name, is, was)
		}
		again, err := json.Marshal([]Round{got})
		if err != nil || string(again) != "["+string(text)+"]" {
			t.Errorf("%s: written again as a value: %s, %v, want %s", name, again, err, text)
		}
		for _, key := range regexp.MustCompile(`"([^"]*)":`).FindAllStringSubmatch(string(text), -1) {
			if !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(key[1]) {
				t.Errorf("key %q, want snake case", key[1])
			}
		}
	}
	text, _ := json.Marshal(unknown)
	for _, want := range []string{`{"number":7,"kind":"measure",`, `"rejections":[0.287,null,0.3,0.3,0.298]`, `"trip_rate":null`, `"bridge_err":null`, `"norm":null`, `"index":[[0,1,2,3,4,5],`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s\nwant %s in it", text, want)
		}
	}
	z, err := json.Marshal(LogZ{Bridge: 1, ForwardK: math.Inf(1)})
	if err != nil || !strings.HasPrefix(string(z), `{"bridge":1,`) || !strings.Contains(string(z), `"forward_k":"inf"`) {
		t.Errorf("log Z alone: %s, %v", z, err)
	}
	var got LogZ
	if err := json.Unmarshal(z, &got); err != nil || got.Bridge != 1 || !math.IsInf(got.ForwardK, 1) {
		t.Errorf("log Z read back: %+v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`{"bridge":"x"}`), &got); err == nil {
		t.Error("log Z of a word: no error")
	}
}

func TestYieldOfRound(t *testing.T) {
	if name, samples, second, gradient := healthyRound().Yield(); name != "norm" || samples != 8200 || second != 8200/12.5 || gradient != 8200./800_000 {
		t.Errorf("%g effective samples of %s, %g a second, %g a gradient", samples, name, second, gradient)
	}
	if name, samples, second, gradient := (&Round{Seconds: 1, Gradients: 1}).Yield(); name != "" || !math.IsNaN(samples+second+gradient) {
		t.Errorf("%g effective samples of %q, %g a second, %g a gradient, want none", samples, name, second, gradient)
	}
}

func TestRowOfRound(t *testing.T) {
	r := healthyRound()
	if len(r.Header()) != len(r.Row()) {
		t.Fatalf("%d columns, %d cells", len(r.Header()), len(r.Row()))
	}
	r.Rejections = []float64{0.25, 0.31, 0.25, 0.31, 0.26}
	want := []string{"2000", "4896", "0.94", "1.54", "6/5", "0.69/0.72", "-0.443 -0.441 -0.330", "0.55/0.57", "0.31", "0.0063", "0.021"}
	if diff := cmp.Diff(want, r.Row()); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	unknown := &Round{Betas: []float64{1}}
	if diff := cmp.Diff([]string{"0", "0", "–", "0.00", "1/0", "–", "–", "–", "–", "–", "0"}, unknown.Row()); diff != "" {
		t.Errorf("row of an empty round (-want +got):\n%s", diff)
	}
}

// A border takes one character left of the table and three a column.
func TestTableOfRoundsFitsAPage(t *testing.T) {
	large := healthyRound()
	large.Scans, large.Restarts, large.Barrier, large.BarrierLowerBound, large.SuggestedRungs = 131072, 12345678, 150.25, true, 302
	large.LogZ = &LogZ{Forward: -12345.678, Bridge: -12345.123, BridgeErr: 0.25, Reverse: -12344.987}
	large.Seconds = 131072 * 12.345
	rows := [][]string{large.Header(), healthyRound().Row(), large.Row()}
	total := 1
	for column := range rows[0] {
		widest := 0
		for _, row := range rows {
			widest = max(widest, utf8.RuneCountInString(row[column]))
		}
		total += widest + 3
	}
	if total > 120 {
		t.Errorf("%d characters, want at most 120:\n%v", total, rows)
	}
}

func ExampleRound_Verdict() {
	r := Round{Kind: "measure", Scans: 2000, Ladders: 16, ChainSteps: 5, Betas: []float64{0, 0.2, 1}, Rejections: []float64{0.4, 0.96}, Attempts: 16000,
		Barrier: 1.9, Restarts: 212, TripRate: 0.0063, PredictedTripRate: 0.02, RHat: map[string]float64{"energy": 1.003}}
	fmt.Println(r.Verdict())
	for _, f := range r.Findings() {
		fmt.Println(f.Level, f.Text)
	}
	// Output:
	// mixes, with 3 warnings: 212 restarts, R̂ 1.003; exploration too short, 32 % of the round trips that the swap acceptance allows; do: raise sampler.steps above 5
	// warn exploration too short, 32 % of the round trips that the swap acceptance allows: raise sampler.steps above 5
	// warn rungs 1–2 accept 4 %: add 2 rungs
	// warn uneven ladder, rungs 1–2 accept 4 % and rungs 0–1 60 %: adapt it longer
}
