package local

import (
	"math"
	"strings"
	"testing"
)

// Two samples of eight ladders are one scan, which tries every other pair.
func TestSharesThatDoNotExist(t *testing.T) {
	t.Parallel()
	ev := &Evaluation{SwapAccept: Shares{0.984, math.NaN(), 0.6}}
	text, err := ev.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(strings.Fields(string(text)), ""), `"swap_accept":[0.984,null,0.6],"explorer_accept":null`; !strings.Contains(got, want) {
		t.Errorf("%s, want it to hold %s", got, want)
	}
	if got, want := ev.SwapAccept.String(), "98 – 60 %"; got != want {
		t.Errorf("in words %q, want %q", got, want)
	}
}
