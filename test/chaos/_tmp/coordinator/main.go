package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/server"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

func main() {
	if os.Args[1] == "train" {
		panic(syscall.Exec("/tmp/chaosbin/coordinator", os.Args, os.Environ()))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fs := flag.NewFlagSet("serve", flag.ExitOnError)
	var c server.Config
	var peers, cl, routes string
	fs.StringVar(&c.Consensus.Name, "name", "", "")
	fs.StringVar(&c.Consensus.DataDir, "data-dir", "", "")
	fs.StringVar(&c.TokenFile, "admin-token-file", "", "")
	fs.StringVar(&c.Listen, "listen", "", "")
	fs.StringVar(&c.Consensus.API, "advertise", "", "")
	fs.StringVar(&c.Consensus.Peer.Listen, "peer-listen", "", "")
	fs.StringVar(&c.Consensus.Peer.Advertise, "peer-advertise", "", "")
	fs.StringVar(&c.NATS.Listen, "nats-listen", "", "")
	fs.StringVar(&c.Consensus.NATS, "nats-advertise", "", "")
	fs.IntVar(&c.Consensus.Expect, "bootstrap-expect", 0, "")
	fs.StringVar(&peers, "peers", "", "")
	fs.StringVar(&cl, "nats-cluster-listen", "", "")
	fs.StringVar(&routes, "nats-routes", "", "")
	fs.Parse(os.Args[2:])
	if peers != "" {
		c.Consensus.Peers = strings.Split(peers, ",")
	}
	if cl != "" {
		c.NATS.Cluster = &transport.Cluster{Name: "kelvin", Listen: cl, Routes: strings.Split(routes, ","), Secret: "x"}
	}
	c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if err := server.Serve(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
