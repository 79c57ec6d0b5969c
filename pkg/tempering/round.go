package tempering

import (
	"fmt"
	"math"
	"strconv"
)

// Round is the summary of one round of scans of a fixed law: one ladder, one set of parameters and step sizes. It is
// what a run keeps of its tempering. Numbers that are not known are NaN, for which JSON has null; an infinite one is
// "inf" or "-inf" there. Both are read back.
type Round struct {
	Number     int    `json:"number"`
	Kind       string `json:"kind"` // adapt: the ladder moves after it; measure: ladder and step sizes are frozen
	Scans      int    `json:"scans"`
	Ladders    int    `json:"ladders"`
	ChainSteps int    `json:"chain_steps"` // steps of the explorer a scan
	Path       string `json:"path"`
	Schedule   string `json:"schedule"`
	Explorer   string `json:"explorer"`
	Reference  string `json:"reference"`

	Betas     []float64 `json:"betas"`      // [K]
	StepSizes []float64 `json:"step_sizes"` // [K]

	Rejections   []float64 `json:"rejections"`    // [K−1]
	Attempts     uint64    `json:"attempts"`      // of the pair that was tried least
	Accept       []float64 `json:"accept"`        // acceptance of the explorer, [K]; 1 on a rung of independent draws
	TargetAccept float64   `json:"target_accept"` // what the step sizes aim at; 0 for nothing
	RhoV         []float64 `json:"rho_v"`         // correlation of V before and after exploration, [K]
	Overlap      []float64 `json:"overlap"`       // of the energies of neighbours, [K−1], see [Record.Overlap]

	Restarts          uint64  `json:"restarts"` // over all ladders
	Trips             uint64  `json:"trips"`
	TripRate          float64 `json:"trip_rate"`           // round trips a scan and ladder
	PredictedTripRate float64 `json:"predicted_trip_rate"` // what the rejection rates allow
	TripRateBound     float64 `json:"trip_rate_bound"`     // 1/(2+2Λ): with many rungs

	Barrier           float64   `json:"barrier"` // Λ
	BarrierLowerBound bool      `json:"barrier_lower_bound"`
	RejectionSum      float64   `json:"rejection_sum"`
	SuggestedRungs    int       `json:"suggested_rungs"`
	LambdaAt          []float64 `json:"lambda_at"`      // a grid of β
	LambdaDensity     []float64 `json:"lambda_density"` // the local barrier λ there
	LambdaBarrier     []float64 `json:"lambda_barrier"` // Λ(β) there

	LogZ      *LogZ              `json:"log_z"`       // nil where it was not measured
	LogZFault string             `json:"log_z_fault"` // why it could not be, though it was asked for
	RHat      map[string]float64 `json:"r_hat"`       // split R̂ over the ladders on the target rung, by statistic: energy, norm, projection_0, …
	ESS       map[string]float64 `json:"ess"`         // effective samples of the target rung over all ladders, by statistic

	Up          []float64 `json:"up"`    // [K] share of the walkers that last saw rung 0, see [Ensemble.UpFraction]
	Index       [][]int32 `json:"index"` // rung of up to 16 walkers, by scan
	IndexStride int       `json:"index_stride"`
	Stuck       int       `json:"stuck"`      // walkers that stood on one rung for more than 10K scans
	MedianAge   uint64    `json:"median_age"` // scans since the last restart of a column
	P95Age      uint64    `json:"p95_age"`
	NonFinite   uint64    `json:"non_finite"` // swap ratios and proposals that were no finite number

	Histograms []Histogram `json:"histograms"` // of each rung's V or energy

	Seconds   float64 `json:"seconds"`  // of the round
	SwapP50   float64 `json:"swap_p50"` // milliseconds a sweep
	SwapP99   float64 `json:"swap_p99"`
	Gradients uint64  `json:"gradients"` // gradients of the energy
}

// Header names the columns of the table of rounds, a row of which Row is; with a border it is at most 120 characters wide.
func (r *Round) Header() []string {
	return []string{"scans", "restarts", "eff.", "Λ", "rungs", "swap α", "log Z: F, BAR, R", "accept", "ρ_V", "s/scan", "swap ms"}
}

// Row are the numbers of the round: scans, restarts, measured by predicted rate of round trips, the barrier, the number
// of rungs and the one that suits the barrier, least and mean acceptance of the pairs, log Z by the forward, the
// bridge and the reverse estimate, least and mean acceptance of the explorer, the largest correlation of V through an
// exploration, seconds a scan, and the median time of a swap sweep.
func (r *Round) Row() []string {
	acceptances := make([]float64, len(r.Rejections))
	for i, x := range r.Rejections {
		acceptances[i] = 1 - x
	}
	explorer := r.Accept
	if r.Path == "linear" && len(explorer) > 1 { // rung 0 is drawn, not explored
		explorer = explorer[1:]
	}
	barrier := cell(2, r.Barrier)
	if r.BarrierLowerBound {
		barrier = "≥" + barrier
	}
	z := "–"
	if r.LogZ != nil {
		digits := len(strconv.Itoa(int(math.Abs(r.LogZ.Bridge)))) // five in all at most
		decimals := max(min(decimalsOf(r.LogZ.BridgeErr), 3, 5-digits), 0)
		z = cell(decimals, r.LogZ.Forward) + " " + cell(decimals, r.LogZ.Bridge) + " " + cell(decimals, r.LogZ.Reverse)
	}
	_, rho := largestOf(r.RhoV)
	return []string{
		strconv.Itoa(r.Scans), strconv.FormatUint(r.Restarts, 10), cell(2, r.efficiency()), barrier,
		fmt.Sprintf("%d/%d", len(r.Betas), r.SuggestedRungs), leastAndMean(acceptances), z, leastAndMean(explorer),
		cell(2, rho), significant(r.Seconds / float64(r.Scans)), significant(r.SwapP50),
	}
}

// Yield is the least of the effective samples that the round gave of its statistics, by name, with what a second and a
// gradient of the energy bought. All are NaN where none is known.
func (r *Round) Yield() (statistic string, samples, perSecond, perGradient float64) {
	statistic, samples = largest(r.ESS, -1)
	return statistic, samples, samples / r.Seconds, samples / float64(r.Gradients)
}

// cell is a number of a table, a dash where there is none.
func cell(decimals int, x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "–"
	}
	return strconv.FormatFloat(x, 'f', decimals, 64)
}

func significant(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "–"
	}
	if x >= 10 {
		return cell(0, x)
	}
	return fmt.Sprintf("%.2g", x)
}

func leastAndMean(v []float64) string {
	if len(v) == 0 {
		return "–"
	}
	_, least := smallestOf(v)
	mean, _ := moments(v)
	return cell(2, least) + "/" + cell(2, mean)
}

// decimalsOf are the decimals of a number whose standard error is err: two figures of the error, 2 where it is not known.
func decimalsOf(err float64) int {
	if !(err > 0) || math.IsInf(err, 0) {
		return 2
	}
	return min(max(1-int(math.Floor(math.Log10(err))), 0), 6)
}
