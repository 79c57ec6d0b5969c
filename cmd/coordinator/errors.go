package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

// Exit codes, as the distributed specification lists them for the coordinator's commands.
const (
	exitFailure      = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitConflict     = 4
	exitUnauthorised = 5 // no token, or one that does not allow it
	exitUnavailable  = 6 // no coordinator answers, or none leads
	exitTimeout      = 7
	exitPartial      = 8 // done for some of what was asked for
	exitInterrupt    = 130
)

// usageError is a mistake in flags or in an experiment file: running again unchanged will fail again.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usageErrorf(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// partialError is a failure for some of what was asked for.
type partialError struct{ error }

func (e partialError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	var partial partialError
	var refused *api.Error
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, context.Canceled), errors.Is(err, local.ErrInterrupted):
		return exitInterrupt
	case errors.Is(err, local.ErrNoRun):
		return exitNotFound
	case errors.Is(err, local.ErrRunExists), errors.Is(err, fs.ErrExist):
		return exitConflict
	case errors.As(err, &partial):
		return exitPartial
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.As(err, &refused):
		return refused.Code.Exit()
	default:
		return exitFailure
	}
}
