package buffer

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

func newBuffer(t testing.TB, s Settings) *Buffer {
	t.Helper()
	b, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ExampleBuffer() {
	b, err := New(Settings{Slots: 6, Live: 3, Seed: 7})
	if err != nil {
		panic(err)
	}
	for scan := range uint64(2) {
		plan := b.Plan(scan)
		fmt.Println(plan.Draw, plan.Write)
		if err := b.Commit(scan, plan, nil); err != nil {
			panic(err)
		}
	}
	fmt.Println(b.Snapshot().Written, "written")
	// Output:
	// [0 2 5] [0 2 5]
	// [1 3 5] [1 3 5]
	// 6 written
}

func TestConfigReportsEveryFault(t *testing.T) {
	for _, good := range []Config{{Size: 8, Reinit: 0.05, Init: "data"}, {Size: 8, Init: "point", Point: []float64{6, -1}}} {
		if err := good.Validate(8); err != nil {
			t.Fatalf("a good section: %v", err)
		}
	}
	for _, tc := range []struct {
		config Config
		want   string
	}{
		{Config{Size: 8, Init: "point"}, "point: missing, want the coordinates"},
		{Config{Size: 8, Init: "normal", Point: []float64{6}}, "point: not read under init: normal, want init: point"},
		{Config{Size: 8, Init: "point", Point: []float64{6, math.Inf(1)}}, "point: element 1 is +Inf, want a finite number"},
	} {
		if err := tc.config.Validate(8); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %s", tc.config, err, tc.want)
		}
	}
	err := Config{Size: 7, Reinit: math.NaN(), Init: "zeros", Warmup: -1}.Validate(8)
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{"size: 7, want at least tempering.chains = 8", "reinit: NaN", `init: "zeros"`, "warmup: -1"}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d faults, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("fault %d is %q, want it to start with %q", i, lines[i], want[i])
		}
	}
	if err := (Config{Size: math.MaxInt32 + 1, Init: "data"}).Validate(8); err == nil {
		t.Error("more slots than an int32 counts: no error")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, s := range []Settings{
		{}, {Slots: 4}, {Live: 4}, {Slots: 3, Live: 4}, {Slots: 4, Live: 4, Reinit: 1.5}, {Slots: 4, Live: 4, Reinit: -0.1}, {Slots: 4, Live: 4, Reinit: math.NaN()}, {Live: 4, Ring: true},
	} {
		if _, err := New(s); err == nil {
			t.Errorf("%+v: no error", s)
		}
	}
	newBuffer(t, Settings{Slots: 3, Live: 4, Ring: true}) // a ring may be smaller than the batch
}

func TestEveryColumnLiveDrawsNothing(t *testing.T) {
	b := newBuffer(t, Settings{Slots: 5, Live: 5, Seed: 1})
	for scan := range uint64(3) {
		plan := b.Plan(scan)
		if want := []int32{0, 1, 2, 3, 4}; !slices.Equal(plan.Draw, want) || !slices.Equal(plan.Write, want) {
			t.Fatalf("scan %d: draw %v, write %v, want %v", scan, plan.Draw, plan.Write, want)
		}
		if slices.Contains(plan.Fresh, true) || slices.Contains(plan.Jitter, true) {
			t.Fatalf("scan %d: fresh %v, jitter %v, want none", scan, plan.Fresh, plan.Jitter)
		}
	}
}

// Every subset of the slots is equally likely, at each scan anew, and no slot is left out: not the last ones either,
// which a stride would miss.
func TestUniformDrawsEverySubsetAlike(t *testing.T) {
	const slots, live, scans = 7, 3, 70_000 // 35 subsets
	b := newBuffer(t, Settings{Slots: slots, Live: live, Seed: 5})
	counts := map[[live]int32]int{}
	for scan := range uint64(scans) {
		plan := b.Plan(scan)
		if !slices.IsSorted(plan.Draw) {
			t.Fatalf("scan %d: slots %v, want ascending order", scan, plan.Draw)
		}
		counts[[live]int32(plan.Draw)]++
	}
	if len(counts) != 35 {
		t.Fatalf("%d subsets seen, want 35", len(counts))
	}
	chi2 := 0.0
	for _, n := range counts {
		d := float64(n) - scans/35
		chi2 += d * d / (scans / 35)
	}
	if chi2 > 75.0 { // 0.9999 quantile of chi² with 34 degrees of freedom: 74.9
		t.Errorf("chi² = %g over 35 subsets, want below 75.0", chi2)
	}
}

// Rows of a part start from its slots alone, each subset of them alike, and parts draw apart from each other.
func TestPartsKeepToThemselves(t *testing.T) {
	const slots, live, parts, scans = 8, 4, 2, 60_000
	b := newBuffer(t, Settings{Slots: slots, Live: live, Parts: parts, Reinit: 0.5, Seed: 5, Group: 3})
	counts := map[[live]int32]int{}
	for scan := range uint64(scans) {
		plan := b.Plan(scan)
		if len(plan.Fresh) != live || len(plan.Jitter) != live || !slices.Equal(plan.Draw, plan.Write) {
			t.Fatalf("scan %d: %+v, want %d rows that go back", scan, plan, live)
		}
		for j, slot := range plan.Draw {
			if int(slot)/(slots/parts) != j/(live/parts) {
				t.Fatalf("scan %d: row %d starts from slot %d of another part", scan, j, slot)
			}
		}
		counts[[live]int32(plan.Draw)]++
	}
	if len(counts) != 36 { // 6 subsets of each part
		t.Fatalf("%d subsets seen, want 36", len(counts))
	}
	chi2 := 0.0
	for _, n := range counts {
		d := float64(n) - scans/36.0
		chi2 += d * d / (scans / 36.0)
	}
	if chi2 > 76.4 { // 0.9999 quantile of chi² with 35 degrees of freedom
		t.Errorf("chi² = %g over 36 pairs of subsets, want below 76.4", chi2)
	}
	whole, one := newBuffer(t, Settings{Slots: slots, Live: live, Seed: 5, Group: 3}).Plan(7), newBuffer(t, Settings{Slots: slots, Live: live, Parts: 1, Seed: 5, Group: 3}).Plan(7)
	if !slices.Equal(whole.Draw, one.Draw) {
		t.Errorf("one part draws %v, want %v as without parts", one.Draw, whole.Draw)
	}
	for _, s := range []Settings{{Slots: 9, Live: 4, Parts: 2}, {Slots: 8, Live: 3, Parts: 2}, {Slots: 8, Live: 4, Parts: 2, Ring: true}} {
		if _, err := New(s); err == nil {
			t.Errorf("%+v: no error", s)
		}
	}
}

func TestReinitIsAShareOfTheDrawnColumns(t *testing.T) {
	const live, scans = 8, 20_000
	for _, share := range []float64{0, 0.05, 0.5, 1} {
		b := newBuffer(t, Settings{Slots: 20, Live: live, Reinit: share, Seed: 2})
		fresh := make([]int, live)
		for scan := range uint64(scans) {
			for j, f := range b.Plan(scan).Fresh {
				if f {
					fresh[j]++
				}
			}
		}
		for j, n := range fresh {
			got := float64(n) / scans
			if math.Abs(got-share) > 5*math.Sqrt(share*(1-share)/scans) { // five standard errors; exact at 0 and 1
				t.Errorf("reinit %g: row %d starts afresh in a share %g of the scans", share, j, got)
			}
		}
	}
}

func TestDrawsDependOnSeedGroupAndScan(t *testing.T) {
	base := Settings{Slots: 1000, Live: 10, Seed: 3, Group: 1}
	plan := newBuffer(t, base).Plan(4)
	if again := newBuffer(t, base).Plan(4); !slices.Equal(plan.Draw, again.Draw) {
		t.Error("the same scan gives two plans")
	}
	seed, group := base, base
	seed.Seed++
	group.Group++
	for name, other := range map[string]Plan{"seed": newBuffer(t, seed).Plan(4), "group": newBuffer(t, group).Plan(4), "scan": newBuffer(t, base).Plan(5)} {
		if slices.Equal(plan.Draw, other.Draw) {
			t.Errorf("another %s gives the same plan", name)
		}
	}
}

func TestRingDrawsOnePerStratum(t *testing.T) {
	const slots, live = 10, 4
	b := newBuffer(t, Settings{Slots: slots, Live: live, Ring: true, Seed: 8})
	seen := make([]int, slots)
	for scan := range uint64(2000) {
		plan := b.Plan(scan)
		for j, slot := range plan.Draw {
			if int(slot)/2 != j {
				t.Fatalf("scan %d: row %d starts from slot %d, want one of its stratum", scan, j, slot)
			}
			seen[slot]++
			if want := int32((live*int(scan) + j) % slots); plan.Write[j] != want {
				t.Fatalf("scan %d: row %d goes to slot %d, want %d", scan, j, plan.Write[j], want)
			}
		}
		if slices.Contains(plan.Jitter, true) {
			t.Fatal("jitter at share 0")
		}
		if err := b.Commit(scan, plan, nil); err != nil {
			t.Fatal(err)
		}
	}
	for slot, n := range seen {
		// TorchEBM never draws the two slots beyond 4·⌊10/4⌋; five standard errors of 1000 for the others.
		if slot >= 8 && n != 0 || slot < 8 && math.Abs(float64(n)-1000) > 5*math.Sqrt(500) {
			t.Errorf("slot %d drawn %d times in 2000 scans", slot, n)
		}
	}
}

func TestRingSmallerThanTheBatch(t *testing.T) {
	b := newBuffer(t, Settings{Slots: 5, Live: 8, Ring: true, Reinit: 0.25, Seed: 8})
	seen := make([]int, 5)
	for scan := range uint64(1000) {
		plan := b.Plan(scan)
		if want := []int32{-1, -1, -1, 0, 1, 2, 3, 4}; !slices.Equal(plan.Write, want) {
			t.Fatalf("write %v, want %v", plan.Write, want)
		}
		jitter := 0
		for j := range plan.Jitter {
			seen[plan.Draw[j]]++
			if plan.Jitter[j] {
				jitter++
			}
		}
		if jitter != 2 {
			t.Fatalf("%d rows with jitter, want ⌊0.25·8⌋", jitter)
		}
		if err := b.Commit(scan, plan, nil); err != nil {
			t.Fatal(err)
		}
	}
	for slot, n := range seen {
		if math.Abs(float64(n)-1600) > 5*math.Sqrt(1600*0.8) {
			t.Errorf("slot %d drawn %d times in 1000 scans of 8, want about 1600", slot, n)
		}
	}
	if s := b.Snapshot(); s.Pointer != 0 || s.Written != 5000 || s.Dropped != 3000 {
		t.Errorf("pointer %d, %d written, %d dropped, want 0, 5000, 3000", s.Pointer, s.Written, s.Dropped)
	}
}

func TestRingJitterIsAtLeastOneRow(t *testing.T) {
	plan := RingPlan(10, 0, make([]int, 4), []int{2, 0, 1, 3}, 0.05)
	if want := []bool{false, false, true, false}; !slices.Equal(plan.Jitter, want) {
		t.Errorf("jitter %v, want %v", plan.Jitter, want)
	}
	plan = RingPlan(10, 0, make([]int, 4), []int{2, 0, 1, 3}, 1)
	if slices.Contains(plan.Jitter, false) {
		t.Errorf("jitter %v at share 1, want every row", plan.Jitter)
	}
}

func TestAges(t *testing.T) {
	b := newBuffer(t, Settings{Slots: 4, Live: 2, Seed: 1})
	commit := func(scan uint64, a, c int32, fresh, restarted []bool) {
		t.Helper()
		plan := Plan{Draw: []int32{a, c}, Write: []int32{a, c}, Fresh: fresh, Jitter: make([]bool, 2)}
		if err := b.Commit(scan, plan, restarted); err != nil {
			t.Fatal(err)
		}
	}
	none := make([]bool, 2)
	commit(0, 0, 1, none, nil)
	commit(1, 2, 3, []bool{false, true}, nil)
	commit(2, 0, 3, none, []bool{true, false})
	commit(3, 1, 2, none, none)
	if got, want := b.Ages(), []uint64{2, 4, 4, 3}; !slices.Equal(got, want) {
		t.Errorf("ages %v, want %v", got, want)
	}
	if s := b.Snapshot(); s.Drawn != 7 || s.Refilled != 1 || s.Written != 8 {
		t.Errorf("%d drawn, %d refilled, %d written, want 7, 1, 8", s.Drawn, s.Refilled, s.Written)
	}
}

func TestCommitRefusesWhatDoesNotFit(t *testing.T) {
	plan := func(change func(*Plan)) Plan {
		p := Plan{Draw: []int32{0, 2}, Write: []int32{0, 2}, Fresh: make([]bool, 2), Jitter: make([]bool, 2)}
		change(&p)
		return p
	}
	for _, tc := range []struct {
		name      string
		ring      bool
		scan      uint64
		plan      Plan
		restarted []bool
		want      string
	}{
		{"a scan twice", false, 5, plan(func(*Plan) {}), nil, "want scan 6"},
		{"too few rows", false, 6, plan(func(p *Plan) { p.Draw = p.Draw[:1] }), nil, "draw has 1 rows, want 2"},
		{"no flags", false, 6, plan(func(p *Plan) { p.Fresh = nil }), nil, "fresh has 0 rows"},
		{"restarts of another batch", false, 6, plan(func(*Plan) {}), make([]bool, 3), "restarts of 3 rows"},
		{"slot beyond", false, 6, plan(func(p *Plan) { p.Draw[1], p.Write[1] = 4, 4 }), nil, "slot 4, want 0 to 3"},
		{"written elsewhere", false, 6, plan(func(p *Plan) { p.Write[1] = 3 }), nil, "want the same slot"},
		{"slot twice", false, 6, plan(func(p *Plan) { p.Draw[1], p.Write[1] = 0, 0 }), nil, "slot 0 twice"},
		{"dropped without a ring", false, 6, plan(func(p *Plan) { p.Write[0] = -1 }), nil, "want the same slot"},
		{"ring: slot twice", true, 6, plan(func(p *Plan) { p.Write[1] = 0 }), nil, "slot 0 twice"},
		{"ring: slot beyond", true, 6, plan(func(p *Plan) { p.Write[1] = -2 }), nil, "slot -2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBuffer(t, Settings{Slots: 4, Live: 2, Ring: tc.ring})
			if err := b.Commit(5, b.Plan(5), nil); err != nil {
				t.Fatal(err)
			}
			before := b.Snapshot()
			if err := b.Commit(tc.scan, tc.plan, tc.restarted); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if !equalStates(before, b.Snapshot()) {
				t.Error("a refused plan changed the buffer")
			}
			if err := b.Commit(6, b.Plan(6), nil); err != nil {
				t.Errorf("the next scan: %v", err)
			}
		})
	}
}

func TestRestoreRefusesABrokenState(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*State)
		want  string
	}{
		{"other size", func(s *State) { s.Start = s.Start[:3] }, "3 slots, want 4"},
		{"a column lost", func(s *State) { s.Written-- }, "want equal sums"},
		{"half a scan", func(s *State) { s.Written++; s.Refilled++ }, "in scans of 2"},
		{"more columns than scans", func(s *State) { s.Next = 1; clear(s.Start) }, "in 1 scans"},
		{"dropped without a ring", func(s *State) { s.Written--; s.Dropped++ }, "1 columns dropped"},
		{"start in the future", func(s *State) { s.Start[1] = 3 }, "slot 1 started at scan 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBuffer(t, Settings{Slots: 4, Live: 2})
			for scan := range uint64(3) {
				if err := b.Commit(scan, b.Plan(scan), nil); err != nil {
					t.Fatal(err)
				}
			}
			s := b.Snapshot()
			tc.spoil(&s)
			if err := b.Restore(s); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if err := b.Check(); err != nil {
				t.Errorf("a refused state was taken over: %v", err)
			}
		})
	}
	ring := newBuffer(t, Settings{Slots: 4, Live: 2, Ring: true})
	s := ring.Snapshot()
	s.Pointer = 4
	if err := ring.Restore(s); err == nil || !strings.Contains(err.Error(), "pointer 4, want below 4") {
		t.Errorf("pointer beyond the ring: %v", err)
	}
}

func equalStates(a, b State) bool {
	return slices.Equal(a.Start, b.Start) && a.Pointer == b.Pointer && a.Next == b.Next && a.Drawn == b.Drawn &&
		a.Refilled == b.Refilled && a.Written == b.Written && a.Dropped == b.Dropped
}

// A model that stores the origin of every column beside the books: whatever happens, columns are neither lost nor
// doubled under the uniform policy, a ring holds its last writes, ages agree, and a restored run goes on alike.
func TestBufferStateMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := Settings{
			Ring:   rapid.Bool().Draw(t, "ring"),
			Slots:  rapid.IntRange(1, 12).Draw(t, "slots"),
			Live:   rapid.IntRange(1, 12).Draw(t, "live"),
			Reinit: rapid.SampledFrom([]float64{0, 0.05, 0.5, 1}).Draw(t, "reinit"),
			Seed:   rapid.Uint64().Draw(t, "seed"),
			Group:  rapid.Uint32().Draw(t, "group"),
		}
		if !settings.Ring {
			settings.Slots = max(settings.Slots, settings.Live)
		}
		b, err := New(settings)
		if err != nil {
			t.Fatal(err)
		}
		scan := uint64(0)
		start := make([]uint64, settings.Slots) // the model
		writer := make([]int, settings.Slots)   // serial number of the write that each slot holds
		serial := 0
		t.Repeat(map[string]func(*rapid.T){
			"scan": func(t *rapid.T) {
				scan += uint64(rapid.IntRange(0, 2).Draw(t, "skip"))
				plan := b.Plan(scan)
				if again := b.Plan(scan); !slices.Equal(plan.Draw, again.Draw) || !slices.Equal(plan.Jitter, again.Jitter) || !slices.Equal(plan.Fresh, again.Fresh) {
					t.Fatal("the same scan gave two plans")
				}
				restarted := rapid.SliceOfN(rapid.Bool(), settings.Live, settings.Live).Draw(t, "restarted")
				if err := b.Commit(scan, plan, restarted); err != nil {
					t.Fatal(err)
				}
				old := slices.Clone(start)
				for j, slot := range plan.Write {
					serial++
					if slot < 0 {
						continue
					}
					start[slot], writer[slot] = old[plan.Draw[j]], serial
					if plan.Fresh[j] || restarted[j] {
						start[slot] = scan
					}
				}
				scan++
				if settings.Ring && slices.Contains(plan.Fresh, true) || !settings.Ring && slices.Contains(plan.Jitter, true) {
					t.Fatal("a fresh start in a ring, or jitter outside one")
				}
			},
			"cut and restore": func(t *rapid.T) {
				s := b.Snapshot()
				next, err := New(settings)
				if err != nil {
					t.Fatal(err)
				}
				if err := next.Restore(s); err != nil {
					t.Fatal(err)
				}
				for i := range s.Start {
					s.Start[i] = 1 << 60 // a snapshot shares nothing with the buffer
				}
				b = next
			},
			"": func(t *rapid.T) {
				if err := b.Check(); err != nil {
					t.Fatal(err)
				}
				s := b.Snapshot()
				if !slices.Equal(s.Start, start) {
					t.Fatalf("starts %v, want %v", s.Start, start)
				}
				for slot, age := range b.Ages() {
					if age != s.Next-start[slot] {
						t.Fatalf("slot %d: age %d at scan %d, started at %d", slot, age, s.Next, start[slot])
					}
				}
				if settings.Ring && serial >= settings.Slots {
					// The ring holds exactly the last writes.
					held := slices.Sorted(slices.Values(writer))
					for i, w := range held {
						if w != serial-settings.Slots+1+i {
							t.Fatalf("ring of %d holds writes %v after %d", settings.Slots, held, serial)
						}
					}
				}
			},
		})
	})
}

// The recorded calls of TorchEBM's persistent CD: with the draws of the files, the plan must lead from one recorded
// buffer to the next and to its pointer. (Where chains start is checked with the chains, in the tests of the losses.)
func TestReference(t *testing.T) {
	cases := 0
	for _, c := range testutil.Reference(t, "losses") {
		if !strings.HasPrefix(c.Name, "pcd_") {
			continue
		}
		cases++
		t.Run(c.Name, func(t *testing.T) {
			slots, share := int(c.Num("buffer_size", 0)), c.Num("new_sample_ratio", 0)
			live, dim := c.Inputs["x"].Shape[1], c.Inputs["x"].Shape[2]
			b := newBuffer(t, Settings{Slots: slots, Live: live, Ring: true, Reinit: share})
			var held []float64
			if c.Num("init_steps", 0) == 0 { // else the first buffer depends on the energy
				for _, z := range c.Inputs["buffer_init"].Data {
					held = append(held, c.Num("init_noise_scale", 0)*z)
				}
			}
			for call := range int(c.Num("calls", 0)) {
				name := func(s string) string { return fmt.Sprintf("call%d.%s", call, s) }
				offset := c.Inputs[name("offset")].Ints()
				var perm []int
				if p, ok := c.Inputs[name("perm")]; ok {
					perm = p.Ints()
				}
				plan := RingPlan(slots, int(b.Snapshot().Pointer), offset, perm, share)
				jitter := 0
				for _, j := range plan.Jitter {
					if j {
						jitter++
					}
				}
				want := 0
				if noise, ok := c.Inputs[name("explore_noise")]; ok {
					want = noise.Shape[0]
				}
				if jitter != want {
					t.Errorf("call %d: %d rows with jitter, want %d", call, jitter, want)
				}
				negatives, buffer := c.Expect[name("negatives")], c.Expect[name("buffer")]
				written := make([]bool, slots)
				for j, slot := range plan.Write {
					if slot >= 0 {
						written[slot] = true
						testutil.Compare(t, name("written"), negatives.Slice(j).Data, buffer.Slice(int(slot)), testutil.Tolerance{ATol: 1e-300})
					}
				}
				for slot := range written {
					if !written[slot] && held != nil {
						testutil.Compare(t, name("kept"), held[slot*dim:(slot+1)*dim], buffer.Slice(slot), testutil.Tolerance{ATol: 1e-15})
					}
				}
				held = buffer.Data
				if err := b.Commit(uint64(call), plan, nil); err != nil {
					t.Fatal(err)
				}
				if got, want := b.Snapshot().Pointer, c.Expect[name("buffer_ptr")].Data[0]; float64(got) != want {
					t.Errorf("call %d: pointer %d, want %g", call, got, want)
				}
			}
		})
	}
	if cases < 4 {
		t.Errorf("%d recorded cases, want at least 4", cases)
	}
}

func BenchmarkPlan(b *testing.B) {
	buffer := newBuffer(b, Settings{Slots: 10_000, Live: 128, Reinit: 0.05, Seed: 7})
	scan := uint64(0)
	for b.Loop() {
		buffer.Plan(scan)
		scan++
	}
}
