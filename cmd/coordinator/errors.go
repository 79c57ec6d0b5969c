package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/local"
)

// Exit codes, as the distributed specification lists them for the coordinator's commands.
const (
	exitFailure   = 1
	exitUsage     = 2
	exitNotFound  = 3
	exitConflict  = 4
	exitInterrupt = 130
)

// usageError is a mistake in flags or in an experiment file: running again unchanged will fail again.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usageErrorf(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, context.Canceled), errors.Is(err, local.ErrInterrupted):
		return exitInterrupt
	case errors.Is(err, local.ErrNoRun):
		return exitNotFound
	case errors.Is(err, local.ErrRunExists):
		return exitConflict
	default:
		return exitFailure
	}
}
