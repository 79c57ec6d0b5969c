"""Times one persistent-CD step in Kelvin, JAX and TorchEBM, in turn, and prints one table.

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
parser = argparse.ArgumentParser()
parser.add_argument("--sizes", nargs="+", default=["128x64", "256x128", "1024x128", "4096x256"], help="BATCHxHIDDEN")
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--without", nargs="*", default=[], choices=["jax", "torchebm"])
parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
args = parser.parse_args()

binary = pathlib.Path(tempfile.mkdtemp()) / "coordinator"
subprocess.run(["go", "build", "-o", binary, "./cmd/coordinator"], check=True, cwd=here.parent)


def run(command):
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    return json.loads(done.stdout.strip().splitlines()[-1])["median_ms"]


def torchebm(size, repeat):  # the better of one and two threads
    return min(run([sys.executable, here / "torchebm_step.py", *size, "--repeat", repeat, "--threads", n]) for n in ("1", "2"))


rows = []
for spec in args.sizes:
    batch, hidden = spec.split("x")
    size = ["--batch", batch, "--hidden", hidden, "--steps", str(args.steps)]
    large = int(batch) * int(hidden) > 500_000
    repeat = "40" if large else "200"
    programs = {"kelvin": lambda: run([binary, "bench", "step", *size, "--repeat", repeat, "-o", "json"])}
    if "jax" not in args.without:
        programs["jax"] = lambda: run([sys.executable, here / "jax_step.py", *size, "--repeat", repeat])
    if "torchebm" not in args.without:
        programs["torchebm"] = lambda: torchebm(size, "20" if large else "60")
    times = {name: [] for name in programs}
    for _ in range(args.rounds):
        for name, program in programs.items():
            times[name].append(program())
    row = {"batch": int(batch), "hidden": int(hidden), "steps": args.steps}
    for name, t in times.items():
        row[f"{name}_ms"] = round(statistics.median(t), 3)
        if name != "kelvin":
            row[f"kelvin/{name}"] = round(statistics.median(k / o for k, o in zip(times["kelvin"], t)), 3)
    rows.append(row)

if args.output == "json":
    print(json.dumps(rows, indent=1))
else:
    keys = list(rows[0])
    print(" | ".join(keys))
    for row in rows:
        print(" | ".join(str(row[k]).rjust(len(k)) for k in keys))
