//go:build cgo

package backend

import (
	"io"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/backends/xla"
	"k8s.io/klog/v2"
)

const cgoEnabled = true

// loadXLA loads a plugin by its path: go-xla's search by name loads each candidate to look at it, and a damaged one ends
// the process.
func loadXLA(path string) (backends.Backend, error) {
	xla.EnableAutoInstall(false) // plugins are pinned here; GoMLX would fetch the newest, silently
	klog.LogToStderr(false)      // what go-xla logs comes back as an error too
	klog.SetOutput(io.Discard)
	config := path
	if pluginKind(path) == CPU {
		config += ",shared_buffers" // host memory is the device's; go-xla knows it for plugins found by name
	}
	b, err := xla.New(config)
	if err != nil {
		return nil, err
	}
	return b, nil
}
