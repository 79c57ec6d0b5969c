package consensus

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func TestEntriesThatNameBlobsMayBeLarge(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.configure("a")
	c.start("a")
	n := c.leader()
	var parts []ledger.Part
	for i := range 1000 {
		parts = append(parts, ledger.Part{Name: fmt.Sprintf("part-of-a-large-cut-%04d.safetensors", i), Digest: ledger.Digest{1}})
	}
	for _, cmd := range []ledger.Command{
		ledger.CutCommit{Manifest: ledger.Digest{1}, Parts: parts},
		ledger.CutReplace{Manifest: ledger.Digest{1}, Parts: parts},
		ledger.ExpRespec{Manifest: ledger.Digest{1}, Parts: parts, Shards: 1},
	} {
		if out, err := n.Apply(within(t), ledger.ID{1}, cmd); err != nil || !errors.Is(out.Err, ledger.ErrNotFound) {
			t.Errorf("%T of an experiment that is not there: %v, %v, want the ledger's word", cmd, out.Err, err)
		}
	}
}
