# make test   the tests, with the XLA plugin installed first (pinned, checked by hash)
# make check  format, vet, staticcheck, import rules and the tests
GO          ?= go
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: all test check fmt vet staticcheck build xla xla-cuda bench gpu-check gpu-check-build

all: build

build:
	$(GO) build -o bin/ ./cmd/...

xla:
	$(GO) run ./cmd/coordinator backend install cpu

xla-cuda:
	$(GO) run ./cmd/coordinator backend install cuda13

test: xla
	$(GO) test -timeout 20m ./...

fmt:
	@files=$$(gofmt -l cmd pkg); test -z "$$files" || { echo "not gofmt'd:" $$files; exit 1; }

vet:
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) build ./...

staticcheck:
	$(GO) run $(STATICCHECK) ./...

check: fmt vet staticcheck test

# The table of docs/benchmarks.md; needs the Python packages of benchmarks/requirements.txt.
bench:
	python3 benchmarks/run.py

gpu-check-build:
	scripts/gpu-check.sh build

gpu-check:
	scripts/gpu-check.sh run
