package replica

import (
	"errors"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

func TestSequence(t *testing.T) {
	var s Sequence
	for i, tc := range []struct {
		what       string
		generation uint64
		cmd        Command
		want       string
	}{
		{"nothing before the first generation", 1, Command{Seq: 1, Op: Run}, "stale"},
		{"a generation", 1, Command{Seq: 2, Op: Open}, "taken"},
		{"the same again", 1, Command{Seq: 2, Op: Open}, "repeated"},
		{"the next", 1, Command{Seq: 3, Op: Start}, "taken"},
		{"one that came late", 1, Command{Seq: 2, Op: Open}, "stale"},
		{"one of a generation to come", 2, Command{Seq: 4, Op: Run}, "stale"},
		{"another leader counts from 1", 2, Command{Seq: 1, Op: Open}, "taken"},
		{"its next", 2, Command{Seq: 2, Op: Restore}, "taken"},
		{"the leader before, with a higher number", 1, Command{Seq: 9, Op: Run}, "stale"},
		{"it opens again what was open", 1, Command{Seq: 10, Op: Open}, "stale"},
	} {
		repeated, err := s.Take(tc.generation, tc.cmd)
		got := "taken"
		if _, stale := errors.AsType[*transport.StaleError](err); stale {
			got = "stale"
		} else if repeated {
			got = "repeated"
		}
		if got != tc.want {
			t.Errorf("%d, %s: %s, want %s", i, tc.what, got, tc.want)
		}
	}
}
