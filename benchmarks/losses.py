"""Times a training step of every loss in Kelvin and TorchEBM, in turn, and prints one table.

The programs alternate, since the speed of a shared machine drifts; a figure is the median over the rounds of each
process's median, a ratio the median of the rounds' ratios."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

here = pathlib.Path(__file__).resolve().parent

# Name, model, batch, what Kelvin is told, what TorchEBM is told. The couplings and all other settings are the same.
DOT = ["model.energy=dot"]
SINGLE = ["loss.coupling.kind=independent"]
CASES = [
    ("contrastive divergence, k = 10", "mlp", 256, "contrastive_divergence", [], ["contrastive_divergence"]),
    ("persistent, k = 10", "mlp", 256, "persistent_cd", [], ["persistent_cd"]),
    ("score matching, exact", "mlp", 256, "score_matching", [], ["exact"]),
    ("score matching, hutchinson", "mlp", 256, "score_matching", ["loss.hessian_method=hutchinson"], ["hutchinson"]),
    ("sliced score matching, 5 directions", "mlp", 256, "sliced_score_matching", [], ["sliced"]),
    ("denoising score matching", "mlp", 256, "denoising_score_matching", [], ["denoising"]),
    ("equilibrium matching", "mlp", 256, "equilibrium_matching", [], ["equilibrium"]),
    ("equilibrium matching, dot", "mlp", 256, "equilibrium_matching", ["loss.energy_type=dot"], ["equilibrium_dot"]),
    ("flow matching", "mlp", 256, "flow_matching", [], ["flow"]),
    ("flow matching, exact_ot", "mlp", 256, "flow_matching", ["loss.coupling.kind=exact_ot"], ["flow", "--coupling", "ot"]),
    ("energy matching, flow part", "mlp", 256, "energy_matching", [*SINGLE, "loss.lambda_cd=0"], ["energy"]),
    ("energy matching, 20 chain steps", "mlp", 256, "energy_matching", [*SINGLE, "loss.n_langevin_steps=20"], ["energy_cd"]),
    ("energy matching, flow part, exact_ot", "mlp", 256, "energy_matching", ["loss.lambda_cd=0"], ["energy", "--coupling", "ot"]),
    ("denoising score matching", "transformer", 64, "denoising_score_matching", DOT, ["denoising"]),
    ("sliced score matching, 5 directions", "transformer", 64, "sliced_score_matching", DOT, ["sliced"]),
    ("score matching, exact", "transformer", 8, "score_matching", DOT, ["exact"]),
    ("equilibrium matching", "transformer", 64, "equilibrium_matching", [], ["equilibrium"]),
    ("equilibrium matching, dot", "transformer", 64, "equilibrium_matching", ["loss.energy_type=dot"], ["equilibrium_dot"]),
    ("flow matching", "transformer", 64, "flow_matching", [], ["flow"]),
]
IMAGES = ["data.dataset=npz", f"data.path={here.parent / 'examples/data/digits.npz'}", "data.array=images", "data.divide=8",
          "model.depth=2"]

parser = argparse.ArgumentParser()
parser.add_argument("--only", default="", help="cases whose name and model hold this text")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--seconds", type=float, default=3, help="length of the timed part of a TorchEBM process, about")
parser.add_argument("--threads", nargs="+", default=["1"], help="threads of TorchEBM; with several numbers the best counts")
parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
args = parser.parse_args()

binary = pathlib.Path(tempfile.mkdtemp()) / "coordinator"
subprocess.run(["go", "build", "-o", binary, "./cmd/coordinator"], check=True, cwd=here.parent)


def run(command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**os.environ, "KELVIN_NO_INSTALL": "1"})
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])["median_ms"]


rows = []
for name, model, batch, loss, sets, theirs in CASES:
    if args.only not in f"{name}, {model}":
        continue
    sets = [*sets, *(IMAGES if model == "transformer" else [])]
    ours = [binary, "bench", "loss", "--loss", loss, "--batch", batch, "-o", "json", *(a for s in sets for a in ("--set", s))]
    ours += ["--model", "transformer"] if model == "transformer" else []
    theirs = [sys.executable, here / "torchebm_losses.py", *theirs, "--model", model, "--batch", batch]
    repeat = 3
    times = []
    for i in range(args.rounds + 1):  # the first round tells how many steps to time
        t = min(run([*theirs, "--threads", n, "--repeat", repeat]) for n in args.threads)
        k = run([*ours, "--repeat", min(200, 2 * repeat)])
        repeat = max(3, min(200, int(1e3 * args.seconds / t)))
        if i > 0:
            times.append((k, t))
    rows.append({"loss": name, "model": model, "batch": batch,
                 "kelvin_ms": round(statistics.median(k for k, _ in times), 2),
                 "torchebm_ms": round(statistics.median(t for _, t in times), 2),
                 "torchebm/kelvin": round(statistics.median(t / k for k, t in times), 1)})
    if args.output == "table":
        print(" | ".join(str(v) for v in rows[-1].values()), flush=True)
if args.output == "json":
    print(json.dumps(rows, indent=1))
