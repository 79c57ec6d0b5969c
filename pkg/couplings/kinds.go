package couplings

import (
	"encoding/json"
	"slices"
)

// Kind describes a kind of coupling, for documentation and `config explain`.
type Kind struct {
	Name    string // the value of `kind`
	Doc     string // one sentence
	Formula string // the pairing
	Source  string // where it comes from
	Params  []KindParam
}

// KindParam describes an option of a kind.
type KindParam struct {
	Key     string // its YAML key
	Doc     string
	Default string // as written in YAML
	value   any
}

// Kinds describes every kind of coupling, in the order of documentation. The caller owns the result.
func Kinds() []Kind {
	option := func(key, doc string, value any) KindParam {
		text, _ := json.Marshal(value)
		return KindParam{key, doc, string(text), value}
	}
	within := option("within_classes", "pair rows of one label only, so that the noise of every label stays standard normal; needs labels", false)
	reg := option("reg", "weight of the entropy, in units of the batch's largest squared distance; small is close to exact_ot", 0.05)
	iterations := option("iterations", "rounds of Sinkhorn's iteration", 100)
	const torchEBM = "TorchEBM 0.8.9, "
	return []Kind{
		{"independent", "Row i with row i: noise and data at random.", "j = i", torchEBM + "IndependentCoupling", nil},
		{"exact_ot", "Optimal transport between the two batches, solved exactly; every data row once. Also called ot.",
			"the permutation j with the smallest Σᵢ |x₀ᵢ − x₁ⱼ₍ᵢ₎|²", torchEBM + "ExactOTCoupling, by shortest augmenting paths (Jonker and Volgenant 1987) in place of an auction", []KindParam{within}},
		{"sinkhorn", "A draw from the plan of entropic optimal transport; a data row may come twice.",
			"j ~ Pᵢ, P = argmin Σ P·C + reg Σ P log P with row and column sums 1/n; C = |x₀ᵢ − x₁ⱼ|²/max", torchEBM + "SinkhornCoupling", []KindParam{reg, iterations, within}},
		{"unbalanced_sinkhorn", "The same with marginals that may give way; rows far from all data weigh less.",
			"as sinkhorn, plus reg_marginal·KL of both marginals; weight ∝ Σⱼ Pᵢⱼ", torchEBM + "UnbalancedSinkhornCoupling", []KindParam{
				reg, option("reg_marginal", "price of a marginal that differs from 1/n", 1.0), iterations, within}},
		{"greedy", "The closest pair, then the closest of the rest, and so on; every data row once.",
			"repeat: (i, j) = argmin C over free rows", torchEBM + "GreedyCoupling", []KindParam{within}},
	}
}

// KindNames are the names that Config.Kind knows, besides ot, which is exact_ot.
func KindNames() []string {
	var out []string
	for _, k := range Kinds() {
		out = append(out, k.Name)
	}
	return out
}

func findKind(name string) (Kind, bool) {
	kinds := Kinds()
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

func (k Kind) has(key string) bool {
	return slices.ContainsFunc(k.Params, func(p KindParam) bool { return p.Key == key })
}

func (k Kind) keys() []string {
	out := []string{"kind"}
	for _, p := range k.Params {
		out = append(out, p.Key)
	}
	return out
}
