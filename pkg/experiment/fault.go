package experiment

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Origin is where a key was set.
type Origin struct {
	File      string
	Line, Col int    // from 1, in characters; 0 where the fault is the file's as a whole
	Flag      string // the flag's text instead of a place in the file: --set a.b=c
	width     int    // characters of the key
}

// String is file:line:col, or the flag.
func (o Origin) String() string {
	switch {
	case o.Flag != "":
		return o.Flag
	case o.Line == 0:
		return o.File
	}
	return fmt.Sprintf("%s:%d:%d", o.File, o.Line, o.Col)
}

// Fault is one thing that is wrong with an experiment.
type Fault struct {
	At   Origin
	Path string // the key, such as sampler.step_size; empty where the fault is not about one
	Text string // what is wrong and what would be right
}

// Error is everything that is wrong with an experiment. It shows each fault with its line of the file and an arrow under
// the key.
type Error struct {
	File   string
	Faults []Fault
	lines  []string
}

// maxShown is the number of faults that Error shows; whoever has more reads the first ones anyway.
const maxShown = 40

func (e *Error) Error() string {
	var b strings.Builder
	if n := len(e.Faults); n > 1 {
		fmt.Fprintf(&b, "%s: %d faults\n", e.File, n)
	}
	for i, f := range e.Faults {
		if i == maxShown {
			fmt.Fprintf(&b, "… and %d more\n", len(e.Faults)-maxShown)
			break
		}
		fmt.Fprintf(&b, "%s: %s\n", printable(f.At.String()), printable(f.Text))
		if f.At.Flag == "" && f.At.Line >= 1 && f.At.Line <= len(e.lines) {
			excerpt(&b, f.At, e.lines[f.At.Line-1])
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// box puts a box in place of each character that a terminal could take for a command.
func box(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, text)
}

// printable is a text that fits in an error.
func printable(text string) string {
	const most = 800
	if runes := []rune(box(text)); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return box(text)
}

// excerpt writes the line and the arrow. Long lines are cut around the key.
func excerpt(b *strings.Builder, at Origin, line string) {
	const most, before = 110, 40
	runes := []rune(box(strings.ReplaceAll(line, "\t", " ")))
	col := min(at.Col-1, len(runes))
	width := max(1, min(at.width, len(runes)-col))
	head, tail := "", ""
	if len(runes) > most {
		if col > before {
			runes, col, head = runes[col-before:], before, "…"
		}
		if len(runes) > most {
			runes, tail = runes[:most], "…"
		}
		width = max(1, min(width, len(runes)-col))
	}
	fmt.Fprintf(b, "%5d | %s%s%s\n", at.Line, head, strings.TrimRight(string(runes), " "), tail)
	fmt.Fprintf(b, "      | %s%s\n", strings.Repeat(" ", col+len([]rune(head))), strings.Repeat("^", width))
}

// sortFaults puts the faults in the order of the file, the flags' last.
func sortFaults(faults []Fault) {
	slices.SortStableFunc(faults, func(a, b Fault) int {
		if (a.At.Flag != "") != (b.At.Flag != "") {
			if a.At.Flag != "" {
				return 1
			}
			return -1
		}
		if a.At.Line != b.At.Line {
			return a.At.Line - b.At.Line
		}
		return a.At.Col - b.At.Col
	})
}

// nearest is the candidate with the smallest edit distance from what was written, if any is near enough to be meant.
func nearest(written string, candidates []string) (string, bool) {
	folded := strings.ToLower(strings.ReplaceAll(written, "-", "_"))
	best, bestDistance := "", 1+max(1, min(3, len(folded)/3))
	for _, c := range candidates {
		if d := distance(folded, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best, best != ""
}

// distance counts the insertions, deletions, substitutions and swaps of neighbours that make a into b (the restricted
// Damerau–Levenshtein distance).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 64 || len(y) > 64 {
		return max(len(x), len(y))
	}
	d := make([][]int, len(x)+1)
	for i := range d {
		d[i] = make([]int, len(y)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			substitution := 1
			if x[i-1] == y[j-1] {
				substitution = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+substitution)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(x)][len(y)]
}
