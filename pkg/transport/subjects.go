package transport

import "fmt"

// Token is a name that may stand between two dots of a subject: 1 to 64 letters, digits, dashes and underscores.
type Token struct{ s string }

// ParseToken checks a name. Dots and wildcards are refused: they would reach other subjects.
func ParseToken(s string) (Token, error) {
	ok := len(s) >= 1 && len(s) <= 64
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
	}
	if !ok {
		return Token{}, fmt.Errorf("transport: name %q, want 1 to 64 letters, digits, dashes and underscores", s)
	}
	return Token{s}, nil
}

// String is the name.
func (t Token) String() string { return t.s }

// Subjects are the addresses of one experiment, by its name or id.
type Subjects struct{ Experiment Token }

// Exchange is where a replica answers other replicas: energies, and chunks of what it gives.
func (s Subjects) Exchange(replica Token) string { return s.at("rep." + replica.s + ".x") }

// Control is where a replica answers the coordinator.
func (s Subjects) Control(replica Token) string { return s.at("rep." + replica.s + ".ctl") }

// Registrations is where the leader answers REGISTER and LEAVE.
func (s Subjects) Registrations() string { return s.at("co.reg") }

// Heartbeats is where the leader answers HB.
func (s Subjects) Heartbeats() string { return s.at("co.hb") }

// Contributions is where the leader takes CONTRIB, and gives the parameters of a round.
func (s Subjects) Contributions() string { return s.at("co.contrib") }

// Generations, Thetas and Leaders are where news is broadcast. It may get lost: heartbeats repeat it.
func (s Subjects) Generations() string { return s.at("ev.generation") }
func (s Subjects) Thetas() string      { return s.at("ev.theta") }
func (s Subjects) Leaders() string     { return s.at("ev.leader") }

// Inbox is the prefix of the subjects on which a replica gets answers, see [Options].
func (s Subjects) Inbox(replica Token) string {
	return "_INBOX_" + s.Experiment.s + "_" + replica.s
}

func (s Subjects) at(rest string) string { return "kelvin." + s.Experiment.s + "." + rest }
