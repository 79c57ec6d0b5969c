// Command build makes the programs of the control plane that are not in the cache yet: go run ./cmd/build, in this module.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/kelvin-ebm/kelvin/test/kube/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir := controlplane.Cache()
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = controlplane.Build(ctx, dir, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "build of %s: %v\n", filepath.Base(dir), err)
		os.Exit(1)
	}
}
