package server

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// metrics are the numbers for Prometheus. What others count is asked of them when it is scraped.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	panics   prometheus.Counter
}

// latency are bounds in seconds, from a commit on a fast disk to one on a slow network.
var latency = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kelvin_http_requests_total", Help: "Requests, by route and status."}, []string{"route", "status"}),
		took:     prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kelvin_http_request_seconds", Help: "Time of requests, by route.", Buckets: latency}, []string{"route"}),
		panics:   prometheus.NewCounter(prometheus.CounterOpts{Name: "kelvin_http_panics_total", Help: "Requests that panicked."}),
	}
	m.registry.MustRegister(m.requests, m.took, m.panics, &collector{s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) request(route string, status int, took time.Duration) {
	if route == "" {
		route = "none"
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	if !strings.HasSuffix(route, "/watch") && !strings.HasSuffix(route, "/metrics") && !strings.HasSuffix(route, "/pool/ask") { // these last as long as they are wanted
		m.took.WithLabelValues(route).Observe(took.Seconds())
	}
}

// collector asks the consensus, the blob store and the drivers for their numbers.
type collector struct{ *Server }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("kelvin_"+name, help, labels, nil)
}

var (
	leads        = describe("leader", "1 on the coordinator that leads.")
	appliedIndex = describe("raft_applied_index", "Index of the last log entry that is applied.")
	contactAge   = describe("raft_last_contact_seconds", "Time since the leader was heard.")
	commits      = describe("raft_commit_seconds", "Time from proposing an entry here to its outcome.")
	reigns       = describe("leaderships_total", "Times that this coordinator became the leader.")
	termChanges  = describe("raft_term_changes_total", "Changes of the term since the cluster began.")

	blobBytes    = describe("blob_bytes", "Bytes of blobs that are here.")
	blobCount    = describe("blobs", "Blobs that are here.")
	blobMissing  = describe("blobs_missing", "Blobs that the log names and that are not here.")
	blobCorrupt  = describe("blob_corrupt_total", "Copies of blobs that were found damaged.")
	blobIngested = describe("blob_ingested_bytes_total", "Bytes of blobs that came here.")

	experiments  = describe("experiments", "Experiments, by phase.", "phase")
	generation   = describe("generation", "Generation of an experiment.", "experiment")
	replicas     = describe("replicas", "Replicas with a lease.", "experiment")
	lastCutStep  = describe("last_cut_step", "Step of the last cut.", "experiment")
	step         = describe("step", "Steps that were made.", "experiment")
	stepsRedone  = describe("steps_redone_total", "Steps that were made again after a loss.", "experiment")
	leasesLost   = describe("lease_expired_total", "Leases of replicas that were lost.", "experiment")
	stepSeconds  = describe("step_seconds", "Time of steps.", "experiment")
	cutSeconds   = describe("cut_seconds", "Time from the call for a cut to its commit.", "experiment")
	roundSeconds = describe("avg_round_seconds", "Time of averaging rounds.", "experiment")
	roundsLate   = describe("avg_late_total", "Averaging rounds that waited beyond their deadline.", "experiment")
	attempted    = describe("swap_attempted_total", "Swaps that were tried between the rungs k and k+1.", "experiment", "pair")
	accepted     = describe("swap_accepted_total", "Swaps that were made between the rungs k and k+1.", "experiment", "pair")
	trips        = describe("round_trips_total", "Round trips of walkers.", "experiment")
	bufferFill   = describe("buffer_fill", "Part of the replay buffer's columns that were ever drawn.", "experiment")
)

// Describe implements [prometheus.Collector]. What there is hangs on the experiments: nothing is said beforehand.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	timing := func(d *prometheus.Desc, t Timing, labels ...string) {
		out <- prometheus.MustNewConstSummary(d, t.Count, t.Time.Seconds(), nil, labels...)
	}
	var all []ledger.Experiment
	index, age, err := c.node.View(context.Background(), consensus.Stale, func(st *ledger.State) { all = st.Experiments() })
	if err != nil {
		return
	}
	leading := 0.0
	if c.node.Leads() {
		leading = 1
	}
	gauge(leads, leading)
	gauge(appliedIndex, float64(index))
	gauge(contactAge, age.Seconds())
	stats := c.node.Stats()
	timing(commits, Timing{stats.Applies, stats.ApplyTime})
	count(reigns, stats.Reigns)
	count(termChanges, stats.Term)

	b := stats.Blobs
	gauge(blobBytes, float64(b.Bytes))
	gauge(blobCount, float64(b.Blobs))
	gauge(blobMissing, float64(b.Missing))
	count(blobCorrupt, b.Corrupt)
	count(blobIngested, b.IngestedBytes)

	phases := map[ledger.Phase]int{}
	for _, e := range all {
		phases[e.Phase]++
		gauge(generation, float64(e.Generation), e.Name)
		gauge(replicas, float64(len(e.Replicas)), e.Name)
		if n := len(e.Cuts); n > 0 {
			gauge(lastCutStep, float64(e.Cuts[n-1].Step), e.Name)
		}
		f, ok := c.work.Facts(e.ID)
		if !ok {
			continue
		}
		gauge(step, float64(f.Step), e.Name)
		count(stepsRedone, f.Redone, e.Name)
		count(leasesLost, f.LeasesLost, e.Name)
		timing(stepSeconds, f.Steps, e.Name)
		timing(cutSeconds, f.Cuts, e.Name)
		timing(roundSeconds, f.Rounds, e.Name)
		count(roundsLate, f.RoundsLate, e.Name)
		for k, p := range f.Pairs {
			count(attempted, p.Attempted, e.Name, strconv.Itoa(k))
			count(accepted, p.Accepted, e.Name, strconv.Itoa(k))
		}
		count(trips, f.RoundTrips, e.Name)
		gauge(bufferFill, f.BufferFill, e.Name)
	}
	for p := ledger.Queued; p <= ledger.Degraded; p++ {
		gauge(experiments, float64(phases[p]), p.String())
	}
}
