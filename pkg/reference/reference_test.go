package reference_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/reference"
)

// blocks are the fenced blocks of a Markdown text in one language.
func blocks(text, language string) (out []string) {
	fence := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```$")
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

func pages(t *testing.T) []reference.Page {
	t.Helper()
	out, err := reference.Pages()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPagesAreUpToDate(t *testing.T) {
	folder := filepath.Join(testutil.Root(), "docs", "reference")
	known := map[string]bool{}
	for _, page := range pages(t) {
		known[page.File] = true
		got, err := os.ReadFile(filepath.Join(folder, page.File))
		if err != nil || string(got) != page.Text {
			t.Errorf("docs/reference/%s does not say what the code says: `go run ./cmd/coordinator config reference` writes it anew\n%s",
				page.File, cmp.Diff(strings.Split(string(got), "\n"), strings.Split(page.Text, "\n")))
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("docs/reference/%s is no page of the reference: remove it", f.Name())
		}
	}
}

func TestEveryEntryHasAnExampleThatLoads(t *testing.T) {
	for _, page := range pages(t) {
		for _, text := range strings.Split(page.Text, "\n## ")[1:] {
			name, _, _ := strings.Cut(text, "\n")
			t.Run(page.File+"/"+name, func(t *testing.T) {
				files, lines := blocks(text, "yaml"), blocks(text, "sh")
				if len(files)+len(lines) == 0 {
					t.Fatalf("no example: give %s one in pkg/reference/examples.go", name)
				}
				for _, file := range files {
					if !strings.Contains(file, name) && page.File != "training.md" && name != "constant" && !strings.HasSuffix(name, "leapfrog") {
						t.Errorf("the example of %s does not name it:\n%s", name, file)
					}
					if _, err := experiment.Parse("example.yaml", []byte(file), nil); err != nil {
						t.Errorf("%v\n%s", err, file)
					}
				}
			})
		}
	}
}

func TestLinksLead(t *testing.T) {
	all := map[string]string{}
	for _, page := range pages(t) {
		all[page.File] = page.Text
	}
	link := regexp.MustCompile(`\]\(([a-z]*\.md)?#([^)]+)\)`)
	for file, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := m[1]
			if to == "" {
				to = file
			}
			if !strings.Contains(all[to], "\n## "+m[2]+"\n") {
				t.Errorf("%s: the link %s leads nowhere", file, m[0])
			}
		}
	}
}
