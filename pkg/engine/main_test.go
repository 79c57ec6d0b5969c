package engine

import (
	"testing"

	"go.uber.org/goleak"
)

// Batches are prepared by goroutines of their own: none may outlive its trainer.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
