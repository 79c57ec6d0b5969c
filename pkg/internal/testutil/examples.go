package testutil

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Examples are the experiments of the examples' folder, by their paths in it without the ending: "two-moons",
// "digits/conv".
func Examples(t testing.TB) []string {
	t.Helper()
	var names []string
	root := os.DirFS(filepath.Join(Root(), "examples"))
	err := fs.WalkDir(root, ".", func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(path, ".yaml"); ok {
			names = append(names, name)
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("%d examples: %v", len(names), err)
	}
	return names
}
