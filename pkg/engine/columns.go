package engine

import (
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// warmUp runs Buffer.Warmup chain steps on every column, as many columns at a time as a scan has.
func (t *Trainer) warmUp() error {
	sp := t.cfg.Spec
	scans := (t.cfg.Buffer.Warmup + sp.Sampler.Steps - 1) / sp.Sampler.Steps
	// Each part of the buffer in its own rows.
	each, slots := sp.Chains/t.parts(), sp.Pool/t.parts()
	for first := 0; first < slots; first += each {
		plan := buffer.Plan{Draw: make([]int32, sp.Chains), Fresh: make([]bool, sp.Chains), Jitter: make([]bool, sp.Chains)}
		for j := range plan.Draw {
			plan.Draw[j] = int32(j/each*slots + (first+j%each)%slots)
		}
		plan.Write = plan.Draw
		for range scans {
			if _, err := t.scanOnce(&plan); err != nil {
				return err
			}
		}
	}
	return nil
}

// parts is how many ranges of columns, with the rows that start from them, are kept apart.
func (t *Trainer) parts() int { return max(t.cfg.Layout.Split, 1) }

// draw prepares the next scan: where the rows that just ended go, and which start.
func (t *Trainer) draw(given *buffer.Plan, step int) (Draw, buffer.Plan) {
	sp := t.cfg.Spec
	if sp.FromData {
		t.batch(step, t.starts[:sp.Batch*sp.dim()])
		return Draw{Starts: t.starts}, buffer.Plan{}
	}
	d := Draw{Perm: t.perm}
	var next buffer.Plan
	if given != nil {
		next = *given
	} else {
		next = t.buffer.Plan(t.scan)
	}
	if !sp.pooled() {
		return d, next
	}
	k, b, m, dim := sp.Rungs, sp.Chains, sp.Pool, sp.dim()
	d.Source, d.Slots = identityPerm(k*m), make([]int32, k*b)
	for rung := range k {
		for j := range b {
			if w := t.plan.Write[j]; w >= 0 {
				d.Source[rung*m+int(w)] = int32(k*m + rung*b + j)
			}
			d.Slots[rung*b+j] = int32(rung*m) + next.Draw[j]
		}
	}
	if !sp.Mix {
		return d, next
	}
	d.Keep, d.Add = make([]float32, k*b), make([]float32, k*b*dim)
	for i := range d.Keep {
		d.Keep[i] = 1
	}
	var fresh []int32
	for j := range b {
		switch {
		case next.Fresh != nil && next.Fresh[j]:
			fresh = append(fresh, next.Draw[j])
			for rung := range k {
				d.Keep[rung*b+j] = 0
			}
		case next.Jitter != nil && next.Jitter[j]:
			z := rng.New(sp.Seed, rng.Refill, t.scan, uint32(sp.firstColumn()+j))
			for i := range dim { // TorchEBM has one rung
				d.Add[j*dim+i] = float32(jitter * z.Normal())
			}
		}
	}
	t.fillColumns(rng.Refill, t.scan, d.Add, b, next.Fresh)
	if t.ensemble != nil && len(fresh) > 0 {
		if err := t.ensemble.Refill(fresh); err != nil {
			panic(err) // the policy draws distinct columns of the pool
		}
	}
	return d, next
}

// jitter is the standard deviation of TorchEBM's noise on a share of the starts, and of its first buffer.
const jitter = 0.01

// fillColumns draws fresh states for the marked of m columns on all rungs into rows [rungs·m·dim]; a nil mark is all.
func (t *Trainer) fillColumns(purpose rng.Purpose, at uint64, rows []float32, m int, marked []bool) {
	sp := t.cfg.Spec
	dim := sp.dim()
	mean, std := make([]float64, dim), make([]float64, dim)
	q := sp.Start
	if q == nil {
		q = sp.Reference
	}
	if q == nil {
		q = sp.Base
	}
	for i := range std {
		switch {
		case t.ring():
			std[i] = jitter
		case t.cfg.Buffer.Init != "normal" && q != nil:
			mean[i], std[i] = q.Mean[i], q.Std[i]
		case t.cfg.Buffer.Init == "point":
			mean[i] = t.cfg.Buffer.Point[i]
		default:
			std[i] = 1
		}
	}
	inside := func(v float64) float32 { return float32(v) }
	if box, walled := sp.Sampler.Bounds(); walled {
		inside = func(v float64) float32 { return float32(box.Fold(v)) }
	}
	for j := range m {
		if marked != nil && !marked[j] {
			continue
		}
		z := rng.New(sp.Seed, purpose, at, uint32(sp.firstColumn()+j))
		for k := range sp.Rungs {
			row := rows[(k*m+j)*dim : (k*m+j+1)*dim]
			if t.cfg.Buffer.Init == "point" {
				for i := range row {
					row[i] = inside(t.cfg.Buffer.Point[i])
				}
				continue
			}
			// On a ladder the data are where the target rung starts, and the reference where the others do.
			if t.cfg.Buffer.Init == "data" && (k == sp.Rungs-1 || q == nil) {
				from := z.IntN(len(t.cfg.Data) / dim)
				for i := range row {
					row[i] = inside(t.cfg.Data[from*dim+i])
				}
				continue
			}
			for i := range row {
				row[i] = inside(mean[i] + std[i]*z.Normal())
			}
		}
	}
}

// ring says whether the replay buffer is the original's: a ring, first filled near the origin.
func (t *Trainer) ring() bool { return t.cfg.Spec.Loss.Compat == "torchebm" && t.cfg.Spec.pooled() }
