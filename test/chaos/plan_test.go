package chaos

import (
	"slices"
	"testing"
	"time"
)

func TestAPlanIsItsSeeds(t *testing.T) {
	most := 30 * time.Second
	one, same, other := Plan(5, Everything, 200, most), Plan(5, Everything, 200, most), Plan(6, Everything, 200, most)
	if !slices.Equal(one, same) {
		t.Error("two plans of one seed differ")
	}
	if slices.Equal(one, other) {
		t.Error("the plans of two seeds are equal")
	}
}

func TestAPlanDealsItsDeck(t *testing.T) {
	total := 0
	for _, times := range Everything {
		total += times
	}
	most := 7 * time.Second
	times := Deck{}
	for _, f := range Plan(1, Everything, 2*total, most) {
		times[f.Kind]++
		if f.Hold < 0 || f.Hold >= most || f.Gap < 1 {
			t.Errorf("%s: want a hold below %v", f, most)
		}
		if (f.Link != Link{}) != (f.Kind == Delay || f.Kind == Narrow) {
			t.Errorf("%s with the link %+v", f, f.Link)
		}
	}
	for _, kind := range kinds {
		if times[kind] != 2*Everything[kind] || times[kind] == 0 {
			t.Errorf("%s comes %d times in two decks, want twice %d", kind, times[kind], Everything[kind])
		}
	}
	if len(times) != len(kinds) {
		t.Errorf("%d kinds were drawn, reports have %d", len(times), len(kinds))
	}
}
