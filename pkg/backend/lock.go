package backend

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// The lock file pins the plugins by version and hash. To raise a version, edit it and let the numerics tests of this
// package and the training tests run on the new plugin.
//
//go:embed plugins.lock.json
var lockFile []byte

// Wheel is a pinned Python wheel with an XLA plugin in it.
type Wheel struct {
	Flavor        string `json:"flavor"`         // cpu or cuda13, as `backend install` takes it
	Name          string `json:"name"`           // of the package
	Version       string `json:"version"`        // of the package
	File          string `json:"file"`           // of the wheel
	SHA256        string `json:"sha256"`         // of the wheel
	Size          int64  `json:"size"`           // of the wheel, bytes
	Member        string `json:"member"`         // the plugin in the wheel
	Library       string `json:"library"`        // the plugin's place under the install folder
	LibrarySHA256 string `json:"library_sha256"` // of the plugin
	LibrarySize   int64  `json:"library_size"`   // of the plugin, bytes
	OS            string `json:"os"`
	Arch          string `json:"arch"`
}

// String is name and version.
func (w Wheel) String() string { return w.Name + " " + w.Version }

// Download is the command that fetches the wheel where this program cannot; Install takes its file as From.
func (w Wheel) Download() string {
	return fmt.Sprintf("pip download --no-deps %s==%s", w.Name, w.Version)
}

// Wheels are the pinned plugins.
func Wheels() []Wheel {
	var wheels []Wheel
	if err := json.Unmarshal(lockFile, &wheels); err != nil {
		panic("backend: plugins.lock.json: " + err.Error()) // part of the program, and tested
	}
	return wheels
}

func wheelFor(flavor string) (Wheel, error) {
	var flavors []string
	for _, w := range Wheels() {
		if w.Flavor == flavor {
			return w, nil
		}
		flavors = append(flavors, w.Flavor)
	}
	return Wheel{}, fmt.Errorf("plugin %q, want one of %s", flavor, strings.Join(flavors, ", "))
}
