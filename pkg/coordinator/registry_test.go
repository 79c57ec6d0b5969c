package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

func TestRegistry(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	r := newRegistry("", 5*time.Second)
	tokens := uint64(0)
	register := func(s float64, id string, incarnation uint64, platform string) (uint64, error) {
		who := transport.Register{Replica: id, Incarnation: incarnation, Platform: platform}
		token, err := r.claim(at(s), who)
		if token == 0 && err == nil {
			tokens++
			token = tokens
			r.admit(at(s), who, token)
		}
		return token, err
	}
	first, err := register(0, "10", 1, "go")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := register(1, "10", 1, "go"); again != first || err != nil {
		t.Errorf("registered twice: lease %d, %v, want %d again", again, err, first)
	}
	if _, err := register(2, "10", 2, "go"); !errors.Is(err, transport.ErrNotReady) {
		t.Errorf("a second living process of the id: %v, want it to wait", err)
	}
	if _, err := register(2, "9", 3, "xla"); !errors.Is(err, transport.ErrVersion) {
		t.Errorf("another platform: %v, want a refusal", err)
	}
	if _, err := register(2, "a.b", 3, "go"); err == nil {
		t.Error("an id with a dot was taken")
	}
	second, err := register(3, "9", 3, "go")
	if err != nil {
		t.Fatal(err)
	}
	if got := r.living(); !slices.Equal(got, []string{"9", "10"}) {
		t.Errorf("living: %v, want numbers in their order", got)
	}
	if lost := r.expire(at(5.9)); lost != nil {
		t.Errorf("expired: %v, want none: the first was heard of at 1 s", lost)
	}
	if _, err := r.beat(at(5.9), second); err != nil {
		t.Error(err)
	}
	if lost := r.expire(at(6)); len(lost) != 1 || lost[0].id != "10" || lost[0].token != first {
		t.Errorf("expired: %v, want 10", lost)
	}
	if _, err := r.beat(at(6), first); !errors.Is(err, transport.ErrStale) {
		t.Errorf("heartbeat of a lease that is over: %v", err)
	}
	if token, err := register(6, "10", 2, "go"); err != nil || token == first {
		t.Errorf("lease %d, %v, want a new one", token, err)
	}
	m, err := r.beat(at(7), second)
	if err != nil {
		t.Fatal(err)
	}
	if m.draining = true; !slices.Equal(r.living(), []string{"10"}) {
		t.Errorf("living: %v, want 10 alone, the other wants to leave", r.living())
	}
}

func TestPlaced(t *testing.T) {
	for _, tc := range []struct {
		name   string
		shards int
		ids    string
		before string
		want   string
	}{
		{"neighbours together", 6, "a b", "", "a a a b b b"},
		{"uneven", 5, "a b c", "", "a a b b c"},
		{"more replicas than shards", 2, "a b c", "", "a b"},
		{"nobody", 2, "", "", ""},
		{"a loss moves the lost shards alone", 6, "a c", "a a b b c c", "a a a c c c"},
		{"a stand-by takes over", 3, "a c d", "a b c", "a d c"},
		{"a newcomer takes the surplus", 4, "a b", "a a a a", "a a b b"},
		{"a newcomer without use stands by", 3, "a b c d", "a b c", "a b c"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before []string
			if tc.before != "" {
				before = strings.Fields(tc.before)
			}
			if got := strings.Join(placed(tc.shards, strings.Fields(tc.ids), before), " "); got != tc.want {
				t.Errorf("placed %q, want %q", got, tc.want)
			}
		})
	}
}

// Nobody ever holds more than his share, and who holds no more than that loses nothing.
func TestPlacedIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "shards")
		var holders []string
		for range 4 {
			var ids []string
			for id := range 8 {
				if rapid.Bool().Draw(t, "lives") || id == 7 && len(ids) == 0 {
					ids = append(ids, fmt.Sprint(id))
				}
			}
			next := placed(n, ids, holders)
			share := (n + len(ids) - 1) / len(ids)
			if got := heaviest(next); got > share {
				t.Fatalf("%v hold %v: somebody %d shards, want at most %d", ids, next, got, share)
			}
			for shard, id := range holders {
				held := 0
				for _, other := range holders {
					if other == id {
						held++
					}
				}
				if slices.Contains(ids, id) && held <= share && next[shard] != id {
					t.Fatalf("shard %d went from %s to %s, who could keep it", shard, id, next[shard])
				}
			}
			holders = next
		}
	})
}

func TestNextStop(t *testing.T) {
	for _, tc := range []struct {
		at, end          int
		intervals, marks []int
		want             int
	}{
		{0, 30, nil, nil, 30},
		{0, 30, []int{7, 0}, nil, 7},
		{7, 30, []int{7, 5}, nil, 10},
		{28, 30, []int{7, 5}, nil, 30},
		{8, 30, []int{10}, []int{8, 9}, 9},
	} {
		if got := nextStop(tc.at, tc.end, tc.intervals, tc.marks); got != tc.want {
			t.Errorf("from step %d to %d, every %v, marks %v: %d, want %d", tc.at, tc.end, tc.intervals, tc.marks, got, tc.want)
		}
	}
}
