package ledger

import (
	"fmt"
)

func (s *State) clusterInit(c ClusterInit) error {
	if (s.cluster != ClusterInit{}) && s.cluster != c {
		return fmt.Errorf("%w: the cluster is %s", ErrConflict, s.cluster.Cluster)
	}
	s.cluster = c
	return nil
}

// nodePut refuses a node that would not understand the commands in use.
func (s *State) nodePut(c NodePut) error {
	if c.Feature < s.feature {
		return fmt.Errorf("%w: coordinator %s supports feature level %d, want at least %d", ErrUnsupported, c.Name, c.Feature, s.feature)
	}
	s.nodes[c.Name] = Node(c)
	return nil
}

func (s *State) featureLevel(c FeatureLevel) error {
	if c.Level <= s.feature {
		return nil
	}
	if len(s.nodes) == 0 {
		return fmt.Errorf("%w: feature level %d before any coordinator has said what it supports", ErrUnsupported, c.Level)
	}
	for _, n := range s.Nodes() {
		if n.Feature < c.Level {
			return fmt.Errorf("%w: feature level %d, coordinator %s supports %d", ErrUnsupported, c.Level, n.Name, n.Feature)
		}
	}
	s.feature = c.Level
	return nil
}

// Level is the feature level that a command needs, 0 for those of the first version. Before the cluster has reached it none is
// proposed: a coordinator that does not know a command comes to another state.
func Level(c Command) uint32 {
	switch c.(type) {
	case ExpRespec, CutReplace, TokenCreate, TokenUse:
		return 1
	}
	return 0
}

// tokenPut refuses a secret that another token has: who shows it would be one of two.
func (s *State) tokenPut(c TokenPut) error {
	for _, t := range s.Tokens() {
		if t.Hash == c.Token.Hash && t.Name != c.Token.Name {
			return fmt.Errorf("%w: token %s has the same secret", ErrConflict, t.Name)
		}
	}
	s.tokens[c.Token.Name] = c.Token
	return nil
}

func (s *State) tokenCreate(c TokenCreate) error {
	if t, taken := s.tokens[c.Token.Name]; taken {
		if t.Hash != c.Token.Hash {
			return fmt.Errorf("%w: token %s", ErrExists, t.Name)
		}
		return nil
	}
	return s.tokenPut(TokenPut(c))
}

// tokenUse is fine where so many are left already: that is how a repetition looks.
func (s *State) tokenUse(c TokenUse) error {
	t, there := s.tokens[c.Name]
	if !there || t.Hash != c.Hash {
		return fmt.Errorf("%w: token %s with that secret", ErrNotFound, c.Name)
	}
	left := c.Left
	if left == 0 {
		left = Spent
	}
	if t.Uses == left {
		return nil
	}
	if t.Uses != c.Left+1 {
		return fmt.Errorf("%w: token %s has other than %d uses", ErrConflict, c.Name, c.Left+1)
	}
	t.Uses = left
	s.tokens[c.Name] = t
	return nil
}

func (s *State) quotaPut(c QuotaPut) error {
	if c.Quota == (Quota{Owner: c.Quota.Owner}) {
		delete(s.quotas, c.Quota.Owner)
		return nil
	}
	s.quotas[c.Quota.Owner] = c.Quota
	return nil
}

// Used is what the experiments of an owner take of a quota together.
func (s *State) Used(owner string) Quota {
	q := Quota{Owner: owner}
	for _, e := range s.experiments {
		if e.Owner == owner {
			u := e.use()
			q.Experiments += uint32(u.experiments)
			q.Replicas += uint32(u.replicas)
			q.Bytes += u.bytes
		}
	}
	return q
}

// use is what counts for a quota.
type use struct{ experiments, replicas, bytes uint64 }

func (e *experiment) use() use {
	u := use{bytes: e.bytes}
	if !e.Phase.Final() {
		u.experiments, u.replicas = 1, uint64(e.Wanted())
	}
	return u
}

// fits checks the quota of an experiment's owner before it takes what it did not take yet. What takes no more is not in the
// way of a quota that is exceeded already.
func (s *State) fits(e *experiment, before, after use) error {
	q, limited := s.quotas[e.Owner]
	if !limited {
		return nil
	}
	all := after
	for _, other := range s.experiments {
		if other.Owner == e.Owner && other.ID != e.ID {
			u := other.use()
			all.experiments += u.experiments
			all.replicas += u.replicas
			all.bytes = min(all.bytes+u.bytes, 1<<62) // far from where the next sum would wrap
		}
	}
	for _, l := range []struct {
		what                     string
		before, after, all, most uint64
	}{
		{"experiments", before.experiments, after.experiments, all.experiments, uint64(q.Experiments)},
		{"replicas", before.replicas, after.replicas, all.replicas, uint64(q.Replicas)},
		{"bytes of blobs", before.bytes, after.bytes, all.bytes, q.Bytes},
	} {
		if l.most > 0 && l.after > l.before && l.all > l.most {
			return fmt.Errorf("%w: %d %s of owner %q, want at most %d", ErrQuota, l.all, l.what, e.Owner, l.most)
		}
	}
	return nil
}
