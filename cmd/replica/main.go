// Command replica works for the coordinators of trainings: it takes shards and trains them with the other replicas.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/certs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the first signal leaves in good order; a second one kills
	cmd := newCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "error:", err)
	}
	return replica.ExitCode(err)
}

// indexVariable is where an indexed Job of Kubernetes says which of its pods this is.
const indexVariable = "JOB_COMPLETION_INDEX"

// options are what the command line says.
type options struct {
	coordinator, tokenFile, id string
	experiment                 string
	once                       bool
	ca, credentials            string
	natsUser, natsPassword     string // the latter a file
	insecure                   bool
	health                     string
	device                     int
	grace, patience            time.Duration
	noInstall                  bool
}

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "replica --coordinator URL --token-file FILE",
		Short: "Train shards of experiments, as their coordinators say",
		Long: `Train shards of experiments, as their coordinators say. With the https URLs of coordinators it works for one experiment after
the other, whichever has work for it, or with --experiment for one until that is done. With the nats URL of a single training
(coordinator train --spawn none) it works for that. SIGTERM leaves in good order: the shards go elsewhere first, and no step
is lost.

Exit codes: 0 the training is done or cancelled, 42 the experiment cannot be had here or came to a bad end, 43 another program
or device than the other replicas', 75 no coordinator can be reached, 143 asked to end. Only 42 and 43 would fail again.`,
		Example: `  replica --coordinator https://a:8443,https://b:8443,https://c:8443 --token-file /run/secrets/kelvin --id gpu0
  replica --coordinator https://a:8443 --token-file token --id gpu1 --device 1 --experiment digits --health 127.0.0.1:8081
  replica --coordinator nats://127.0.0.1:4222 --token-file token --id 0`,
		Version:       local.Version(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return o.work(cmd) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", replica.ErrConfig, err) })
	f := cmd.Flags()
	f.StringVar(&o.coordinator, "coordinator", "", "`URLs` of coordinators (https, or http on this machine) or of a training's message server (nats, tls), separated by commas")
	f.StringVar(&o.tokenFile, "token-file", "", "`file` with the token that they ask for (default: the variable "+local.TokenVariable+")")
	f.StringVar(&o.id, "id", os.Getenv(indexVariable), "name of this replica (default: the variable "+indexVariable+")")
	f.StringVar(&o.experiment, "experiment", "", "`name` of the only experiment to work for; the replica ends with it")
	f.BoolVar(&o.once, "once", false, "work for one experiment and end")
	f.DurationVar(&o.patience, "patience", 0, "how long to wait for coordinators that are silent (default 10m; of a single training one lease, 5s)")
	f.StringVar(&o.ca, "ca", "", "`file` with the certificates to trust, PEM (default: those of the system)")
	f.BoolVar(&o.insecure, "insecure", os.Getenv(local.InsecureVariable) == "1", "ask coordinators anywhere without TLS, where something else encrypts the network (default: the variable "+local.InsecureVariable+")")
	f.StringVar(&o.credentials, "nats-credentials", "", "`file` with the user's JWT and seed, where the coordinators use a NATS of your own")
	f.StringVar(&o.natsUser, "nats-user", "", "`name` of the user there, in place of a JWT")
	f.StringVar(&o.natsPassword, "nats-password-file", "", "`file` with that user's password")
	f.StringVar(&o.health, "health", "", "`address` for /livez and /readyz, such as 127.0.0.1:8081")
	f.IntVar(&o.device, "device", -1, "number of the GPU to use; -1 leaves the choice to the driver")
	f.DurationVar(&o.grace, "grace", 25*time.Second, "how long to wait, when asked to end, until the shards are elsewhere")
	f.BoolVar(&o.noInstall, "no-install", false, "never download the XLA plugin (also KELVIN_NO_INSTALL=1)")
	return cmd
}

// work does what the command line says.
func (o *options) work(cmd *cobra.Command) error {
	token, err := local.ReadToken(o.tokenFile)
	if err != nil {
		return fmt.Errorf("%w: %w", replica.ErrConfig, err)
	}
	trust, pooled, err := o.check()
	if err != nil {
		return fmt.Errorf("%w: %w", replica.ErrConfig, err)
	}
	if o.device >= 0 {
		// The driver reads it when the plugin is loaded.
		if err := os.Setenv("CUDA_VISIBLE_DEVICES", fmt.Sprint(o.device)); err != nil {
			return err
		}
	}
	opts := replica.Options{
		ID: o.id, Build: local.Replicated, Version: local.Version(), Grace: o.grace, Patience: o.patience,
		Dial:    transport.Options{TLS: trust, Credentials: o.credentials, User: o.natsUser, SecretFile: o.natsPassword},
		Backend: backend.Options{NoInstall: o.noInstall, Progress: cmd.ErrOrStderr()},
		Log:     slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)),
	}
	if o.health != "" {
		opts.Status = new(replica.Status)
		closeHealth, err := serveHealth(cmd.Context(), o.health, opts.Status)
		if err != nil {
			return fmt.Errorf("%w: --health: %w", replica.ErrConfig, err)
		}
		defer closeHealth()
	}
	if !pooled {
		opts.URL, opts.Token = o.coordinator, token
		return replica.Main(cmd.Context(), opts)
	}
	client, err := api.New(api.Config{Endpoints: strings.Split(o.coordinator, ","), Token: token, TLS: trust, Insecure: o.insecure})
	if err != nil {
		return fmt.Errorf("%w: --coordinator: %w", replica.ErrConfig, err)
	}
	defer client.Close()
	return replica.Pool(cmd.Context(), replica.PoolOptions{Options: opts, Coordinators: client, Experiment: o.experiment, Once: o.once})
}

// check says what is wrong with the command line, whether the coordinators are to be asked for work, and whom to trust; nil: whom
// the system does.
func (o *options) check() (trust *tls.Config, pooled bool, err error) {
	if o.coordinator == "" {
		return nil, false, errors.New("--coordinator: missing, want its URL, such as https://coordinator:8443")
	}
	if o.id == "" {
		return nil, false, fmt.Errorf("--id: missing, and %s is not set, want a name that no other replica has", indexVariable)
	}
	if _, err := transport.ParseToken(o.id); err != nil {
		return nil, false, fmt.Errorf("--id: %w", err)
	}
	if (o.natsUser == "") != (o.natsPassword == "") || o.natsUser != "" && o.credentials != "" {
		return nil, false, errors.New("--nats-credentials, --nats-user, --nats-password-file: want the first alone or the other two")
	}
	if o.patience < 0 {
		return nil, false, fmt.Errorf("--patience: %v, want more than none", o.patience)
	}
	var first string
	for i, url := range strings.Split(o.coordinator, ",") {
		kind, ok := map[string]string{"http": "http", "https": "http", "nats": "nats", "tls": "nats"}[scheme(url)]
		if !ok {
			return nil, false, fmt.Errorf("--coordinator: %q, want URLs that begin with https, or nats or tls of a single training", url)
		}
		if first = cmp.Or(first, kind); i > 0 && kind != first {
			return nil, false, fmt.Errorf("--coordinator: %q, want URLs of coordinators or of message servers, not of both", o.coordinator)
		}
	}
	if pooled = first == "http"; !pooled && (o.experiment != "" || o.once) {
		return nil, false, fmt.Errorf("--experiment, --once: %s is of a single training, want the https URL of a coordinator with them", o.coordinator)
	}
	if o.ca != "" {
		loaded, err := certs.Load(certs.Files{CA: o.ca}, nil)
		if err != nil {
			return nil, false, fmt.Errorf("--ca: %w", err)
		}
		trust = loaded.Client()
	}
	return trust, pooled, nil
}

func scheme(url string) string {
	s, _, _ := strings.Cut(url, "://")
	return strings.ToLower(s)
}

// serveHealth answers at an address what a replica does, until it is closed.
func serveHealth(ctx context.Context, address string, status *replica.Status) (func(), error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: status.Handler(), ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with Close
	}()
	return func() {
		server.Close()
		<-done
	}, nil
}
