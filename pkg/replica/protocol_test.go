package replica

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

func TestAnswersKeepTheirNumbers(t *testing.T) {
	answer := Answer{Groups: []GroupAnswer{{Group: 1, Bulk: true,
		Reports: []engine.Report{{Step: 3, Loss: 0.1 + 0.2, Drift: []float64{math.Inf(1), 0.1}, Parts: []engine.Score{{Name: "energy_data", Value: -1}}}},
		Facts:   &Facts{Stats: tempering.Stats{Pairs: []tempering.PairStats{{Attempts: 2, Accepted: 1, AlphaSum: 0.3}}}, Exploration: []float64{math.NaN()}}}},
		Failed: &Failure{Text: "x", NonFinite: &engine.NonFiniteError{Step: 4, Place: "loss", Value: math.NaN()}}}
	got, err := Decode[Answer](Encode(answer))
	if err != nil {
		t.Fatal(err)
	}
	// In print NaN equals itself.
	if a, b := fmt.Sprintf("%x %v", got.Groups[0].Reports, got.Groups[0].Facts), fmt.Sprintf("%x %v", answer.Groups[0].Reports, answer.Groups[0].Facts); a != b {
		t.Errorf("read back %s, want %s", a, b)
	}
	if f := got.Failed; f.NonFinite.Step != 4 || !math.IsNaN(f.NonFinite.Value) {
		t.Errorf("failure %+v", f.NonFinite)
	}
	if _, err := Decode[Command]([]byte{1, 2, 3}); !errors.Is(err, transport.ErrMalformed) {
		t.Errorf("error %v, want a malformed message", err)
	}
}

func someCut() checkpoint.Cut {
	return checkpoint.Cut{Step: 7, Meta: []byte(`{"seed":1}`), Files: map[string][]checkpoint.Tensor{
		"params": {{Name: "w", Shape: []int{2, 1}, Data: []float32{1, 2}}},
		"chains": {{Name: "labels", Shape: []int{3}, Data: []int32{2, 0, 1}}, {Name: "scans", Shape: []int{0}, Data: []uint64{}}},
	}}
}

func TestCutsTravelWhole(t *testing.T) {
	cut := someCut()
	data, err := EncodeCut(cut)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeCut(data)
	if err != nil {
		t.Fatal(err)
	}
	want, err := cut.Sum()
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := got.Sum(); err != nil || sum != want {
		t.Errorf("digest %s, %v of the cut that arrived, want %s", sum, err, want)
	}
	if _, err := DecodeCut(append(data, 0)); !errors.Is(err, transport.ErrMalformed) {
		t.Errorf("a byte too many: error %v", err)
	}
	for n := range data {
		if _, err := DecodeCut(data[:n]); err == nil {
			t.Fatalf("%d of %d bytes were taken for a cut", n, len(data))
		}
	}
}

func FuzzDecodeCut(f *testing.F) {
	data, err := EncodeCut(someCut())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if cut, err := DecodeCut(data); err == nil {
			again, err := EncodeCut(*cut)
			if err != nil {
				return // names that safetensors would not write
			}
			if _, err := DecodeCut(again); err != nil {
				t.Errorf("written again it cannot be read: %v", err)
			}
		}
	})
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(Encode(Command{Seq: 1, Op: Open, Holders: []string{"a", "b"}}))
	f.Add(Encode(Command{Seq: 9, Op: Update, Bulk: true, Refused: []int{1}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		cmd, err := Decode[Command](data)
		if err != nil && !errors.Is(err, transport.ErrMalformed) {
			t.Errorf("error %v, want a malformed message", err)
		}
		_ = cmd.Op.String()
	})
}

func TestNumbers(t *testing.T) {
	want := []float32{1, float32(math.Inf(-1)), 0}
	got, err := Numbers[float32](Bytes(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if _, err := Numbers[float64](make([]byte, 12)); !errors.Is(err, transport.ErrMalformed) {
		t.Errorf("error %v", err)
	}
	if !bytes.Equal(Bytes([]float64{}), []byte{}) {
		t.Error("nothing is something")
	}
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("any"), 1}, {fmt.Errorf("a: %w", ErrConfig), 42}, {ErrIncompatible, 43}, {ErrTemporary, 75}, {ErrPreempted, 143},
	} {
		if got := ExitCode(tc.err); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestTokensOpenOnePlace(t *testing.T) {
	a, b := Meet("a"), Meet("b")
	if a != Meet("a") || a.Experiment == b.Experiment || a.Subjects == b.Subjects {
		t.Errorf("places %v and %v", a, b)
	}
}
