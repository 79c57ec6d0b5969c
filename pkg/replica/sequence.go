package replica

import "github.com/kelvin-ebm/kelvin/pkg/transport"

// Sequence is the order in which a replica takes commands, however often and in whatever order they come: each once, and none
// of a generation that is over. The zero Sequence has taken none.
type Sequence struct{ generation, number uint64 }

// Take says whether a command is to be executed, behind the one before it. If it is the newest one again, repeated is true:
// its answer got lost. A command of another generation, or behind a newer one, is a *transport.StaleError; Open alone begins
// a generation, a newer one than the present, and with it the numbers of whoever leads now.
func (s *Sequence) Take(generation uint64, cmd Command) (repeated bool, err error) {
	switch {
	case cmd.Seq > 0 && cmd.Seq == s.number && generation == s.generation:
		return true, nil
	case cmd.Op == Open && generation <= s.generation, cmd.Op != Open && (generation != s.generation || cmd.Seq <= s.number):
		return false, &transport.StaleError{Message: generation, Current: s.generation}
	}
	s.generation, s.number = generation, cmd.Seq
	return false, nil
}
