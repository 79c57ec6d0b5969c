package coordinator

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
)

// outerFile is the file of a cut that holds the state of the averaging.
const outerFile = "outer"

// groupsMeta is the meta data of a cut of several groups.
type groupsMeta struct {
	Groups []json.RawMessage `json:"groups"`
}

// merged puts the cuts of all groups and the state of the averaging, nil where nothing travels, into one. The cut of a single
// group keeps its form: it is that of a training in one process.
func merged(groups []*checkpoint.Cut, outer *averaging.State) (checkpoint.Cut, error) {
	out := checkpoint.Cut{Step: groups[0].Step, Meta: groups[0].Meta, Files: map[string][]checkpoint.Tensor{}}
	var meta groupsMeta
	for g, cut := range groups {
		if cut.Step != out.Step {
			return out, fmt.Errorf("coordinator: cut: group %d is at step %d, group 0 at step %d", g, cut.Step, out.Step)
		}
		meta.Groups = append(meta.Groups, cut.Meta)
		for name, file := range cut.Files {
			out.Files[fileOf(g, len(groups), name)] = file
		}
	}
	if len(groups) > 1 {
		var err error
		if out.Meta, err = json.Marshal(meta); err != nil {
			return out, err
		}
	}
	if outer != nil {
		out.Files[outerFile] = []checkpoint.Tensor{vector("round", []uint64{outer.Round})}
		for name, v := range map[string][]float32{"theta": outer.Theta, "momentum": outer.Momentum, "residual": outer.Residual} {
			if v != nil {
				out.Files[outerFile] = append(out.Files[outerFile], vector(name, v))
			}
		}
		out.Files[outerFile] = append(out.Files[outerFile], vector("norms", outer.Norms))
	}
	return out, nil
}

func fileOf(group, groups int, name string) string {
	if groups == 1 {
		return name
	}
	return fmt.Sprintf("group%d-%s", group, name)
}

func vector[T checkpoint.Element](name string, v []T) checkpoint.Tensor {
	return checkpoint.Tensor{Name: name, Shape: []int{len(v)}, Data: v}
}

// NumGroups is the number of groups that a cut is of.
func NumGroups(cut *checkpoint.Cut) int {
	var meta groupsMeta
	if err := json.Unmarshal(cut.Meta, &meta); err != nil || len(meta.Groups) == 0 {
		return 1
	}
	return len(meta.Groups)
}

// GroupCut is the part of one group in a cut, which a trainer of that group can be restored to.
func GroupCut(cut *checkpoint.Cut, group int) (*checkpoint.Cut, error) {
	groups := NumGroups(cut)
	if group < 0 || group >= groups {
		return nil, fmt.Errorf("coordinator: cut of step %d: no group %d, want one below %d", cut.Step, group, groups)
	}
	out := &checkpoint.Cut{Step: cut.Step, Meta: cut.Meta, Files: map[string][]checkpoint.Tensor{}}
	if groups == 1 {
		maps.Copy(out.Files, cut.Files)
		delete(out.Files, outerFile)
	} else {
		var meta groupsMeta
		if err := json.Unmarshal(cut.Meta, &meta); err != nil {
			return nil, err
		}
		out.Meta = meta.Groups[group]
		for name, file := range cut.Files {
			if name, ok := strings.CutPrefix(name, fileOf(group, groups, "")); ok {
				out.Files[name] = file
			}
		}
	}
	// What the group has to know of the averaging.
	if theta, err := checkpoint.Values[float32](cut.Files[outerFile], "theta", -1); err == nil {
		out.Files[replica.AveragingFile] = append([]checkpoint.Tensor{vector("theta", theta)}, out.Files[replica.AveragingFile]...)
	}
	return out, nil
}

// WithChains is a cut whose groups have the chains and the meta data of other cuts, one of each group as [GroupCut] gives them.
// All else is shared with the cut, which stays as it is.
func WithChains(cut *checkpoint.Cut, groups []*checkpoint.Cut) (*checkpoint.Cut, error) {
	if n := NumGroups(cut); len(groups) != n {
		return nil, fmt.Errorf("coordinator: cut of step %d: chains of %d groups, want %d", cut.Step, len(groups), n)
	}
	out := &checkpoint.Cut{Step: cut.Step, Meta: groups[0].Meta, Files: maps.Clone(cut.Files)}
	var meta groupsMeta
	for g, group := range groups {
		meta.Groups = append(meta.Groups, group.Meta)
		out.Files[fileOf(g, len(groups), "chains")] = group.Files["chains"]
	}
	var err error
	if len(groups) > 1 {
		out.Meta, err = json.Marshal(meta)
	}
	return out, err
}

// outerState is the state of the averaging in a cut.
func outerState(cut *checkpoint.Cut) (averaging.State, error) {
	var s averaging.State
	tensors := cut.Files[outerFile]
	round, err := checkpoint.Values[uint64](tensors, "round", 1)
	if err != nil {
		return s, fmt.Errorf("coordinator: cut of step %d: %w", cut.Step, err)
	}
	s.Round = round[0]
	for _, t := range tensors {
		switch v := t.Data.(type) {
		case []float32:
			switch t.Name {
			case "theta":
				s.Theta = v
			case "momentum":
				s.Momentum = v
			case "residual":
				s.Residual = v
			}
		case []float64:
			s.Norms = v
		}
	}
	if s.Theta == nil {
		return s, errors.New("coordinator: cut: no parameters of the averaging in it")
	}
	return s, nil
}
