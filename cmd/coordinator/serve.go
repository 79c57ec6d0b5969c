package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kelvin-ebm/kelvin/pkg/certs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/server"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// serveFlags are what `serve` is told.
type serveFlags struct {
	cfg       server.Config
	tls       certs.Files
	clustered string // address for the routes of the other message servers
	routes    []string
	secret    string // file with what message servers show each other
	blobRate  float64
	readyFile string
	logFormat string
	logLevel  string
}

func newServeCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a coordinator: experiments, leases, cuts and the replay buffer, kept by consensus",
		Long: `Run a coordinator. One is enough to begin with; three keep everything when one is lost. Experiments are submitted with
"coordinator submit", and worked on by replicas, the program replica, which ask for work.

The first leader writes a token for people into admin-token in its data directory. A coordinator alone can be joined by others
later, without a stop: start them with --join. Replicas and people reach the cluster by the URL of any coordinator.

Ctrl-C or SIGTERM hands the leadership over and ends. Exit code 75 asks to be started again.`,
		Example: `  coordinator serve
  coordinator serve --name a --listen :8443 --peer-listen :7000 --nats-listen :4222 --tls-cert a.pem --tls-key a.key --tls-ca ca.pem \
      --bootstrap-expect 3 --peers a:7000,b:7000,c:7000 --nats-cluster-listen :6222 --nats-routes a:6222,b:6222,c:6222
  coordinator serve --name a --data-dir a --nats-cluster-listen 127.0.0.1:6222
  coordinator serve --name b --data-dir b --listen 127.0.0.1:8444 --nats-listen 127.0.0.1:4223 --peer-listen 127.0.0.1:7001 \
      --nats-cluster-listen 127.0.0.1:6223 --nats-routes 127.0.0.1:6222 --join 127.0.0.1:7000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.serve(cmd) },
	}
	name, err := os.Hostname()
	if err != nil {
		name = "coordinator"
	}
	name, _, _ = strings.Cut(name, ".")
	c, flags := &f.cfg.Consensus, cmd.Flags()
	flags.StringVar(&c.Name, "name", name, "of this coordinator for good, unique in the cluster")
	flags.StringVar(&c.DataDir, "data-dir", "kelvin-data", "`folder` for the log, snapshots and blobs; it belongs to this coordinator alone")
	flags.StringVar(&c.BlobDir, "blob-dir", "", "`folder` for the blobs, on another disk perhaps (default: in the data directory)")
	flags.StringVar(&f.cfg.Listen, "listen", "127.0.0.1:8443", "`address` of the HTTP interface")
	flags.StringVar(&c.API, "advertise", "", "`URL` of that for others (default: the address)")
	flags.StringVar(&f.cfg.NATS.Listen, "nats-listen", "127.0.0.1:4222", "`address` of the message server in this process")
	flags.StringVar(&c.NATS, "nats-advertise", "", "`URL` of that for replicas (default: the address)")
	flags.StringVar(&f.clustered, "nats-cluster-listen", "", "`address` for the message servers of the other coordinators; give it to the first one too, if others may join later")
	flags.StringSliceVar(&f.routes, "nats-routes", nil, "`addresses` of all coordinators' message servers, for each other")
	flags.StringVar(&f.secret, "nats-cluster-secret-file", "", "`file` with what message servers show each other, in place of certificates")
	flags.StringVar(&f.cfg.NATS.URL, "nats-url", "", "`URLs` of a NATS of your own, in place of the one in this process")
	flags.StringVar(&f.cfg.NATS.Dial.Credentials, "nats-credentials", "", "`file` with the user's JWT and seed for that")
	flags.StringVar(&f.cfg.NATS.Dial.User, "nats-user", "", "`name` of the user there, in place of a JWT")
	flags.StringVar(&f.cfg.NATS.Dial.SecretFile, "nats-password-file", "", "`file` with that user's password")
	flags.StringVar(&c.Peer.Listen, "peer-listen", "127.0.0.1:7000", "`address` of the port of the other coordinators; \"\": this one stays alone")
	flags.StringVar(&c.Peer.Advertise, "peer-advertise", "", "`host:port` of that for the others, a name that stays rather than an address")
	flags.IntVar(&c.Expect, "bootstrap-expect", 0, "wait for so many new coordinators, those of --peers, and begin the cluster with them")
	flags.StringSliceVar(&c.Peers, "peers", nil, "`addresses` of their peer ports, with or without this one's")
	flags.StringVar(&c.Join, "join", "", "`address` of the peer port of any coordinator of a cluster to join")
	flags.BoolVar(&c.Nonvoter, "nonvoter", false, "with --join: follow, without a part in decisions")
	flags.DurationVar(&c.Heartbeat, "heartbeat", time.Second, "how long a follower does without a leader")
	flags.DurationVar(&c.Election, "election", time.Second, "how long a candidate waits for votes")
	flags.DurationVar(&c.Lease, "lease", time.Second, "how long a leader goes on without a majority; at most --heartbeat")
	flags.Float64Var(&f.blobRate, "blob-write-rate", 200, "most that is written to the blobs, in `MB/s`: the disk is the log's too")
	flags.StringVar(&f.tls.Cert, "tls-cert", "", "`file` with the certificate, PEM; see coordinator certs")
	flags.StringVar(&f.tls.Key, "tls-key", "", "`file` with its key")
	flags.StringVar(&f.tls.CA, "tls-ca", "", "`file` with the authority that signs those of all coordinators")
	flags.BoolVar(&f.cfg.Insecure, "insecure", false, "listen anywhere without TLS, with the peer port too, where something else encrypts the network")
	flags.StringVar(&f.cfg.Admin, "admin-listen", "", "`address` for profiles and metrics, without tokens; keep it to this machine")
	flags.StringVar(&f.cfg.TokenFile, "admin-token-file", "", "`file` for the first token (default: admin-token in the data directory)")
	flags.StringVar(&f.readyFile, "ready-file", "", "`file` to write once the coordinator is reached, with its addresses as JSON")
	flags.StringVar(&f.logFormat, "log", "auto", "text, json or auto, which is text at a terminal")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func (f *serveFlags) serve(cmd *cobra.Command) error {
	cfg := &f.cfg
	flags := cmd.Flags()
	credentials, user := cfg.NATS.Dial.Credentials != "", cfg.NATS.Dial.User != ""
	if user != (cfg.NATS.Dial.SecretFile != "") || user && credentials {
		return usageErrorf("--nats-credentials, --nats-user, --nats-password-file: want the first alone or the other two")
	}
	if cfg.NATS.URL != "" {
		if flags.Changed("nats-listen") || f.clustered != "" || len(f.routes) > 0 {
			return usageErrorf("--nats-url: a NATS of your own takes the place of the one in this process, want no --nats-listen, --nats-cluster-listen, --nats-routes")
		}
		if !credentials && !user {
			return usageErrorf("--nats-url: want --nats-credentials, or --nats-user and --nats-password-file: the secrets of experiments are not for others' servers")
		}
		cfg.NATS.Listen = ""
	} else if credentials || user {
		return usageErrorf("--nats-credentials, --nats-user: are for a NATS of your own, want --nats-url")
	}
	if f.clustered == "" && f.secret != "" {
		return usageErrorf("--nats-cluster-secret-file: is for the message servers of the other coordinators, want --nats-cluster-listen too")
	}
	if f.clustered == "" && len(f.routes) > 0 {
		return usageErrorf("--nats-routes: the others find this one by its own address, want --nats-cluster-listen too")
	}
	if !(f.blobRate > 0) {
		return usageErrorf("--blob-write-rate: %g, want a positive number of MB/s", f.blobRate)
	}
	cfg.Consensus.BlobRate = int64(f.blobRate * 1e6)
	var err error
	if cfg.Log, err = f.log(cmd); err != nil {
		return err
	}
	if f.clustered != "" {
		cfg.NATS.Cluster = &transport.Cluster{Name: "kelvin", Listen: f.clustered, Routes: f.routes}
		// The name that replicas know it by is one that its certificate holds.
		if u, err := url.Parse(cfg.Consensus.NATS); err == nil {
			cfg.NATS.Cluster.Advertise = strings.TrimSuffix(u.Host, ":"+u.Port())
		}
		if f.secret != "" {
			text, err := os.ReadFile(f.secret)
			if err != nil {
				return usageErrorf("--nats-cluster-secret-file: %w", err)
			}
			if cfg.NATS.Cluster.Secret = strings.TrimSpace(string(text)); cfg.NATS.Cluster.Secret == "" {
				return usageErrorf("--nats-cluster-secret-file: %s is empty", f.secret)
			}
		}
	}
	if err := f.secure(); err != nil {
		return usageError{err}
	}
	cfg.Version = version()
	cfg.Ready = func(r server.Reached) {
		cfg.Log.Info("coordinator", "name", cfg.Consensus.Name, "api", r.API, "nats", r.NATS, "peer", r.Peer, "version", cfg.Version)
		if f.readyFile == "" {
			return
		}
		if err := writeReady(f.readyFile, r); err != nil {
			cfg.Log.Error("--ready-file", "error", err)
		}
	}
	return server.Serve(cmd.Context(), *cfg)
}

// writeReady writes where the coordinator is reached, in one step: whoever waits for the file finds all of it.
func writeReady(path string, r server.Reached) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".tmp", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// secure takes the certificates over.
func (f *serveFlags) secure() error {
	if f.tls == (certs.Files{}) {
		return nil
	}
	if f.tls.Cert == "" || f.tls.CA == "" {
		return errors.New("--tls-cert, --tls-key, --tls-ca: want all three: coordinators show each other who they are")
	}
	loaded, err := certs.Load(f.tls, f.cfg.Log)
	if err != nil {
		return err
	}
	outside, err := loaded.Server()
	if err != nil {
		return err
	}
	peers, err := loaded.Mutual()
	if err != nil {
		return err
	}
	f.cfg.TLS = outside
	f.cfg.Consensus.TLS = &consensus.TLS{Server: peers, Client: func() *tls.Config { return peers }}
	if f.cfg.NATS.URL != "" {
		f.cfg.NATS.TLS = loaded.Client()
	} else {
		f.cfg.NATS.TLS = outside
	}
	if c := f.cfg.NATS.Cluster; c != nil {
		c.TLS = peers
	}
	return nil
}

func (f *serveFlags) log(cmd *cobra.Command) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, usageErrorf("--log-level: %q, want debug, info, warn or error", f.logLevel)
	}
	out := cmd.ErrOrStderr()
	file, isFile := out.(*os.File)
	terminal := isFile && term.IsTerminal(int(file.Fd()))
	if f.logFormat != "auto" && f.logFormat != "text" && f.logFormat != "json" {
		return nil, usageErrorf("--log: %q, want text, json or auto", f.logFormat)
	}
	return slog.New(runlog.NewHandler(out, runlog.LogOptions{
		Level: level, JSON: f.logFormat == "json" || f.logFormat == "auto" && !terminal, Color: terminal && os.Getenv("NO_COLOR") == "",
	})), nil
}
