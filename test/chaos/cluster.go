//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// ClusterConfig says how large a cluster is, and where it keeps what it writes.
type ClusterConfig struct {
	Dir                    string // data, logs and tokens go into it
	Programs               string // folder with the programs coordinator and replica, see Build
	Coordinators, Replicas int
	// Punctual says that a loss of more work than one interval between cuts is wrong. It is judged by the clock, and so wants a
	// machine that is not stopped for a second by others.
	Punctual bool
}

// Cluster is coordinators and replicas on this machine, each a process, whose connections all go by way of a [Network]. Close
// it.
type Cluster struct {
	Network      *Network
	Coordinators []*Coordinator
	Replicas     []*Place

	cfg    ClusterConfig
	names  *dialer
	token  string
	client *api.Client // of whichever coordinator answers

	mu        sync.Mutex
	closed    bool
	ends      []error // of processes that should not have ended
	temporary int     // replicas that ended and were started again
}

// Coordinator is the place of a coordinator.
type Coordinator struct {
	*Place
	// Client asks this coordinator alone, past the network. It gives up soon.
	Client *api.Client
}

// Build builds the programs into a folder.
func Build(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "github.com/kelvin-ebm/kelvin/cmd/coordinator", "github.com/kelvin-ebm/kelvin/cmd/replica")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("chaos: go build: %w\n%s", err, out)
	}
	return nil
}

// Start starts a cluster and returns once it can be used.
func Start(ctx context.Context, cfg ClusterConfig) (*Cluster, error) {
	c := &Cluster{cfg: cfg, names: &dialer{}}
	c.Network = NewNetwork(c.names.of)
	if err := c.start(ctx); err != nil {
		err = fmt.Errorf("%w\n%s", err, c.Logs(10))
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	all := make([]ports, c.cfg.Coordinators)
	for i := range all {
		if all[i], err = c.ports(coordinatorName(i)); err != nil {
			return err
		}
	}
	var endpoints, direct []string
	for i, p := range all {
		endpoints, direct = append(endpoints, "http://"+p.api.dial), append(direct, "http://"+p.api.listen)
		place := c.place(coordinatorName(i), "coordinator", c.serve(i, all)...)
		c.Coordinators = append(c.Coordinators, &Coordinator{Place: place})
		if err := place.Start(); err != nil {
			return err
		}
	}
	if c.token, err = c.firstToken(ctx); err != nil {
		return err
	}
	if c.client, err = api.New(api.Config{Endpoints: direct, Token: c.token, Silence: hung, Patience: -1}); err != nil {
		return err
	}
	for i, co := range c.Coordinators {
		if co.Client, err = api.New(api.Config{Endpoints: direct[i : i+1], Token: c.token, Silence: hung, Patience: time.Millisecond}); err != nil {
			return err
		}
	}
	join, err := c.joinToken(ctx)
	if err != nil {
		return err
	}
	tokenFile := c.path("join-token")
	if err := os.WriteFile(tokenFile, []byte(join.Secret), 0o600); err != nil {
		return err
	}
	for i := range c.cfg.Replicas {
		name := fmt.Sprintf("r%d", i)
		r := c.place(name, "replica", "--coordinator", strings.Join(endpoints, ","), "--token-file", tokenFile, "--id", name)
		c.Replicas = append(c.Replicas, r)
		if err := r.Start(); err != nil {
			return err
		}
	}
	return nil
}

// hung is how long a coordinator may say nothing before another is asked.
const hung = 3 * time.Second

func coordinatorName(i int) string { return string(rune('a' + i)) }

func (c *Cluster) path(name string) string { return filepath.Join(c.cfg.Dir, name) }

// place is the place of a process that is to run until it is told otherwise.
func (c *Cluster) place(name, program string, args ...string) *Place {
	return &Place{
		Name: name, program: filepath.Join(c.cfg.Programs, program), args: args, log: c.path(name + ".log"), names: c.names,
		Ended: func(code int) bool { return c.ended(name, program, code) },
	}
}

// ended takes note of a process that ended by itself. Replicas may, where they lost sight of all coordinators, and are started
// again, as Kubernetes would.
func (c *Cluster) ended(name, program string, code int) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if program == "replica" && code == temporary {
		c.temporary++
		return true
	}
	c.ends = append(c.ends, fmt.Errorf("chaos: %s ended by itself with exit code %d", name, code))
	return false
}

// unexpected is who ended and should not have.
func (c *Cluster) unexpected() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.ends...)
}

// ports are the addresses of a coordinator.
type ports struct{ api, nats, routes, peer address }

// address is where a process listens, and where others dial it.
type address struct{ listen, dial string }

func (c *Cluster) ports(name string) (p ports, err error) {
	for _, a := range []*address{&p.api, &p.nats, &p.routes, &p.peer} {
		if a.listen, err = freePort(); err != nil {
			return p, err
		}
		if a.dial, err = c.Network.Listen(name, a.listen); err != nil {
			return p, err
		}
	}
	return p, nil
}

// freePort is an address that is free now, and that the system gives nobody by itself: a process finds it free again after it
// was killed.
func freePort() (string, error) {
	for range 100 {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(12000))))
		if err != nil {
			continue
		}
		return l.Addr().String(), l.Close()
	}
	return "", errors.New("chaos: no free port from 20000 to 32000")
}

// serve is the command line of a coordinator.
func (c *Cluster) serve(i int, all []ports) []string {
	name, own := coordinatorName(i), all[i]
	args := []string{
		"serve", "--name", name, "--data-dir", c.path(name), "--admin-token-file", c.path("admin-token"),
		"--listen", own.api.listen, "--advertise", "http://" + own.api.dial,
		"--peer-listen", own.peer.listen, "--peer-advertise", own.peer.dial,
		"--nats-listen", own.nats.listen, "--nats-advertise", "nats://" + own.nats.dial,
	}
	if len(all) > 1 {
		var peers, routes []string
		for j, p := range all {
			if j != i {
				peers, routes = append(peers, p.peer.dial), append(routes, p.routes.dial)
			}
		}
		args = append(args, "--bootstrap-expect", strconv.Itoa(len(all)), "--peers", strings.Join(peers, ","),
			"--nats-cluster-listen", own.routes.listen, "--nats-routes", strings.Join(routes, ","))
	}
	return args
}

// firstToken waits for the token that the first leader writes.
func (c *Cluster) firstToken(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if token, err := api.ReadToken(c.path("admin-token")); err == nil {
			return token, nil
		}
		if err := c.unexpected(); err != nil {
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("chaos: no leader has written the first token: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// joinToken is the token of the replicas, as soon as the coordinators know the first one: its file is there a moment before.
func (c *Cluster) joinToken(ctx context.Context) (api.NewToken, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		join, err := c.client.CreateToken(ctx, api.CreateToken{Name: "replicas", Scope: api.ScopeJoin})
		if refused, is := errors.AsType[*api.Error](err); !is || refused.Code != api.Unauthorized {
			return join, err
		}
		select {
		case <-ctx.Done():
			return join, err
		case <-time.After(look):
		}
	}
}

// Logs are the last lines of what every process said.
func (c *Cluster) Logs(lines int) string {
	var b strings.Builder
	files, _ := filepath.Glob(c.path("*.log"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		all := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&b, "%s:\n  %s\n", filepath.Base(file), strings.Join(all[max(0, len(all)-lines):], "\n  "))
	}
	return b.String()
}

// Close ends all processes and the network.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	for _, r := range c.Replicas {
		r.Kill()
	}
	for _, co := range c.Coordinators {
		co.Kill()
		if co.Client != nil {
			co.Client.Close()
		}
	}
	if c.client != nil {
		c.client.Close()
	}
	c.Network.Close()
}
