package server

import (
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func (c *call) listQuotas() (any, error) {
	var out []api.Quota
	err := c.view(func(st *ledger.State) {
		for _, q := range st.Quotas() {
			out = append(out, quotaOf(st, q))
		}
	})
	return result(list(c, "Quota", out), err)
}

func (c *call) getQuota() (any, error) {
	var out api.Quota
	err := c.view(func(st *ledger.State) { out = quotaOf(st, st.Quota(c.r.PathValue("owner"))) })
	return result(out, err)
}

func (c *call) putQuota() (any, error) {
	var in api.PutQuota
	if err := decode(c.w, c.r, &in); err != nil {
		return nil, err
	}
	owner := c.r.PathValue("owner")
	if _, err := c.apply(ledger.ID{}, ledger.QuotaPut{Quota: ledger.Quota{Owner: owner, Experiments: in.Experiments, Replicas: in.Replicas, Bytes: in.Bytes}}); err != nil {
		return nil, err
	}
	return c.getQuota()
}

// quotaOf is a quota with what its owner takes of it.
func quotaOf(st *ledger.State, q ledger.Quota) api.Quota {
	used := st.Used(q.Owner)
	return api.Quota{Meta: api.Kind("Quota"), Owner: q.Owner, Experiments: q.Experiments, Replicas: q.Replicas, Bytes: q.Bytes,
		Used: api.Usage{Experiments: used.Experiments, Replicas: used.Replicas, Bytes: used.Bytes}}
}
