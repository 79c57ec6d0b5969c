package tempering

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Finding is one thing that a round shows, in words.
type Finding struct {
	Level string `json:"level"` // bad: the round does not mix; warn, note: it may not be what it seems, with less weight; ok
	Text  string `json:"text"`
}

// levels of a finding, gravest first.
var levels = []string{"bad", "warn", "note", "ok"}

// diagnosis is a finding in two parts: what is seen, and what to do about it, which may be empty.
type diagnosis struct{ level, what, cure string }

// rules are the questions asked of every round. Each passes over what the round does not know.
var rules = []func(*Round) []diagnosis{
	(*Round).travel, (*Round).agreement, (*Round).numbers, (*Round).pairs, (*Round).exploration, (*Round).energies,
	(*Round).evidence, (*Round).healthy,
}

func (r *Round) diagnose() []diagnosis {
	var all []diagnosis
	for _, rule := range rules {
		all = append(all, rule(r)...)
	}
	slices.SortStableFunc(all, func(a, b diagnosis) int {
		return slices.Index(levels, a.level) - slices.Index(levels, b.level)
	})
	return all
}

// Findings are what the round shows, gravest first.
func (r *Round) Findings() []Finding {
	var out []Finding
	for _, d := range r.diagnose() {
		text := d.what
		if d.cure != "" {
			text += ": " + d.cure
		}
		out = append(out, Finding{d.level, text})
	}
	return out
}

// Verdict says in one line whether the round mixes, and what to do where it does not.
func (r *Round) Verdict() string {
	all := r.diagnose()
	warnings := 0
	for _, d := range all {
		if d.level == "warn" {
			warnings++
		}
	}
	gravest := ""
	if len(all) > 0 {
		gravest = all[0].what
		if cure := all[0].cure; cure != "" {
			gravest += "; do: " + cure
		}
	}
	switch {
	case len(all) > 0 && all[0].level == "bad":
		return "does not mix: " + gravest
	case r.tooShort():
		line := fmt.Sprintf("too short to tell: %s in %s of %s", number(r.Restarts, "restart"), number(r.Scans, "scan"), number(r.Ladders, "ladder"))
		if warnings > 0 {
			line += "; " + gravest
		}
		return line
	case len(r.Betas) < 2 && len(r.RHat) == 0:
		return "not known: one rung, and no R̂"
	case warnings > 0:
		return fmt.Sprintf("mixes, with %s: %s; %s", number(warnings, "warning"), r.summary(), gravest)
	}
	return "mixes: " + r.summary()
}

// summary is what speaks for a round.
func (r *Round) summary() string {
	var parts []string
	if len(r.Betas) > 1 {
		parts = append(parts, number(r.Restarts, "restart"))
	}
	if _, rhat := largest(r.RHat, 1); !math.IsNaN(rhat) {
		parts = append(parts, fmt.Sprintf("R̂ %.3f", rhat))
	}
	if z := r.LogZ; z != nil {
		decimals := decimalsOf(z.BridgeErr)
		text := fmt.Sprintf("log Z %.*f", decimals, z.Bridge)
		if !math.IsNaN(z.BridgeErr) {
			text += fmt.Sprintf(" ± %.*f", decimals, z.BridgeErr)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// expectedTrips is the number of round trips that the swap acceptance allows in the scans in which a trip can end.
func (r *Round) expectedTrips() float64 {
	return r.PredictedTripRate * float64(max(r.Scans-2*len(r.Betas), 0)*r.Ladders)
}

func (r *Round) efficiency() float64 { return r.TripRate / r.PredictedTripRate }

// lateness is the share of the trips that the walkers of a ladder may be short of for having begun anywhere: of x that could
// be expected of each walker, those that a ladder makes from its start are about x − 0.7, whatever its length, rejections and
// schedule (simulated at constant rejection, K from 6 to 50).
func (r *Round) lateness() float64 {
	return min(0.7*float64(len(r.Betas)*r.Ladders)/r.expectedTrips(), 1)
}

// tooShort says that the round cannot show whether the ladder mixes: not ten round trips could be expected of all ladders,
// or they disagree where not ten could be expected of each. How many there were is no matter: a few come by luck.
func (r *Round) tooShort() bool {
	if len(r.Betas) < 2 {
		return false
	}
	_, rhat := largest(r.RHat, 1)
	return !(r.expectedTrips() >= 10) || apart(rhat) && r.fewEach()
}

// fewEach says that a ladder could not be expected to make ten round trips.
func (r *Round) fewEach() bool {
	return len(r.Betas) > 1 && !(r.expectedTrips() >= 10*float64(r.Ladders))
}

// apart says that ladders have not come to one law.
func apart(rhat float64) bool { return rounded(rhat, 3) > 1.1 }

// rounded is x as it is printed, so that no finding compares a number that the reader does not see.
func rounded(x float64, decimals int) float64 {
	y, err := strconv.ParseFloat(strconv.FormatFloat(x, 'f', decimals, 64), 64)
	if err != nil {
		panic(err) // it reads all that it writes
	}
	return y
}

// travel asks whether walkers bring news from the reference to the target. Swaps may be accepted and still lead nowhere.
func (r *Round) travel() []diagnosis {
	k, expected := len(r.Betas), r.expectedTrips()
	if k < 2 {
		return nil
	}
	scans := fmt.Sprintf("%s of %s", number(r.Scans, "scan"), number(r.Ladders, "ladder"))
	pair, rejection := largestOf(r.Rejections)
	switch {
	case r.Restarts == 0 && rejection > 0.9 && r.Scans >= 2*k:
		return []diagnosis{{"bad", fmt.Sprintf("no restart in %s, %s", scans, accepts(pair, rejection)), "add " + number(r.missingRungs(), "rung")}}
	case r.Restarts == 0 && expected >= 10:
		return []diagnosis{{"bad", fmt.Sprintf("no restart in %s, where the swap acceptance allows %.0f", scans, expected), r.moreSteps()}}
	case !(expected >= 10):
		return []diagnosis{{"note", fmt.Sprintf("%s in %s are too few to judge by", number(r.Restarts, "restart"), scans), "measure longer"}}
	case expected >= 20 && r.efficiency() < 0.5*(1-r.lateness()):
		level := "warn"
		if _, rhat := largest(r.RHat, 1); r.efficiency() < 0.1 || rhat > 1.01 { // trips are missing, and the ladders disagree
			level = "bad"
		}
		return []diagnosis{{level, fmt.Sprintf("exploration too short, %s of the round trips that the swap acceptance allows", percent(r.efficiency())), r.moreSteps()}}
	}
	return nil
}

// agreement asks whether the ladders tell the same about the target, and how much.
func (r *Round) agreement() (out []diagnosis) {
	if name, rhat := largest(r.RHat, 1); rounded(rhat, 3) > 1.01 {
		level := "warn"
		if apart(rhat) && !r.fewEach() { // a few trips a ladder prove no disagreement
			level = "bad"
		}
		out = append(out, diagnosis{level, fmt.Sprintf("the ladders disagree on %s, R̂ %.3f, want 1.01 or less", name, rhat), "measure longer or " + r.moreSteps()})
	}
	if name, ess := largest(r.ESS, -1); math.Floor(ess) < 400 {
		out = append(out, diagnosis{"warn", fmt.Sprintf("%.0f effective samples of %s, want 400", math.Floor(ess), name), "measure longer"})
	}
	return out
}

// numbers asks for what the swap rule and the explorer had to reject unread.
func (r *Round) numbers() []diagnosis {
	if r.NonFinite == 0 {
		return nil
	}
	return []diagnosis{{"warn", fmt.Sprintf("an energy that is not finite, %s", number(r.NonFinite, "time")), "look at the energy where the chains go"}}
}

// pairs asks whether the ladder has the right number of rungs in the right places.
func (r *Round) pairs() (out []diagnosis) {
	k := len(r.Betas)
	if k < 2 || len(r.Rejections) != k-1 {
		return nil
	}
	pair, rejection := largestOf(r.Rejections)
	easy, least := smallestOf(r.Rejections)
	atLeast := ""
	if r.BarrierLowerBound {
		atLeast = "at least "
	}
	few := float64(k) < r.Barrier+1
	switch low := r.low(); {
	case r.firstOrder():
		out = append(out, diagnosis{"warn", fmt.Sprintf("%s at a sharp peak of the barrier, as at a first-order transition", accepts(pair, rejection)), r.smootherPath()})
	case few:
		out = append(out, diagnosis{"warn", fmt.Sprintf("%s for a barrier of %s%.1f, %s", number(k, "rung"), atLeast, r.Barrier, accepts(pair, rejection)),
			fmt.Sprintf("use about %s", number(SuggestRungs(r.Barrier), "rung"))})
	case len(low) > 3:
		out = append(out, diagnosis{"warn", fmt.Sprintf("%d of %s accept less than 20 %%, least %s", len(low), number(k-1, "pair"), pairAt(pair, rejection)),
			"add " + number(r.missingRungs(), "rung")})
	default:
		for _, i := range low {
			out = append(out, diagnosis{"warn", accepts(i, r.Rejections[i]), "add " + number(missing(r.share(i)), "rung")})
		}
	}
	if r.Kind == "measure" && r.Attempts >= 100 && 1-least > 2*(1-rejection) {
		out = append(out, diagnosis{"warn", fmt.Sprintf("uneven ladder, %s and %s", accepts(pair, rejection), pairAt(easy, least)), "adapt it longer"})
	}
	if most := 6*r.Barrier + 2; float64(k) > most && !r.BarrierLowerBound {
		out = append(out, diagnosis{"note", fmt.Sprintf("%s for a barrier of %.2g", number(k, "rung"), r.Barrier),
			fmt.Sprintf("%s would do; more ladders serve better", number(SuggestRungs(r.Barrier), "rung"))})
	}
	if r.BarrierLowerBound && !few {
		out = append(out, diagnosis{"note", fmt.Sprintf("the barrier %.1f is a lower bound, for some pair hardly ever accepts", r.Barrier), ""})
	}
	return out
}

// low are the pairs that accept less than a fifth, lowest rung first.
func (r *Round) low() (pairs []int) {
	for i, x := range r.Rejections {
		if x > 0.8 {
			pairs = append(pairs, i)
		}
	}
	return pairs
}

// share is that of a pair in the barrier.
func (r *Round) share(pair int) float64 {
	share, _ := Barrier(r.Rejections[pair:pair+1], float64(r.Attempts))
	return share
}

// missing is the number of rungs that split a pair into parts which reject about half.
func missing(share float64) int { return max(int(math.Round(2*share))-1, 1) }

// missingRungs is missing over all pairs that accept too little.
func (r *Round) missingRungs() int {
	n := 0
	for _, i := range r.low() {
		n += missing(r.share(i))
	}
	return n
}

// firstOrder says that, though the ladder was adapted, a single pair stands out by its rejection and by its share per β.
// There the law jumps between two phases and has no β in between; more rungs help little.
func (r *Round) firstOrder() bool {
	low := r.low()
	if r.Kind != "measure" || len(low) != 1 || len(r.Rejections) < 3 {
		return false
	}
	i := low[0]
	share, rest := r.share(i), 0.0
	for j := range r.Rejections {
		if j != i {
			rest += r.share(j)
		}
	}
	others := rest / float64(len(r.Rejections)-1)
	density := share / (r.Betas[i+1] - r.Betas[i])
	mean := (share + rest) / (1 - r.Betas[0])
	return r.Rejections[i] > 0.9 && share > 2*others && density > 5*mean
}

// smootherPath is what may lead round a first-order transition.
func (r *Round) smootherPath() string {
	switch {
	case r.Path == "power":
		return "use tempering.path: linear and tempering.reference: variational"
	case r.Reference == "variational":
		return "use tempering.ladder: adaptive and more rungs"
	}
	return "use tempering.reference: variational and tempering.ladder: adaptive"
}

// exploration asks what a scan does between two sweeps.
func (r *Round) exploration() (out []diagnosis) {
	if rung, rho := largestOf(r.RhoV); rounded(rho, 2) > 0.5 {
		level := "warn"
		if rounded(rho, 2) > 0.95 && !r.tooShort() { // whatever the swaps do, they have the same energies to do it with
			level = "bad"
		}
		out = append(out, diagnosis{level, fmt.Sprintf("V of rung %d keeps a correlation of %.2f through a scan, want 0.5 or less", rung, rho), r.moreSteps()})
		if r.Schedule == "windowed" {
			out = append(out, diagnosis{"warn", "biased: the windowed schedule keeps the laws of the rungs only where exploration forgets the energies", "use tempering.schedule: deo"})
		}
	}
	if r.TargetAccept > 0 {
		off := make([]float64, len(r.Accept))
		for i, a := range r.Accept {
			off[i] = math.Abs(a - r.TargetAccept)
			if i == 0 && r.Path == "linear" && len(r.Betas) > 1 { // independent draws
				off[i] = math.NaN()
			}
		}
		if rung, most := largestOf(off); most > 0.2 {
			step := "smaller"
			if r.Accept[rung] > r.TargetAccept {
				step = "larger"
			}
			out = append(out, diagnosis{"warn", fmt.Sprintf("the explorer accepts %s on rung %d, want about %s", percent(r.Accept[rung]), rung, percent(r.TargetAccept)),
				fmt.Sprintf("use a %s sampler.step_size", step)})
		}
	}
	if r.Explorer == "langevin" {
		out = append(out, diagnosis{"warn", "biased: langevin has no Metropolis test, and its step size changes every rung's law", "use sampler.kind: mala"})
	}
	if r.Stuck > 0 {
		out = append(out, diagnosis{"warn", fmt.Sprintf("%s stood on one rung for more than %s", number(r.Stuck, "walker"), number(10*len(r.Betas), "scan")), ""})
	}
	return out
}

// energies asks whether neighbours share energies. A pair that accepts too little was named already.
func (r *Round) energies() []diagnosis {
	off := make([]float64, len(r.Overlap))
	for i, o := range r.Overlap {
		off[i] = 1 - o
		if i < len(r.Rejections) && r.Rejections[i] > 0.8 {
			off[i] = math.NaN()
		}
	}
	if i, most := largestOf(off); rounded(most, 2) > 0.9 {
		return []diagnosis{{"warn", fmt.Sprintf("rungs %d–%d share %s of their energies, want 10 %%", i, i+1, percent(1-most)), "add a rung between them"}}
	}
	return nil
}

// evidence asks what log Z is worth.
func (r *Round) evidence() (out []diagnosis) {
	z := r.LogZ
	if r.LogZFault != "" {
		out = append(out, diagnosis{"warn", "log Z is not known, " + r.LogZFault, "look at the energy where the chains go"})
	}
	if z == nil {
		return out
	}
	if want := 10 * uint64(r.Ladders); r.Restarts < want {
		out = append(out, diagnosis{"warn", fmt.Sprintf("log Z is not to be quoted after %s of %s, want %d", number(r.Restarts, "restart"), number(r.Ladders, "ladder"), want), "measure longer"})
	}
	switch forward, reverse := rounded(z.ForwardK, 2) > 0.7, rounded(z.ReverseK, 2) > 0.7; {
	case forward && reverse:
		out = append(out, diagnosis{"warn", fmt.Sprintf("forward and reverse log Z are unreliable, k̂ %.2f and %.2f of their weights, want 0.7 or less", z.ForwardK, z.ReverseK), "add rungs"})
	case forward:
		out = append(out, diagnosis{"note", fmt.Sprintf("forward log Z is unreliable, k̂ %.2f of its weights", z.ForwardK), ""})
	case reverse:
		out = append(out, diagnosis{"note", fmt.Sprintf("reverse log Z is unreliable, k̂ %.2f of its weights", z.ReverseK), ""})
	}
	if r.Ladders < 8 {
		out = append(out, diagnosis{"note", fmt.Sprintf("errors of log Z from %s are rough", number(r.Ladders, "ladder")), "use 8 or more tempering.chains"})
	}
	return out
}

// healthy says what speaks for the round.
func (r *Round) healthy() []diagnosis {
	if len(r.Betas) < 2 || r.Restarts < 10 || !(r.efficiency() >= 0.5) {
		return nil
	}
	return []diagnosis{{"ok", fmt.Sprintf("%s in %s, %s of the round trips that the swap acceptance allows", number(r.Restarts, "restart"), number(r.Ladders, "ladder"), percent(r.efficiency())), ""}}
}

func (r *Round) moreSteps() string {
	return fmt.Sprintf("raise sampler.steps above %d", r.ChainSteps)
}

// accepts and pairAt name a pair by what it accepts.
func accepts(pair int, rejection float64) string {
	return fmt.Sprintf("rungs %d–%d accept %s", pair, pair+1, percent(1-rejection))
}

func pairAt(pair int, rejection float64) string {
	return fmt.Sprintf("rungs %d–%d %s", pair, pair+1, percent(1-rejection))
}

func percent(x float64) string {
	if x > 0 && x < 0.01 {
		return "less than 1 %"
	}
	return fmt.Sprintf("%.0f %%", 100*x)
}

// number is a count and its noun.
func number[N int | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// largestOf is the place and value of the largest number that is one; −1 and NaN where there is none.
func largestOf(v []float64) (int, float64) {
	at, best := -1, math.NaN()
	for i, x := range v {
		if x > best || at < 0 && !math.IsNaN(x) {
			at, best = i, x
		}
	}
	return at, best
}

func smallestOf(v []float64) (int, float64) {
	at, best := largestOf(scaled(-1, v))
	return at, -best
}

// largest is the name and value of the number with the largest sign·x, the first of its names where several are equal.
func largest(of map[string]float64, sign float64) (string, float64) {
	names := slices.Sorted(maps.Keys(of))
	values := make([]float64, len(names))
	for i, name := range names {
		values[i] = sign * of[name]
	}
	at, best := largestOf(values)
	if at < 0 {
		return "", math.NaN()
	}
	return names[at], sign * best
}
