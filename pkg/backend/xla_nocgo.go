//go:build !cgo

package backend

import (
	"errors"

	"github.com/gomlx/gomlx/backends"
)

const cgoEnabled = false

func loadXLA(string) (backends.Backend, error) { return nil, errors.New("built without cgo") }
