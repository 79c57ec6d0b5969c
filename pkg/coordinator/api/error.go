package api

import (
	"fmt"
	"net/http"
	"time"
)

// Code says what kind of failure an Error is.
type Code string

// The codes.
const (
	NotFound     Code = "not_found"
	Conflict     Code = "conflict"     // another name, version or phase: look, and decide again
	Invalid      Code = "invalid"      // the same request will never be right
	Unauthorized Code = "unauthorized" // no token, or one that is not known or expired
	Forbidden    Code = "forbidden"    // the token does not allow it
	NoLeader     Code = "no_leader"    // nothing happened: try again
	Unavailable  Code = "unavailable"  // nothing happened: try again later
	Timeout      Code = "timeout"      // it may or may not have happened
	OverQuota    Code = "quota"
	Internal     Code = "internal"
)

// Exit is the status that a program ends with on a failure of this kind.
func (c Code) Exit() int {
	switch c {
	case NotFound:
		return 3
	case Conflict:
		return 4
	case Unauthorized, Forbidden:
		return 5
	case NoLeader, Unavailable:
		return 6
	case Timeout:
		return 7
	}
	return 1
}

// Error is a request that was not granted. errors.As finds it in what the methods of [Client] return.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`        // one line
	Next    string `json:"next,omitempty"` // what helps: a command, or when to try again

	Status int   `json:"-"` // of HTTP; 0: no coordinator answered
	Cause  error `json:"-"` // why no coordinator answered; nil otherwise

	foreign bool          // whoever stands in between refused it, and no coordinator
	after   time.Duration // that the coordinator wants to pass before the next attempt
}

func (e *Error) Error() string {
	if e.Next == "" {
		return e.Message
	}
	return e.Message + ": " + e.Next
}

func (e *Error) Unwrap() error { return e.Cause }

// Errorf is an error of a code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// HTTP is the status that an answer with this error has.
func (e *Error) HTTP() int {
	if e.Status != 0 {
		return e.Status
	}
	switch e.Code {
	case NotFound:
		return http.StatusNotFound
	case Conflict:
		return http.StatusConflict
	case Invalid:
		return http.StatusUnprocessableEntity
	case Unauthorized:
		return http.StatusUnauthorized
	case Forbidden, OverQuota:
		return http.StatusForbidden
	case NoLeader, Unavailable:
		return http.StatusServiceUnavailable
	case Timeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// Failure is the body of an answer that is an error.
type Failure struct {
	Error *Error `json:"error"`
}
