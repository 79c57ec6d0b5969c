package runlog

import (
	"fmt"
	"math"
	"strings"
)

// Traffic is what the exchange between replicas costs.
type Traffic struct {
	BytesPerScan float64 // received from other replicas
	WaitShare    float64 // of the time, spent waiting for what others send; in [0, 1]
}

func (t Traffic) parts() []string {
	return []string{formatBytes(t.BytesPerScan) + "/scan", fmt.Sprintf("wait %.0f %%", 100*t.WaitShare)}
}

// Replica is what the progress shows of one of several replicas.
type Replica struct {
	ID      string
	Shards  []int    // that it holds, ascending; without any it stands by
	Steps   int      // that it has had a part in
	Gone    bool     // it was lost, or leaves
	GoneAt  int      // step at which that was seen
	Traffic *Traffic // of late; nil while it is not known
}

// work says what a replica is there for: "shards 0-2", "stands by", "gone at step 450".
func (r Replica) work() string {
	switch {
	case r.Gone:
		return fmt.Sprintf("gone at step %d", r.GoneAt)
	case len(r.Shards) == 0:
		return "stands by"
	case len(r.Shards) == 1:
		return fmt.Sprintf("shard %d", r.Shards[0])
	}
	return "shards " + formatRanges(r.Shards)
}

// busy says whether there is traffic to show.
func (r Replica) busy() bool { return !r.Gone && len(r.Shards) > 0 && r.Traffic != nil }

// Round is what the progress shows of the steps that a metrics record sums up, in a training by several replicas.
type Round struct {
	Status
	Barrier    float64 // Λ over them, with SwapAccept alone; NaN where a pair was never tried
	LowerBound bool    // Λ is at least Barrier: some pair swapped too seldom to say more
	Trips      uint64  // round trips since the training started; with SwapAccept alone
	Traffic    *Traffic
}

// added are the words that a round has beside those of a status.
func (r Round) added() []string {
	var parts []string
	if len(r.SwapAccept) > 0 {
		parts = append(parts, r.barrier(), fmt.Sprintf("trips %d", r.Trips))
	}
	if r.Traffic != nil {
		parts = append(parts, r.Traffic.parts()...)
	}
	return parts
}

func (r Round) barrier() string {
	switch {
	case math.IsNaN(r.Barrier):
		return "Λ –"
	case r.LowerBound:
		return fmt.Sprintf("Λ ≥ %.2f", r.Barrier)
	}
	return fmt.Sprintf("Λ %.2f", r.Barrier)
}

// line is a round in one line. If that is wider than a terminal it says the same in fewer words, and then leaves out the
// loss, which the bar shows too.
func (r Round) line(step, total, width int) string {
	line := func(stepFormat, swapFormat string, loss bool) string {
		parts := []string{fmt.Sprintf(stepFormat, len(fmt.Sprint(total)), step)}
		if len(r.SwapAccept) > 0 {
			least, mean := leastAndMean(r.SwapAccept)
			parts = append(parts, r.barrier(), fmt.Sprintf(swapFormat, least, mean), fmt.Sprintf("trips %d", r.Trips))
		}
		if loss {
			parts = append(parts, "loss "+formatLoss(r.Loss))
		}
		if r.Traffic != nil {
			parts = append(parts, r.Traffic.parts()...)
		}
		return strings.Join(parts, "  ")
	}
	text := line("step %*d", swapFormat, true)
	if columns(text) > width {
		text = line("%*d", "swap %.2f/%.2f", true)
	}
	if columns(text) > width {
		text = line("%*d", "swap %.2f/%.2f", false)
	}
	return text
}

// replicasLine is all replicas in one line, for a log.
func replicasLine(replicas []Replica) string {
	var parts []string
	for _, r := range replicas {
		words := []string{r.ID + ": " + r.work()}
		if r.busy() {
			words = append(words, r.Traffic.parts()...)
		}
		parts = append(parts, strings.Join(words, ", "))
	}
	return "replicas  " + strings.Join(parts, "; ")
}

// formatRanges writes ascending numbers as 0-2,5.
func formatRanges(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		end := i
		for end+1 < len(numbers) && numbers[end+1] == numbers[end]+1 {
			end++
		}
		part := fmt.Sprint(numbers[i])
		if end > i {
			part = fmt.Sprintf("%d-%d", numbers[i], numbers[end])
		}
		parts = append(parts, part)
		i = end + 1
	}
	return strings.Join(parts, ",")
}

var byteUnits = []string{"B", "KiB", "MiB", "GiB", "TiB"}

func formatBytes(bytes float64) string {
	unit := 0
	for bytes >= 1024 && unit < len(byteUnits)-1 {
		bytes /= 1024
		unit++
	}
	return fmt.Sprintf("%.*f %s", min(unit, 1), bytes, byteUnits[unit])
}

func columns(text string) int { return len([]rune(text)) }
