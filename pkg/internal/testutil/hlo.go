package testutil

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var hloShape = regexp.MustCompile(`f32\[([0-9,]+)\]`)

// LargestArray is the largest number of float32 elements that an instruction of an HLO text names, inside fusions too, and
// that instruction. A sum of broadcast products gives itself away by an array of rows × in × out.
func LargestArray(t testing.TB, hlo string) (largest int, instruction string) {
	t.Helper()
	for line := range strings.SplitSeq(hlo, "\n") {
		for _, shape := range hloShape.FindAllStringSubmatch(line, -1) {
			n := 1
			for dim := range strings.SplitSeq(shape[1], ",") {
				d, err := strconv.Atoi(dim)
				if err != nil {
					t.Fatal(err)
				}
				n *= d
			}
			if n > largest {
				largest, instruction = n, strings.TrimSpace(line)
			}
		}
	}
	return largest, instruction
}
