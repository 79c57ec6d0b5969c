package transport

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// check refuses options that contradict each other, and secrets where other users of the machine could read them.
func (o Options) check() error {
	ways := 0
	for _, given := range []string{o.User, o.Token, o.Credentials} {
		if given != "" {
			ways++
		}
	}
	switch {
	case (o.URL == "") == (o.Server == nil):
		return errors.New("want a URL or a server in this process, and not both")
	case strings.Contains(o.URL, "@"):
		return errors.New("a URL with a user or a secret before an @, want those apart from it")
	case ways > 1:
		return errors.New("a user, a token and credentials, want one of them at most")
	case o.User != "" && o.Server != nil:
		return fmt.Errorf("user %s at a server in this process, want none: such a connection may do everything", o.User)
	case o.User == "" && (o.Secret != "" || o.SecretFile != ""):
		return errors.New("a secret without a user")
	case o.User != "" && (o.Secret == "") == (o.SecretFile == ""):
		return fmt.Errorf("user %s, want a secret or a file with it, and not both", o.User)
	}
	return nil
}

// secret is what the user shows; it is asked for at every connection, so that a file may have changed.
func (o Options) secret() (string, error) {
	if o.SecretFile == "" {
		return o.Secret, nil
	}
	data, err := os.ReadFile(o.SecretFile)
	if err != nil {
		return "", fmt.Errorf("secret of user %s: %w", o.User, err)
	}
	return strings.TrimSpace(string(data)), nil
}

// asUser makes a connection show a user and the secret, and go on trying where a server refuses them: one that has only
// just started may not know the experiment yet.
func (o Options) asUser(notify func(Event)) []nats.Option {
	show := func() (string, string) {
		secret, err := o.secret()
		if err != nil {
			notify(Event{Unauthorized, "", err})
		}
		return o.User, secret
	}
	return []nats.Option{nats.UserInfoHandler(show), nats.IgnoreAuthErrorAbort()}
}

// refusedBy reports whether err is a server's word that the connection may not do what it wanted.
func refusedBy(err error) bool {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrPermissionViolation} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// denied is the subject that a permission violation is about, which NATS has in its text alone, and whether the server
// refused a message to it or a subscription.
func denied(err error) (subject string, message bool) {
	for _, what := range []string{"Publish", "Subscription"} {
		if _, quoted, found := strings.Cut(err.Error(), what+` to "`); found {
			subject, _, _ = strings.Cut(quoted, `"`)
			return subject, what == "Publish"
		}
	}
	return "", false
}

// authenticator lets the users of a server in, each into its experiment alone.
type authenticator struct {
	experiment func(user, secret string) (uint64, bool)
}

// Check implements the server's interface.
func (a authenticator) Check(c server.ClientAuthentication) bool {
	if remote := c.RemoteAddress(); remote != nil && remote.Network() == "pipe" { // of this process
		return true
	}
	shown := c.GetOpts()
	if shown.Username == "" {
		return false
	}
	experiment, ok := a.experiment(shown.Username, shown.Password)
	if ok {
		c.RegisterUser(&server.User{Username: shown.Username, Permissions: permissions(SubjectsOf(experiment))})
	}
	return ok
}

// answerTime is how long after a request its answer may be sent.
const answerTime = 10 * time.Second

// permissions are those of a member of an experiment. It may answer every request that it gets, also one of the coordinator,
// whose subjects for answers are not the experiment's.
func permissions(s Subjects) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{s.all()}},
		Subscribe: &server.SubjectPermission{Allow: []string{s.all(), s.inbox() + ".>"}},
		Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: answerTime},
	}
}
