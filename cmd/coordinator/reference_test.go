package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCommandsOfTheDocsRun runs every `coordinator sample --energy` of the reference and of the guide, with few samples and
// in pure Go.
func TestCommandsOfTheDocsRun(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	files, err := filepath.Glob(filepath.Join(docs, "reference", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join(docs, "coming-from-torchebm.md"))
	word := regexp.MustCompile(`'[^']*'|\S+`)
	ran := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			rest, ok := strings.CutPrefix(strings.TrimSpace(line), "coordinator ")
			if !ok || !strings.Contains(rest, "--energy") {
				continue
			}
			var args []string
			for _, w := range word.FindAllString(rest, -1) {
				args = append(args, strings.Trim(w, "'"))
			}
			ran++
			t.Run(rest, func(t *testing.T) {
				var output bytes.Buffer
				root := newRootCommand()
				root.SetOut(&output)
				root.SetErr(&output)
				root.SetArgs(append(args, "--samples", "32", "--burn", "2", "--chains", "16", "--backend", "go", "--out", filepath.Join(t.TempDir(), "x.npz")))
				if err := root.ExecuteContext(t.Context()); err != nil {
					t.Errorf("%s: %v\n%s", filepath.Base(file), err, output.String())
				}
			})
		}
	}
	if ran < 15 {
		t.Errorf("%d commands, want those of the pages", ran)
	}
}
