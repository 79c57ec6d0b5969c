package engine

import (
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
)

func TestCount(t *testing.T) {
	cut := func(labels []int32, lineage []uint32) *checkpoint.Cut {
		return &checkpoint.Cut{Step: 4, Meta: []byte(`{"rungs": 3}`), Files: map[string][]checkpoint.Tensor{
			"chains": {vector("labels", labels), vector("lineage", lineage)},
		}}
	}
	for _, tc := range []struct {
		name string
		cut  *checkpoint.Cut
		want Census
	}{
		{"two ladders of three rungs", cut([]int32{2, 0, 0, 1, 1, 2}, []uint32{5, 0, 0, 1, 0, 0}), Census{2, 3, 6, 12, 6, 6}},
		{"a label twice, another lost", cut([]int32{2, 0, 2, 1, 1, 2}, make([]uint32, 6)), Census{2, 3, 4, 6, 0, 6}},
		{"a label that no ladder has", cut([]int32{7, 0, 0, 1, 1, 2}, make([]uint32, 6)), Census{2, 3, 5, 6, 0, 5}},
		{"a single rung", &checkpoint.Cut{Meta: []byte(`{"rungs": 1}`), Files: map[string][]checkpoint.Tensor{"chains": {vector("column_start", make([]uint64, 4))}}},
			Census{4, 1, 4, 4, 0, 4}},
		{"no chains", &checkpoint.Cut{Meta: []byte(`{}`), Files: map[string][]checkpoint.Tensor{"params": nil}}, Census{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Count(tc.cut)
			if err != nil || got != tc.want {
				t.Errorf("%+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
	if _, err := Count(cut([]int32{0, 1}, make([]uint32, 2))); err == nil {
		t.Error("2 labels for 3 rungs were counted")
	}
}
