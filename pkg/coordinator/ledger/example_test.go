package ledger_test

import (
	"fmt"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func ExampleState_Apply() {
	state := ledger.New()
	propose := func(cmd ledger.Command) ledger.Outcome {
		data, err := ledger.Encode(ledger.Entry{Exp: ledger.ID{1}, At: time.Now(), Command: cmd})
		if err != nil {
			panic(err)
		}
		return state.Apply(state.Index()+1, data)
	}
	propose(ledger.ExpCreate{Name: "moons", Steps: 900, Shards: 2})
	fmt.Println(propose(ledger.Register{Replica: "r0", Incarnation: 7}).Value)
	fmt.Println(propose(ledger.Register{Replica: "r0", Incarnation: 8}).Err)
	fmt.Println(propose(ledger.GenerationOpen{Number: 1, Holders: []string{"r0", "r0"}, From: ledger.Start}).Err)
	fmt.Println(propose(ledger.GenerationOpen{Number: 1, From: ledger.Start}).Err)
	e, _ := state.Experiment("moons")
	for _, event := range e.Events {
		fmt.Println(event.Index, event.Kind, event.Text)
	}
	// Output:
	// 2
	// conflict: another process of replica r0 has lease 2
	// <nil>
	// stale: generation 1, want 2
	// 1 created steps: 900, shards: 2
	// 2 registered replica r0, lease 2
	// 4 generation 1 from the start, replicas at work: 1
}
