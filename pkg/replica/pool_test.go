package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// answer is what coordinators say to one request for work, after a while.
type answer struct {
	after time.Duration
	work  api.Assignment // without UID: nothing yet
	err   error
}

// script is an Asker that gives its answers in turn, the last one again and again.
type script struct {
	answers []answer
	asked   []api.Ask
}

func (s *script) Ask(ctx context.Context, a api.Ask) (api.Assignment, bool, error) {
	a.Refuses = slices.Clone(a.Refuses)
	s.asked = append(s.asked, a)
	next := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	if !pause(ctx, next.after) {
		return api.Assignment{}, false, &api.Error{Code: api.Timeout, Cause: ctx.Err()}
	}
	return next.work, next.work.UID != "" || next.work.Done, next.err
}

func work(name string) answer {
	return answer{work: api.Assignment{Experiment: name, UID: "uid-" + name, Secret: "secret-" + name, NATS: []string{"nats://a:1", "nats://b:2"}}}
}

func done(exit int, reason string) answer {
	return answer{work: api.Assignment{Done: true, Exit: exit, Reason: reason}}
}

var unavailable = answer{err: api.Errorf(api.Unavailable, "connection refused")}

func TestPoolEndsByTheRules(t *testing.T) {
	nothing := answer{after: 20 * time.Second}
	slow := answer{after: 15 * time.Second, err: unavailable.err}
	for _, tc := range []struct {
		name    string
		options PoolOptions
		answers []answer
		mains   []error       // what Main returns, in turn; its context's end behind the last
		stop    time.Duration // SIGTERM after so long; 0: never
		want    error
		code    int
		worked  []string // uids
		within  time.Duration
	}{
		{name: "the only experiment is done", options: PoolOptions{Experiment: "a"}, answers: []answer{work("a"), done(0, "completed")}, mains: []error{nil}, worked: []string{"uid-a"}},
		{name: "the only experiment was paused in between", options: PoolOptions{Experiment: "a"},
			answers: []answer{work("a"), nothing, nothing, work("a"), done(0, "completed")}, mains: []error{nil, nil}, worked: []string{"uid-a", "uid-a"}},
		{name: "the only experiment failed", options: PoolOptions{Experiment: "a"}, answers: []answer{work("a"), done(42, "a is failed: loss is NaN")}, mains: []error{nil}, worked: []string{"uid-a"}, want: ErrEnded, code: 42},
		{name: "the only experiment is unknown", options: PoolOptions{Experiment: "a"}, answers: []answer{done(42, "not found")}, want: ErrEnded, code: 42},
		{name: "the only experiment cannot be had here", options: PoolOptions{Experiment: "a"}, answers: []answer{work("a")}, mains: []error{ErrConfig}, worked: []string{"uid-a"}, want: ErrConfig, code: 42},
		{name: "the only experiment has other devices", options: PoolOptions{Experiment: "a"}, answers: []answer{work("a")}, mains: []error{ErrIncompatible}, worked: []string{"uid-a"}, want: ErrIncompatible, code: 43},
		{name: "once", options: PoolOptions{Once: true}, answers: []answer{nothing, work("a")}, mains: []error{nil}, worked: []string{"uid-a"}},
		{name: "once, but the coordinator was lost on the way", options: PoolOptions{Once: true}, answers: []answer{work("a")}, mains: []error{ErrTemporary, nil}, worked: []string{"uid-a", "uid-a"}},
		{name: "SIGTERM at work", answers: []answer{work("a"), work("b")}, mains: []error{nil}, stop: time.Minute, want: ErrPreempted, code: 143, worked: []string{"uid-a", "uid-b"}, within: time.Minute},
		{name: "SIGTERM while it waits", answers: []answer{nothing}, stop: 30 * time.Second, want: ErrPreempted, code: 143, within: 30 * time.Second},
		{name: "SIGTERM without coordinators", answers: []answer{unavailable}, stop: 30 * time.Second, want: ErrPreempted, code: 143, within: 30 * time.Second},
		{name: "people asked it to leave", answers: []answer{work("a"), done(143, "asked to leave")}, mains: []error{ErrPreempted}, want: ErrPreempted, code: 143, worked: []string{"uid-a"}},
		{name: "more replicas than are wanted", answers: []answer{work("a"), work("b")}, mains: []error{ErrPreempted, nil, errors.New("bug")}, worked: []string{"uid-a", "uid-b", "uid-b"}, code: 1},
		{name: "the coordinators stay away", answers: []answer{nothing, slow}, want: ErrTemporary, code: 75, within: poolPatience + time.Minute},
		{name: "the coordinators stay away for as long as people will wait", options: PoolOptions{Options: Options{Patience: time.Minute}}, answers: []answer{slow}, want: ErrTemporary, code: 75, within: 90 * time.Second},
		{name: "the coordinators come back", options: PoolOptions{Experiment: "a"}, answers: []answer{unavailable, unavailable, unavailable, work("a"), done(0, "")}, mains: []error{nil}, worked: []string{"uid-a"}, within: 5 * time.Second},
		{name: "a token that is not good", answers: []answer{{err: api.Errorf(api.Unauthorized, "no such token")}}, want: ErrConfig, code: 42, within: time.Minute},
		{name: "a token that is made in a moment", options: PoolOptions{Once: true}, answers: []answer{{err: api.Errorf(api.Unauthorized, "no such token")}, work("a")}, mains: []error{nil}, worked: []string{"uid-a"}},
		{name: "message servers of others, and no credentials for them", answers: []answer{{work: api.Assignment{Experiment: "a", UID: "uid-a", Secret: "secret-a", ForeignNATS: true}}}, want: ErrConfig, code: 42, within: time.Second},
		{name: "message servers of others", options: PoolOptions{Once: true, Options: Options{Dial: transport.Options{User: "r7", SecretFile: "f"}}},
			answers: []answer{{work: api.Assignment{Experiment: "a", UID: "uid-a", Secret: "secret-a", ForeignNATS: true}}}, mains: []error{nil}, worked: []string{"r7"}},
		{name: "a request that is not good", answers: []answer{{err: api.Errorf(api.Invalid, "id")}}, want: ErrConfig, code: 42, within: time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.stop > 0 {
					time.AfterFunc(tc.stop, cancel)
				}
				begin := time.Now()
				var worked []string
				o := tc.options
				o.ID, o.Coordinators = "7", &script{answers: tc.answers}
				o.main = func(ctx context.Context, o Options) error {
					worked = append(worked, o.Dial.User)
					if len(worked) <= len(tc.mains) {
						pause(ctx, time.Second)
						return tc.mains[len(worked)-1]
					}
					<-ctx.Done()
					return fmt.Errorf("left: %w", ErrPreempted)
				}
				err := Pool(ctx, o)
				if tc.want != nil && !errors.Is(err, tc.want) || ExitCode(err) != tc.code {
					t.Errorf("%v, exit code %d, want %v, %d", err, ExitCode(err), tc.want, tc.code)
				}
				if !slices.Equal(worked, tc.worked) {
					t.Errorf("worked for %v, want %v", worked, tc.worked)
				}
				if took := time.Since(begin); tc.within > 0 && took > tc.within {
					t.Errorf("took %v, want at most %v", took, tc.within)
				}
			})
		})
	}
}

func TestWorkComesWithItsCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asker := &script{answers: []answer{work("a")}}
		trust := &tls.Config{ServerName: "x"}
		o := PoolOptions{Options: Options{ID: "7", Version: "v1", Dial: transport.Options{TLS: trust}}, Coordinators: asker, Once: true}
		var got Options
		o.main = func(_ context.Context, o Options) error {
			got = o
			return nil
		}
		if err := Pool(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		want := transport.Options{User: "uid-a", Secret: "secret-a"}
		if got.URL != "nats://a:1,nats://b:2" || got.Token != "secret-a" || !reflect.DeepEqual(got.Dial, want) || got.Patience != workPatience {
			t.Errorf("work with %q, token %q, dial %+v, patience %v", got.URL, got.Token, got.Dial, got.Patience)
		}
		asker.answers[0].work.NATS = []string{"tls://a:1"}
		if err := Pool(t.Context(), o); err != nil || got.Dial.TLS != trust {
			t.Errorf("%v; certificates %v, want those of the coordinators", err, got.Dial.TLS)
		}
		if a := asker.asked[0]; a.ID != "7" || a.Incarnation == 0 || a.Incarnation == asker.asked[1].Incarnation || a.Platform != "v1" {
			t.Errorf("asked as %+v and %+v", a, asker.asked[1])
		}
	})
}

// What cannot be had here is told to the coordinators, and is not asked for again.
func TestUnboundReplicaGoesOnWithOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asker := &script{answers: []answer{work("a"), work("b"), work("c"), done(143, "")}}
		results := map[string]error{"uid-a": ErrConfig, "uid-b": ErrIncompatible}
		o := PoolOptions{Options: Options{ID: "7"}, Coordinators: asker}
		o.main = func(_ context.Context, o Options) error { return results[o.Dial.User] }
		if err := Pool(t.Context(), o); !errors.Is(err, ErrPreempted) {
			t.Fatal(err)
		}
		for i, want := range [][]string{nil, {"uid-a"}, {"uid-a", "uid-b"}, {"uid-a", "uid-b"}} {
			if got := asker.asked[i].Refuses; !slices.Equal(got, want) {
				t.Errorf("request %d refuses %v, want %v", i, got, want)
			}
		}
	})
}

// The pauses grow where work ends at once, and coordinators without work that do not wait are not asked in a hurry.
func TestPoolIsNotInAHurry(t *testing.T) {
	for name, asker := range map[string]*script{
		"work ends at once":  {answers: []answer{work("a")}},
		"no work, at once":   {answers: []answer{{}}},
		"nobody, at once":    {answers: []answer{unavailable}},
		"no leader, at once": {answers: []answer{{err: api.Errorf(api.NoLeader, "none")}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				o := PoolOptions{Options: Options{ID: "7"}, Coordinators: asker, main: func(context.Context, Options) error { return ErrTemporary }}
				if err := Pool(ctx, o); !errors.Is(err, ErrPreempted) {
					t.Error(err)
				}
				if n := len(asker.asked); n < 10 || n > 40 {
					t.Errorf("asked %d times in a minute", n)
				}
			})
		})
	}
}

func TestKeeperKeepsBackendsOfTheSameConfiguration(t *testing.T) {
	k := new(keeper)
	if device, platform := k.describe("v1"); device != "" || platform != "v1" {
		t.Errorf("before there is a backend: %q on %q", platform, device)
	}
	open := func(threads int) *backend.Backend {
		t.Helper()
		b, err := k.open(t.Context(), backend.Config{Kind: backend.Go, Threads: threads}, backend.Options{NoInstall: true})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := open(1)
	if again := open(1); again != first {
		t.Error("the same configuration opened another backend")
	}
	if _, platform := k.describe("v1"); platform != Platform("v1", first.Fingerprint().String()) {
		t.Errorf("platform %q", platform)
	}
	if other := open(2); other == first {
		t.Error("another configuration kept the backend")
	}
	for range 2 {
		if err := k.close(); err != nil {
			t.Error(err)
		}
	}
}
