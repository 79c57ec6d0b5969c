package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Book is where a [Fleet] writes what must outlive the process that leads it: leases, generations, cuts. It is safe for
// concurrent use.
type Book interface {
	// Past is what was written so far, Leases are those that stand.
	Past() (Past, error)
	Leases() ([]Lease, error)
	// Register writes down a lease and returns its token, a new number, or the one it has where the same process registers
	// again. It takes the place of any other process's lease of that id: who lives is the caller's to know.
	Register(transport.Register) (token uint64, err error)
	// End ends a lease, if the token is still its own.
	End(id string, token uint64, lost bool) error
	// Open begins a generation, from the cut of a step or, where there is none, from the start (from −1), and returns its
	// number, above all before. A *GoneError says that leases of holders are over.
	Open(holders []string, from int) (generation uint64, err error)
	// Commit begins to take a cut over.
	Commit(generation uint64, cut checkpoint.Cut) Commitment
}

// Commitment is a cut on its way into a [Book].
type Commitment interface {
	// Wait waits until the cut outlives any minority of the coordinators, and may be called again. A cut that breaks the
	// conservation laws is ErrInconsistent.
	Wait() error
	// Done says whether Wait returns at once.
	Done() bool
}

// Past is what a [Book] holds.
type Past struct {
	Generation uint64
	Holders    []string
	Cut        *checkpoint.Cut // the last; nil before the first
	Damaged    []error         // newer ones that are not whole any more
}

// Lease is the membership of a replica.
type Lease struct {
	transport.Register
	Token uint64
}

// Errors of a [Book], and of a [Fleet] that writes to one.
var (
	ErrDeposed      = errors.New("another coordinator leads now, or none")
	ErrInconsistent = errors.New("the cut breaks the conservation laws")
)

// GoneError says whose leases are over.
type GoneError struct{ Replicas []string }

func (e *GoneError) Error() string {
	return fmt.Sprintf("the lease of replica %s is over", strings.Join(e.Replicas, ", "))
}

// memory is a Book that ends with its process. The caller keeps the cuts.
type memory struct {
	mu                sync.Mutex
	token, generation uint64
	leases            map[string]Lease
}

func newMemory() *memory { return &memory{leases: map[string]Lease{}} }

// Past implements [Book].
func (m *memory) Past() (Past, error) { return Past{Generation: m.generation}, nil }

// Leases implements [Book].
func (m *memory) Leases() ([]Lease, error) { return nil, nil }

// Register implements [Book].
func (m *memory) Register(r transport.Register) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l, ok := m.leases[r.Replica]; ok && l.Incarnation == r.Incarnation {
		return l.Token, nil
	}
	m.token++
	m.leases[r.Replica] = Lease{r, m.token}
	return m.token, nil
}

// End implements [Book].
func (m *memory) End(id string, token uint64, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[id].Token == token {
		delete(m.leases, id)
	}
	return nil
}

// Open implements [Book].
func (m *memory) Open(holders []string, _ int) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gone := slices.DeleteFunc(slices.Clone(holders), func(id string) bool { return m.leases[id].Token != 0 })
	if len(gone) > 0 {
		return 0, &GoneError{gone}
	}
	m.generation++
	return m.generation, nil
}

// Commit implements [Book].
func (m *memory) Commit(uint64, checkpoint.Cut) Commitment { return kept{} }

// kept is a cut that the caller keeps.
type kept struct{}

func (kept) Wait() error { return nil }
func (kept) Done() bool  { return true }
