package consensus_test

import (
	"context"
	"fmt"
	"os"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func ExampleNode() {
	dir, err := os.MkdirTemp("", "kelvin-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	node, err := consensus.Open(ctx, consensus.Config{Name: "c0", DataDir: dir})
	if err != nil {
		panic(err)
	}
	defer node.Close()
	reign, err := node.Leadership(ctx)
	if err != nil {
		panic(err)
	}
	outcome, err := node.Apply(reign, ledger.ID{}, ledger.QuotaPut{Quota: ledger.Quota{Owner: "ada", Replicas: 8}})
	if err != nil || outcome.Err != nil {
		panic(fmt.Sprint(err, outcome.Err))
	}
	_, _, err = node.View(ctx, consensus.Linearizable, func(s *ledger.State) { fmt.Println(s.Quota("ada").Replicas, "replicas") })
	if err != nil {
		panic(err)
	}
	// Output: 8 replicas
}
