package backend

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The kinds of backend, as [Config] names them and [Backend.Kind] returns them. Auto is never returned.
const (
	Auto = "auto"
	CUDA = "xla:cuda"
	CPU  = "xla:cpu"
	Go   = "go"
)

// Kinds lists the values of [Config.Kind], the fastest first after auto.
func Kinds() []string { return []string{Auto, CUDA, CPU, Go} }

// Config is the `backend` section of an experiment.
type Config struct {
	Kind    string `yaml:"kind" json:"kind"`       // auto, xla:cuda, xla:cpu or go
	Threads int    `yaml:"threads" json:"threads"` // size of XLA's CPU thread pool; part of a run's identity, since it changes bits
}

// DefaultConfig is used where an experiment says nothing.
func DefaultConfig() Config { return Config{Kind: Auto, Threads: 2} }

// maxThreads is far above what any machine gains from; a larger number is a slip of the pen.
const maxThreads = 1024

// Validate reports all faults, each by its YAML key.
func (c Config) Validate() error {
	var errs []error
	if !slices.Contains(Kinds(), c.Kind) {
		text := fmt.Sprintf("kind: %q, want one of %s", c.Kind, strings.Join(Kinds(), ", "))
		if near := nearest(c.Kind, Kinds()); near != "" {
			text += fmt.Sprintf(" (nearest: %s)", near)
		}
		errs = append(errs, errors.New(text))
	}
	if c.Threads < 1 || c.Threads > maxThreads {
		errs = append(errs, fmt.Errorf("threads: %d, want 1 to %d", c.Threads, maxThreads))
	}
	return errors.Join(errs...)
}

// nearest is the candidate that the word was probably meant to be, or "".
func nearest(word string, candidates []string) string {
	word = strings.ToLower(word)
	best, least := "", 3
	for _, c := range candidates {
		// "cuda", "cpu" and "xla-cpu" are meant as the backends that end so.
		if tail := c[strings.LastIndex(c, ":")+1:]; c != tail && strings.HasSuffix(word, tail) {
			return c
		}
		if d := distance(word, c); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, drop, change, or swap with their neighbour (optimal string alignment).
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := d[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			d[i][j] = min(change, d[i-1][j]+1, d[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
