# make test   the tests, with the XLA plugin installed first (pinned, checked by hash)
# make check  format, vet, staticcheck, import rules and the tests
GO          ?= go
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: all test check fmt vet staticcheck build xla xla-cuda bench chaos gpu-check gpu-check-build images kube-test

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
	@files=$$(gofmt -l benchmarks cmd examples images k8s pkg test); test -z "$$files" || { echo "not gofmt'd:" $$files; exit 1; }

vet:
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) build ./...

staticcheck:
	$(GO) run $(STATICCHECK) ./...

check: fmt vet staticcheck test

# The table of docs/benchmarks.md; needs the Python packages of benchmarks/requirements.txt.
bench:
	python3 benchmarks/run.py

# Trains on three coordinators and eight replicas while they are killed, frozen and cut off; docs/reliability.md has what comes
# out. KELVIN_CHAOS_SEED repeats a run.
chaos:
	KELVIN_CHAOS=long $(GO) test -count=1 -timeout 60m -p 1 -v ./pkg/coordinator/consensus ./test/chaos

# Goes the way of docs/kubernetes.md on a real control plane, on this machine: Linux, root. The first time it builds that, which
# takes some minutes.
kube-test: xla
	cd test/kube && $(GO) run ./cmd/build && $(GO) test -count=1 -v -timeout 20m ./...

gpu-check-build:
	scripts/gpu-check.sh build

gpu-check:
	scripts/gpu-check.sh run

# ghcr.io/kelvin-ebm/kelvin:<version>-{go,cpu,cuda13}, where podman, buildah or docker works; elsewhere images/Containerfile is checked.
images:
	GO="$(GO)" scripts/images.sh
