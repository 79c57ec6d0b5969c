#!/usr/bin/env bash
# Numerics tests and the step benchmark on an NVIDIA GPU, on a machine that needs neither Go nor a network.
#
#   scripts/gpu-check.sh build   with Go, anywhere: test binaries, the coordinator and the test data go to .gpu/
#   scripts/gpu-check.sh run     on the machine with the GPU: runs what is in .gpu/
#   scripts/gpu-check.sh plugin  prints the CUDA plugin that run would use
#
# The plugin is the one that KELVIN_XLA_PLUGIN names, or that of an installed JAX (jax[cuda13] or jax[cuda12]), which brings
# NVIDIA's libraries too. PYTHON says which Python to ask; python3 by default. On failure the exit status is not 0.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
out=${GPU_DIR:-$root/.gpu}
# Packages whose tests run graphs on the backends.
packages=(backend models losses samplers engine)

find_plugin() {
	if [[ -n ${KELVIN_XLA_PLUGIN:-} ]]; then
		echo "$KELVIN_XLA_PLUGIN"
		return
	fi
	local python=${PYTHON:-python3}
	if ! command -v "$python" >/dev/null; then
		echo "gpu-check: no $python to find JAX with; set PYTHON, or KELVIN_XLA_PLUGIN to the path of xla_cuda_plugin.so" >&2
		return 1
	fi
	# find_spec of the parent package does not import JAX, which would take seconds and the GPU's memory.
	"$python" - <<'PY'
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("jax_plugins")
for root in (spec.submodule_search_locations or []) if spec else []:
    for name in ("xla_cuda13", "xla_cuda12"):
        path = pathlib.Path(root) / name / "xla_cuda_plugin.so"
        if path.exists():
            print(path)
            sys.exit(0)
sys.exit("gpu-check: no CUDA plugin in this Python; `pip install 'jax[cuda13]'`, or set PYTHON or KELVIN_XLA_PLUGIN")
PY
}

# NVIDIA's wheels lie beside JAX's plugin in folders of their own.
library_path() {
	local site dir path=
	site=$(dirname "$(dirname "$(dirname "$1")")")
	for dir in "$site"/nvidia/*/lib; do
		[[ -d $dir ]] && path=$path:$dir
	done
	echo "${path#:}"
}

build() {
	mkdir -p "$out/testdata"
	local p
	for p in "${packages[@]}"; do
		[[ -d pkg/$p ]] || continue
		echo "gpu-check: build the tests of pkg/$p"
		go test -c -o "$out/$p.test" "./pkg/$p"
	done
	go build -o "$out/coordinator" ./cmd/coordinator
	cp -r testdata/reference "$out/testdata/"
	echo "gpu-check: copy this folder to the machine with the GPU, then: make gpu-check"
}

run() {
	if [[ ! -x $out/coordinator ]]; then
		echo "gpu-check: nothing in $out; build it first, on a machine with Go: make gpu-check-build" >&2
		return 1
	fi
	local libraries failed=0 test name dir size
	KELVIN_XLA_PLUGIN=$(find_plugin)
	libraries=$(library_path "$KELVIN_XLA_PLUGIN")
	export KELVIN_XLA_PLUGIN KELVIN_NO_INSTALL=1 KELVIN_TEST_BACKENDS=${KELVIN_TEST_BACKENDS:-xla:cuda}
	if [[ -n $libraries ]]; then
		export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
	fi
	export REFERENCE_DIR=$out/testdata/reference
	echo "gpu-check: plugin $KELVIN_XLA_PLUGIN"
	"$out/coordinator" doctor || failed=1
	for test in "$out"/*.test; do
		name=$(basename "$test" .test)
		echo "gpu-check: tests of pkg/$name"
		dir=$root/pkg/$name # where its testdata is, if the sources are here too
		[[ -d $dir ]] || dir=$out
		(cd "$dir" && "$test" -test.timeout 20m) || failed=1
	done
	for size in "128 64" "256 128" "1024 128" "4096 256"; do
		# shellcheck disable=SC2086 # two numbers
		set -- $size
		"$out/coordinator" bench step --backend "${KELVIN_TEST_BACKENDS%%,*}" --batch "$1" --hidden "$2" --steps 10 -o json || failed=1
	done
	if ((failed)); then
		echo "gpu-check: failed" >&2
		return 1
	fi
	echo "gpu-check: passed"
}

case ${1:-} in
build) build ;;
run) run ;;
plugin) find_plugin ;;
*)
	echo "usage: scripts/gpu-check.sh build|run|plugin" >&2
	exit 2
	;;
esac
