package models_test

import (
	"os"
	"testing"
)

// TestMain lets XLA compile without LLVM's optimiser unless the caller has flags of their own. Compiling is what these
// tests spend their time on, a third of it that way, and the operations, their order and their precision stay the same.
func TestMain(m *testing.M) {
	if _, ok := os.LookupEnv("XLA_FLAGS"); !ok {
		if err := os.Setenv("XLA_FLAGS", "--xla_backend_optimization_level=0"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
