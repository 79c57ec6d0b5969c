package runlog

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func record(step int) Record {
	r := Record{Step: step, Seconds: float64(step) / 100}
	r.Set("loss", 0.25+1/float64(step))
	r.Set("energy_data", -1.5e-7)
	r.Set("restarts", 12)
	r.SetList("swap_accept", []float64{0.5, 0.25, 1})
	return r
}

func create(t *testing.T, dir string, steps ...int) {
	t.Helper()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		if err := w.Write(record(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil {
		t.Fatal(err)
	}
}

func metrics(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestRecordsKeepTheirOrderAndReadBack(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, 1, 4)
	want := `{"step":1,"seconds":0.010,"loss":1.25,"energy_data":-1.5e-07,"restarts":12,"swap_accept":[0.5,0.25,1]}
{"step":4,"seconds":0.040,"loss":0.5,"energy_data":-1.5e-07,"restarts":12,"swap_accept":[0.5,0.25,1]}
`
	if got := metrics(t, dir); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	records, err := ReadMetrics(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Record{record(1), record(4)}, records); diff != "" {
		t.Error(diff)
	}
	steps, losses := Series(records, "loss")
	if !cmp.Equal(steps, []float64{1, 4}) || !cmp.Equal(losses, []float64{1.25, 0.5}) {
		t.Error("loss", steps, losses)
	}
	pairSteps, pairs := ListSeries(records, "swap_accept")
	if len(pairs) != 3 || !cmp.Equal(pairs[1], []float64{0.25, 0.25}) || !cmp.Equal(pairSteps[2], []float64{1, 4}) {
		t.Error("swap_accept", pairSteps, pairs)
	}
	if _, ok := records[0].Number("swap_accept"); ok {
		t.Error("a list reads as a number")
	}
	if _, ok := records[0].List("loss"); ok {
		t.Error("a number reads as a list")
	}
}

func TestNumbersReadBackToTheLastBit(t *testing.T) {
	for _, x := range []float64{0, 1, -1, 0.1, 1e15, 123456789012345678, math.MaxFloat64, math.SmallestNonzeroFloat64, -math.Pi, 1e21} {
		r, err := parseLine(bytes.TrimSpace(appendLine(nil, Record{Step: 3, Values: []Value{{Key: "x", Number: x}, {Key: "l", List: []float64{x}}}})))
		if err != nil {
			t.Fatal(x, err)
		}
		if got, _ := r.Number("x"); got != x {
			t.Errorf("%g became %g", x, got)
		}
		if got, _ := r.List("l"); len(got) != 1 || got[0] != x {
			t.Errorf("[%g] became %g", x, got)
		}
	}
}

func TestRecordsThatJSONCannotHoldAreRefused(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Write(record(5)); err != nil {
		t.Fatal(err)
	}
	before := metrics(t, dir)
	for _, tc := range []struct {
		name   string
		record Record
		want   []string
	}{
		{"NaN", Record{Step: 7, Values: []Value{{Key: "loss", Number: math.NaN()}}}, []string{"step 7: loss: NaN, want a finite number"}},
		{"Inf in a list", Record{Step: 7, Values: []Value{{Key: "swap_accept", List: []float64{0, math.Inf(1)}}}}, []string{"step 7: swap_accept[1]: +Inf"}},
		{"several", Record{Step: 7, Seconds: math.NaN(), Values: []Value{{Key: "a", Number: math.Inf(-1)}}}, []string{"step 7: seconds: NaN", "step 7: a: -Inf"}},
		{"key", Record{Step: 7, Values: []Value{{Key: "Loss mean"}}}, []string{`step 7: key "Loss mean", want snake_case`}},
		{"empty key", Record{Step: 7, Values: []Value{{}}}, []string{`key ""`}},
		{"reserved key", Record{Step: 7, Values: []Value{{Key: "step"}}}, []string{`key "step" is there twice`}},
		{"twice", Record{Step: 7, Values: []Value{{Key: "a"}, {Key: "a"}}}, []string{`key "a" is there twice`}},
		{"step again", record(5), []string{"step 5 after step 5"}},
		{"negative step", Record{Step: -1}, []string{"step: -1, want at least 0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := w.Write(tc.record)
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
		})
	}
	if after := metrics(t, dir); after != before {
		t.Errorf("a refused record left %q", after)
	}
}

func TestAnExistingMetricsFileIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, 1)
	if _, err := Create(dir); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if _, err := Create(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if got := strings.Count(metrics(t, dir), "\n"); got != 1 {
		t.Error(got)
	}
}

func TestResumeCutsWhatComesAgain(t *testing.T) {
	whole := func(steps ...int) string {
		var b []byte
		for _, s := range steps {
			b = appendLine(b, record(s))
		}
		return string(b)
	}
	for _, tc := range []struct {
		name, file string
		step       int
		want       Recovered
		kept       []int
	}{
		{"nothing to cut", whole(1, 2, 3), 3, Recovered{}, []int{1, 2, 3}},
		{"later steps", whole(1, 2, 3, 4), 2, Recovered{Dropped: 2}, []int{1, 2}},
		{"torn line", whole(1, 2) + `{"step":3,"sec`, 2, Recovered{TornBytes: 14}, []int{1, 2}},
		{"torn line with a newline", whole(1, 2) + "\x00\x00\x00\n", 2, Recovered{TornBytes: 4}, []int{1, 2}},
		{"both", whole(1, 2, 3) + `{"ste`, 1, Recovered{TornBytes: 5, Dropped: 2}, []int{1}},
		{"empty", "", 2, Recovered{}, nil},
		{"from the start", whole(1, 2), 0, Recovered{Dropped: 2}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, MetricsFile), []byte(tc.file), 0o644); err != nil {
				t.Fatal(err)
			}
			w, err := Resume(dir, tc.step)
			if err != nil {
				t.Fatal(err)
			}
			if w.Recovered() != tc.want {
				t.Errorf("recovered %+v, want %+v", w.Recovered(), tc.want)
			}
			if (w.Recovered().String() == "") != (tc.want == Recovered{}) {
				t.Errorf("says %q", w.Recovered())
			}
			next := tc.step + 1
			if err := errors.Join(w.Write(record(next)), w.Close()); err != nil {
				t.Fatal(err)
			}
			if got, want := metrics(t, dir), whole(append(tc.kept, next)...); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestResumeWithoutAFileStartsOne(t *testing.T) {
	dir := t.TempDir()
	w, err := Resume(dir, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Write(record(11)), w.Close()); err != nil {
		t.Fatal(err)
	}
	if records, err := ReadMetrics(dir); err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
}

func TestADamagedFileIsReportedAndLeftAlone(t *testing.T) {
	good := string(appendLine(nil, record(1)))
	for _, tc := range []struct{ name, file, want string }{
		{"damage in the middle", good + "{\"step\":2,\n" + string(appendLine(nil, record(3))), "metrics.jsonl: line 2: the line ends too early"},
		{"text for a number", "{\"step\":1,\"loss\":\"low\"}\n" + good, `line 1: loss: "low", want a number or a list of numbers`},
		{"null", "{\"step\":1,\"loss\":null}\n" + good, `line 1: loss: null, want a number`},
		{"no step", "{\"loss\":1}\n" + good, "line 1: no step"},
		{"not an object", "[]\n" + good, "line 1: [, want an object"},
		{"two objects", "{\"step\":1} {}\n" + good, "line 1: more than one object"},
		{"steps out of order", string(appendLine(nil, record(3))) + good, "step 1 after step 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, MetricsFile), []byte(tc.file), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Resume(dir, 9); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if metrics(t, dir) != tc.file {
				t.Error("the file changed")
			}
			if events, _ := filepath.Glob(filepath.Join(dir, eventsPrefix+"*")); len(events) > 0 {
				t.Error("left", events)
			}
		})
	}
}

func TestAFailedWriteNamesTheStep(t *testing.T) {
	w, err := Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := w.Write(record(3)); err == nil || !strings.Contains(err.Error(), "step 3") {
		t.Error(err)
	}
}

func TestAReaderOfAGrowingFileSeesWholeRecords(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, 1, 2)
	f, err := os.OpenFile(filepath.Join(dir, MetricsFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"step":3,"los`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	records, err := ReadMetrics(dir)
	if err != nil || len(records) != 2 {
		t.Fatal(records, err)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"step":1,"seconds":0.5,"loss":1e-3,"swap_accept":[0.1,0.2]}`))
	f.Add([]byte(`{"step":1`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseLine(line)
		if err != nil || r.check() != nil {
			return
		}
		again, err := parseLine(bytes.TrimSuffix(appendLine(nil, r), []byte("\n")))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		again.Seconds = r.Seconds // written in milliseconds
		if diff := cmp.Diff(r, again); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRunInfoSurvivesWritingAndReading(t *testing.T) {
	dir := t.TempDir()
	want := RunInfo{
		Name: "two-moons", Version: "v0.1.0", Command: []string{"coordinator", "train", "a&b<c>.yaml"}, Digest: "ab12", Seed: math.MaxUint64,
		Backend: "xla:cpu", Fingerprint: "avx512, 2 threads", Replicas: 1, Steps: 40, StepsWanted: 100, Seconds: 1.5,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	if err := want.SetExtra("nll", map[string]float64{"value": 0.3}); err != nil {
		t.Fatal(err)
	}
	if err := WriteRunInfo(dir, want); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, RunInfoFile))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "run.json", data)
	got, err := ReadRunInfo(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Extra) != 1 || len(got.Extra["nll"]) == 0 {
		t.Errorf("extra %s", got.Extra)
	}
	got.Extra, want.Extra = nil, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRunInfoReportsFaults(t *testing.T) {
	dir := t.TempDir()
	var r RunInfo
	if err := r.SetExtra("nll", math.NaN()); err == nil || !strings.Contains(err.Error(), "nll") {
		t.Error(err)
	}
	if err := r.SetExtra("seed", 1); err != nil {
		t.Fatal(err)
	}
	if err := WriteRunInfo(dir, r); err == nil || !strings.Contains(err.Error(), `"seed"`) {
		t.Error(err)
	}
	if err := WriteRunInfo(dir, RunInfo{Seconds: math.Inf(1)}); err == nil {
		t.Error("an infinite time was written")
	}
	if _, err := ReadRunInfo(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, RunInfoFile), []byte(`{"name": 3}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRunInfo(dir); err == nil || !strings.Contains(err.Error(), RunInfoFile) {
		t.Error(err)
	}
}
