package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	co := flag.String("coordinator", "", "")
	tf := flag.String("token-file", "", "")
	id := flag.String("id", "", "")
	flag.Parse()
	token, err := api.ReadToken(*tf)
	if err != nil {
		panic(err)
	}
	c, err := api.New(api.Config{Endpoints: strings.Split(*co, ","), Token: token, Silence: 25 * time.Second, Patience: -1})
	if err != nil {
		panic(err)
	}
	inc := rand.Uint64()
	for ctx.Err() == nil {
		a, ok, err := c.Ask(ctx, api.Ask{ID: *id, Incarnation: inc, Device: "cpu", Platform: "x"})
		fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), "ask", ok, err, a.Experiment)
		if err != nil || !ok {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		o := replica.Options{URL: strings.Join(a.NATS, ","), Token: a.Secret, ID: *id, Build: local.Replicated, Version: local.Version(), Patience: 10 * time.Minute,
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
		o.Dial.User, o.Dial.Secret = a.UID, a.Secret
		err = replica.Main(ctx, o)
		fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), "main", err)
		if errors.Is(err, replica.ErrPreempted) {
			os.Exit(143)
		}
	}
	os.Exit(143)
}
