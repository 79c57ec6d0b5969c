//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// strike lets a fault happen. heal undoes it; whom says who was hit.
func (c *Cluster) strike(ctx context.Context, f Fault) (whom string, heal func() error, err error) {
	leader, followers, err := c.roles(ctx)
	if err != nil {
		return "", nil, err
	}
	follower := leader
	if len(followers) > 0 {
		follower = followers[f.Pick%uint64(len(followers))]
	}
	first := int(f.Pick / 8 % uint64(len(c.Replicas)))
	replica := c.Replicas[first]
	half := slices.Concat(c.Replicas[first:], c.Replicas[:first])[:max(1, len(c.Replicas)/2)]
	n := c.Network
	healed := func() error {
		n.Heal()
		return nil
	}
	switch f.Kind {
	case KillReplica:
		return kill(replica)
	case KillReplicas:
		return kill(half...)
	case KillFollower:
		return kill(follower.Place)
	case KillLeader:
		return kill(leader.Place)
	case KillLeaderReplica:
		return kill(leader.Place, replica)
	case KillCoordinators:
		var all []*Place
		for _, co := range c.Coordinators {
			all = append(all, co.Place)
		}
		return kill(all...)
	case LoseReplica:
		n.Isolate(replica.Name)
		return lost(n, replica)
	case LoseLeader:
		n.Isolate(leader.Name)
		return lost(n, leader.Place)
	case FreezeReplica:
		return replica.Name, replica.Thaw, replica.Freeze()
	case FreezeFollower:
		return follower.Name, follower.Thaw, follower.Freeze()
	case FreezeLeader:
		return leader.Name, leader.Thaw, leader.Freeze()
	case EndReplica:
		return end(replica)
	case EndLeader:
		return end(leader.Place)
	case CutReplica:
		n.Isolate(replica.Name)
		return replica.Name, healed, nil
	case CutFollower:
		n.Isolate(follower.Name)
		return follower.Name, healed, nil
	case CutLeader:
		n.Isolate(leader.Name)
		return leader.Name, healed, nil
	case PartLeader:
		for _, other := range followers {
			n.Part(leader.Name, other.Name)
		}
		return leader.Name, healed, nil
	case MuteLeader:
		for _, other := range followers {
			n.Set(leader.Name, other.Name, Link{Drop: true})
		}
		return leader.Name, healed, nil
	case Delay:
		n.Set(Any, Any, f.Link)
		return "everybody", healed, nil
	case Narrow:
		n.Set(replica.Name, Any, f.Link)
		n.Set(Any, replica.Name, f.Link)
		return replica.Name, healed, nil
	case Reset:
		hit := []string{replica.Name, leader.Name, follower.Name}[f.Pick/64%3]
		n.Reset(hit)
		return hit, healed, nil
	case Abandon:
		hit := []string{replica.Name, leader.Name, follower.Name}[f.Pick/64%3]
		n.Abandon(hit)
		return hit, healed, nil
	}
	return "", nil, fmt.Errorf("chaos: fault %q is not known", f.Kind)
}

// kill kills processes; healing starts them again.
func kill(places ...*Place) (whom string, heal func() error, err error) {
	for i, p := range places {
		if whom += p.Name; i < len(places)-1 {
			whom += " "
		}
		err = errors.Join(err, p.Kill())
	}
	return whom, func() (err error) {
		for _, p := range places {
			err = errors.Join(err, p.Start())
		}
		return err
	}, err
}

// lost kills a process that is cut off. Healing lets the others know, and starts it again.
func lost(n *Network, p *Place) (whom string, heal func() error, err error) {
	whom, start, err := kill(p)
	return whom, func() error {
		n.Heal()
		return start()
	}, err
}

// grace is how long a process may take to end in good order.
const grace = 40 * time.Second

// end asks a process to end; healing waits until it has, and starts it again.
func end(p *Place) (whom string, heal func() error, err error) {
	err = p.Ask()
	return p.Name, func() error {
		code, err := p.Wait(grace)
		if err == nil && code != 0 && code != preempted {
			err = fmt.Errorf("chaos: %s was asked to end, and did with exit code %d", p.Name, code)
		}
		return errors.Join(err, p.Start())
	}, err
}

// Exit codes of programs that are started again.
const (
	temporary = 75
	preempted = 143
)

// roles is who leads, and who follows.
func (c *Cluster) roles(ctx context.Context) (leader *Coordinator, followers []*Coordinator, err error) {
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	for {
		build, err := c.client.Build(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("chaos: who leads: %w", err)
		}
		for _, co := range c.Coordinators {
			if co.Name == build.Leader {
				leader = co
			} else {
				followers = append(followers, co)
			}
		}
		if leader != nil {
			return leader, followers, nil
		}
		followers = nil
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("chaos: nobody leads: %w", ctx.Err())
		case <-time.After(look):
		}
	}
}

// answers is how long the coordinators may take to answer once a fault is over.
const answers = 15 * time.Second
