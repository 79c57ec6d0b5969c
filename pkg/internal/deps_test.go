package internal_test

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

const module = "github.com/kelvin-ebm/kelvin/"

type listed struct {
	ImportPath string
	Imports    []string
}

// layers, from the top: a package imports only packages of layers below its own.
var layers = [][]string{
	{"cmd/coordinator", "cmd/replica"},
	{"test/chaos", "pkg/coordinator/server", "pkg/kube"},
	{"pkg/local", "pkg/reference"},
	{"pkg/coordinator"},
	{"pkg/coordinator/consensus"},
	{"pkg/coordinator/blobs"},
	{"pkg/replica"},
	{"pkg/coordinator/api"},
	{"pkg/coordinator/ledger"},
	{"pkg/plots", "pkg/runlog", "pkg/experiment", "pkg/plan"},
	{"pkg/engine"},
	{"pkg/transport"},
	{"pkg/losses", "pkg/samplers", "pkg/checkpoint"},
	{"pkg/interpolants", "pkg/integrators", "pkg/couplings"},
	{"pkg/models", "pkg/datasets"},
	{"pkg/backend"},
	{"pkg/tempering", "pkg/averaging", "pkg/buffer", "pkg/schedules"},
	{"pkg/diagnostics"},
	{"pkg/internal/atomicfile", "pkg/internal/rng", "pkg/certs"},
}

// only says which packages alone may import a third-party module (or one of its packages).
var only = map[string][]string{
	"github.com/gomlx/gomlx/pkg/core/graph": {"pkg/backend", "pkg/models", "pkg/integrators", "pkg/interpolants", "pkg/losses", "pkg/samplers", "pkg/engine"},
	"github.com/gomlx/gomlx/backends":       {"pkg/backend"},
	"github.com/gomlx/go-xla":               {"pkg/backend"},
	"github.com/spf13/cobra":                {"cmd/coordinator", "cmd/replica"},
	"github.com/goccy/go-yaml":              {"pkg/experiment", "cmd/coordinator"},
	"github.com/sbinet/npyio":               {"pkg/datasets"},
	"gonum.org/v1/plot":                     {"pkg/plots"},
	"github.com/vbauerster/mpb":             {"pkg/runlog", "pkg/backend"},
	"github.com/nats-io":                    {"pkg/transport"},
	"github.com/hashicorp":                  {"pkg/coordinator/consensus"},
	"github.com/prometheus":                 {"pkg/coordinator/server"},
	"k8s.io/client-go":                      {"pkg/kube"},
}

// pure packages import the standard library, gonum and the counter-based generator, nothing else.
var pure = []string{"pkg/tempering", "pkg/averaging", "pkg/buffer", "pkg/diagnostics", "pkg/schedules", "pkg/internal/rng", "pkg/certs"}

// TestImportRules checks the arrows between packages and who may import which library. Test files are free.
func TestImportRules(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./cmd/...", "./pkg/...")
	cmd.Dir = testutil.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	layerOf := map[string]int{}
	for i, layer := range layers {
		for _, p := range layer {
			layerOf[p] = i
		}
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == "pkg/internal/testutil" || name == "pkg/internal" || strings.HasPrefix(name, "examples/") {
			continue
		}
		here, known := layerOf[name]
		if !known {
			t.Errorf("%s has no place in the layers of this test: give it one", name)
			continue
		}
		for _, imp := range p.Imports {
			if rest, ok := strings.CutPrefix(imp, module); ok {
				if layerOf[rest] <= here {
					t.Errorf("%s imports %s, which is on its own layer or above", name, rest)
				}
				continue
			}
			for library, users := range only {
				if (imp == library || strings.HasPrefix(imp, library+"/")) && !slices.Contains(users, name) {
					t.Errorf("%s imports %s, which belongs to %s alone", name, imp, strings.Join(users, ", "))
				}
			}
			if slices.Contains(pure, name) && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !strings.HasPrefix(imp, "gonum.org/v1/gonum") {
				t.Errorf("%s imports %s: it may use the standard library and gonum only", name, imp)
			}
		}
	}
}
