package coordinator

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// treadmill is a crew of one replica that needs pace for a step and taking for a cut, by a clock of its own, and a Book that
// takes commit to acknowledge a cut; 0: it never does, and the coordinator is deposed while it waits.
type treadmill struct {
	crew
	*memory
	pace, taking, commit time.Duration

	clock    time.Time
	step     int
	worked   time.Duration // since the state of the last acknowledged cut was taken
	most     time.Duration // that was ever so
	waited   time.Duration // for cuts to be acknowledged
	cuts     int
	deposed  bool
	underway *underway
}

// underway is a cut that is not acknowledged yet.
type underway struct {
	*treadmill
	until  time.Time
	worked time.Duration // when its state was taken
}

func (m *treadmill) now() time.Time {
	if u := m.underway; u != nil && m.commit > 0 && !m.clock.Before(u.until) {
		m.worked, m.underway = m.worked-u.worked, nil
	}
	return m.clock
}

func (m *treadmill) living() []string       { return []string{"0"} }
func (m *treadmill) enlisted() []string     { return m.living() }
func (m *treadmill) enlist([]string)        {}
func (m *treadmill) leaving([]string) bool  { return false }
func (m *treadmill) lopsided([]string) bool { return false }
func (m *treadmill) release()               {}
func (m *treadmill) abort(uint64)           {}

func (m *treadmill) ask(to []string, _ uint64, cmd replica.Command, _ func()) ([]replica.Answer, []error) {
	answer := replica.GroupAnswer{}
	switch cmd.Op {
	case replica.Run:
		for m.step < cmd.To {
			m.step++
			m.clock, m.worked = m.clock.Add(m.pace), m.worked+m.pace
			answer.Reports = append(answer.Reports, engine.Report{Step: m.step})
			if m.now(); m.worked > m.most {
				m.most = m.worked
			}
		}
	case replica.Cut:
		m.clock = m.clock.Add(m.taking)
	}
	return []replica.Answer{{Groups: []replica.GroupAnswer{answer}}}, make([]error, len(to))
}

func (m *treadmill) pull(string, transport.Key) ([]byte, error) {
	return replica.EncodeCut(checkpoint.Cut{Step: m.step, Meta: []byte("{}")})
}

func (m *treadmill) Commit(uint64, checkpoint.Cut) Commitment {
	m.cuts++
	m.underway = &underway{m, m.clock.Add(m.commit), m.worked}
	return m.underway
}

func (u *underway) Done() bool { u.now(); return u.treadmill.underway != u }

func (u *underway) Wait() error {
	if u.commit == 0 && u.cuts > 1 {
		u.deposed = true
		return ErrDeposed
	}
	if wait := u.until.Sub(u.clock); wait > 0 {
		u.clock, u.waited = u.until, u.waited+wait
	}
	if u.commit == 0 { // but for the first
		u.treadmill.underway = nil
	}
	u.now()
	return nil
}

// What a loss costs is bounded, however slowly cuts are acknowledged, and where they are in time nothing waits.
func TestALossCostsOneIntervalAtMost(t *testing.T) {
	const every, pace, taking = 10 * time.Second, 20 * time.Millisecond, 50 * time.Millisecond
	for _, tc := range []struct {
		name                        string
		every, pace, taking, commit time.Duration
		waits                       bool
		cuts                        [2]int // at least, at most, in 3,000 steps
	}{
		{"quick commits", every, pace, taking, 30 * time.Millisecond, false, [2]int{6, 8}},
		{"commits of a third of the interval", every, pace, taking, 3 * time.Second, false, [2]int{6, 16}},
		{"commits longer than the interval", every, pace, taking, 25 * time.Second, true, [2]int{6, 14}},
		{"a short interval", time.Second, pace, taking, 30 * time.Millisecond, false, [2]int{60, 100}},
		{"gathering takes most of an interval", time.Second, pace, 600 * time.Millisecond, 30 * time.Millisecond, true, [2]int{60, 400}},
		{"steps longer than the interval", time.Second, 3 * time.Second, taking, 30 * time.Millisecond, true, [2]int{2999, 3001}},
		{"no interval", 0, pace, taking, 30 * time.Millisecond, false, [2]int{1, 1}},
		{"commits that never end", every, pace, taking, 0, true, [2]int{2, 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &treadmill{memory: newMemory(), pace: tc.pace, taking: tc.taking, commit: tc.commit, clock: time.Unix(0, 0)}
			if _, err := m.Register(transport.Register{Replica: "0"}); err != nil {
				t.Fatal(err)
			}
			cfg := Config{Layout: engine.Layout{Placement: "ladder", Split: 1, Rungs: 2, Chains: 1, Groups: 1}, Averaging: averaging.Config{}.WithDefaults(),
				Steps: 3000, Every: []int{1000}, CutEvery: tc.every, Notice: func(string) {}}
			f := newFleet(cfg, m, m, m.now)
			if err := f.Start(); err != nil {
				t.Fatal(err)
			}
			m.waited = 0 // for the first
			var err error
			for err == nil && f.Step() < cfg.Steps {
				_, err = f.TrainStep()
			}
			if err != nil && (!m.deposed || !errors.Is(err, ErrDeposed)) {
				t.Fatal(err)
			}
			if bound := max(tc.every, tc.pace); tc.every > 0 && m.most > bound {
				t.Errorf("%v of work without an acknowledged cut, want at most %v", m.most, bound)
			}
			if m.deposed && m.most < tc.every*9/10 {
				t.Errorf("%v of work before it stopped, want nearly %v", m.most, tc.every)
			}
			if (m.waited > 0) != tc.waits && !m.deposed {
				t.Errorf("waited %v for cuts, want some: %v", m.waited, tc.waits)
			}
			if m.cuts < tc.cuts[0] || m.cuts > tc.cuts[1] {
				t.Errorf("%d cuts, want %d to %d", m.cuts, tc.cuts[0], tc.cuts[1])
			}
		})
	}
}

// Statistics that were reset behind the last cut are reset again where the training is made again, also behind a cut that is
// taken on the way there.
func TestCutsWhileStepsAreMadeAgainKeepTheirMarks(t *testing.T) {
	m := &treadmill{memory: newMemory(), pace: time.Second, commit: time.Millisecond, clock: time.Unix(0, 0)}
	f := newFleet(Config{Layout: engine.Layout{Placement: "ladder", Split: 1, Rungs: 2, Chains: 1, Groups: 1}, Averaging: averaging.Config{}.WithDefaults(), Steps: 9}, m, m, m.now)
	f.generation, f.holders, f.at, m.step, f.given, f.marks = 1, []string{"0"}, 4, 4, 6, []int{4, 6}
	if err := f.takeCut(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.marks, []int{6}) {
		t.Errorf("steps whose reset is to come again: %d, want that of step 6, which is behind the cut", f.marks)
	}
}
