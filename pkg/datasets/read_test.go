package datasets

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestReadNPZReadsWhatWriteNPZWrote(t *testing.T) {
	var file bytes.Buffer
	err := WriteNPZ(&file, []Array{
		{Name: "x", Shape: []int{2, 2}, Data: []float32{1, -2.5, 3, 1e-3}},
		{Name: "ages", Shape: []int{3}, Data: []int64{0, 7, 1 << 40}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.npz")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadNPZ(path)
	want := []Array{
		{Name: "ages", Shape: []int{3}, Data: []float64{0, 7, 1 << 40}},
		{Name: "x", Shape: []int{2, 2}, Data: []float64{1, -2.5, 3, float64(float32(1e-3))}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	short := path + ".short"
	if err := os.WriteFile(short, file.Bytes()[:file.Len()-20], 0o600); err != nil {
		t.Fatal(err)
	}
	for bad, want := range map[string]string{path + "x": "no such file", filepath.Dir(path): "not a file", short: "truncated"} {
		if _, err := ReadNPZ(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", bad, err, want)
		}
	}
}
