package server

import (
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func (c *call) listQuotas() (any, error) {
	var out []api.Quota
	err := c.view(func(st *ledger.State) {
		used := usage(st)
		for _, q := range st.Quotas() {
			out = append(out, quotaOf(q, used))
		}
	})
	return result(list(c, "Quota", out), err)
}

func (c *call) getQuota() (any, error) {
	var out api.Quota
	err := c.view(func(st *ledger.State) { out = quotaOf(st.Quota(c.r.PathValue("owner")), usage(st)) })
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

func quotaOf(q ledger.Quota, used map[string]api.Usage) api.Quota {
	return api.Quota{Meta: api.Kind("Quota"), Owner: q.Owner, Experiments: q.Experiments, Replicas: q.Replicas, Bytes: q.Bytes, Used: used[q.Owner]}
}

// usage is what counts for quotas, by owner.
func usage(st *ledger.State) map[string]api.Usage {
	used := map[string]api.Usage{}
	for _, e := range st.Experiments() {
		u := used[e.Owner]
		u.Bytes += weigh(e)
		if !e.Phase.Final() {
			u.Experiments++
			if e.Want == 0 {
				u.Replicas += e.Shards
			}
			u.Replicas += e.Want
		}
		used[e.Owner] = u
	}
	return used
}
