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

// Subjects are the addresses of one experiment.
type Subjects struct{ Experiment Token }

// SubjectsOf are the addresses of an experiment by its number, of which the name is the hexadecimal form. A server gives
// users these subjects and no others, see [ServerOptions].
func SubjectsOf(experiment uint64) Subjects {
	return Subjects{Token{fmt.Sprintf("%016x", experiment)}}
}

// Exchange is where a replica answers other replicas: chunks of what it gives.
func (s Subjects) Exchange(replica Token) string { return s.at("rep." + replica.s + ".x") }

// Control is where a replica answers the coordinator.
func (s Subjects) Control(replica Token) string { return s.at("rep." + replica.s + ".ctl") }

// Registrations is where the leader answers REGISTER and LEAVE.
func (s Subjects) Registrations() string { return s.at("co.reg") }

// Heartbeats is where the leader answers HB.
func (s Subjects) Heartbeats() string { return s.at("co.hb") }

// Contributions is where whoever leads gives what is the same from every leader, such as the experiment.
func (s Subjects) Contributions() string { return s.at("co.contrib") }

// Gives is where one coordinator, by its name, gives what a command brings. Another that takes itself for the leader still
// cannot answer there.
func (s Subjects) Gives(leader Token) string { return s.at("co." + leader.s + ".give") }

func (s Subjects) at(rest string) string { return "kelvin." + s.Experiment.s + "." + rest }

// all are all addresses of the experiment.
func (s Subjects) all() string { return s.at(">") }

// inbox is the prefix of the subjects on which members of the experiment get answers, a member's own behind a dot.
func (s Subjects) inbox() string { return "_INBOX_" + s.Experiment.s }
