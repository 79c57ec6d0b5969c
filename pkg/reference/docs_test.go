package reference_test

import (
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// guide reads docs/coming-from-torchebm.md.
func guide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testutil.Root(), "docs", "coming-from-torchebm.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestYAMLOfTheGuideLoads(t *testing.T) {
	files := blocks(guide(t), "yaml")
	if len(files) < 10 {
		t.Fatalf("%d blocks of YAML, want those of the guide", len(files))
	}
	for _, file := range files {
		text := "\n" + file
		// Most are parts of an experiment.
		if !strings.Contains(text, "\ndata:") {
			text += "data: {dataset: two_moons}\n"
		}
		if !strings.Contains(text, "\ntrain:") {
			text += "train: {steps: 1000}\n"
		}
		if _, err := experiment.Parse("guide.yaml", []byte(text), nil); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

func TestYAMLOfTheGuideSaysWhatTheArticleSays(t *testing.T) {
	want, err := experiment.Load(filepath.Join(testutil.Root(), "examples", "article.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range blocks(guide(t), "yaml") {
		if !strings.Contains(file, "compat: torchebm") {
			continue
		}
		got, err := experiment.Parse(filepath.Join(testutil.Root(), "examples", "article.yaml"), []byte(file), []string{"name=article", "seed=7"})
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equal(want) {
			t.Errorf("the training of the guide is not examples/article.yaml:\n%s", file)
		}
		return
	}
	t.Error("no block with compat: torchebm")
}

// Every line of Go in the guide stands in the examples of this package, which run.
func TestGoOfTheGuideRuns(t *testing.T) {
	source, err := os.ReadFile("torchebm_test.go")
	if err != nil {
		t.Fatal(err)
	}
	flat := func(text string) string { return regexp.MustCompile(`(?m)^\t+`).ReplaceAllString(text, "") }
	for _, block := range blocks(guide(t), "go") {
		if formatted, err := format.Source([]byte(block)); err != nil || string(formatted) != block {
			t.Errorf("gofmt would write this otherwise (%v):\n%s", err, block)
		}
		if !strings.Contains(flat(string(source)), flat(block)) {
			t.Errorf("pkg/reference/torchebm_test.go does not have this:\n%s", block)
		}
	}
}

func TestFilesThatTheGuideLinksAreThere(t *testing.T) {
	docs := filepath.Join(testutil.Root(), "docs")
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`).FindAllStringSubmatch(guide(t), -1) {
		if _, err := os.Stat(filepath.Join(docs, m[1])); err != nil {
			t.Errorf("a link to a file that is not there: %v", err)
		}
	}
}
