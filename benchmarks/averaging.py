"""Trains two moons with one, two and four groups at equal samples, and prints the test likelihoods as one table.

Everything but the steps (9000 / groups) and, where a row says so, the learning rate is that of examples/two-moons.yaml."""
import argparse
import json
import pathlib
import subprocess
import tempfile

here = pathlib.Path(__file__).resolve().parent
# Groups, outer step, rounds every so many steps, learning rate at the start.
CASES = [
    (1, "mean", 10, 1e-2),
    (2, "sync", 1, 1e-2), (2, "nesterov", 50, 1e-2), (2, "mean", 10, 1e-2),
    (4, "sync", 1, 1e-2), (4, "sync", 1, 8e-2), (4, "nesterov", 50, 1e-2), (4, "mean", 10, 1e-2), (4, "mean", 10, 8e-2),
]
parser = argparse.ArgumentParser()
parser.add_argument("--seeds", type=int, nargs="+", default=[7, 1, 2])
parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 4])
parser.add_argument("--steps", type=int, default=9000, help="of one group; several share them")
args = parser.parse_args()

folder = pathlib.Path(tempfile.mkdtemp())
binary = folder / "coordinator"
subprocess.run(["go", "build", "-o", binary, "./cmd/coordinator"], check=True, cwd=here.parent)


def nll(groups, outer, every, rate, seed):
    out = folder / f"{groups}-{outer}-{rate}-{seed}"
    settings = [f"averaging={{groups: {groups}, outer: {outer}, every: {every}}}", f"train.steps={args.steps // groups}", f"seed={seed}",
                f"optimizer.lr={{kind: cosine, start: {rate}, end: 1.0e-4}}", "train.frames=0"]
    subprocess.run([binary, "train", here.parent / "examples" / "two-moons.yaml", "--out", out, "--quiet", *[a for s in settings for a in ("--set", s)]], check=True, capture_output=True)
    done = subprocess.run([binary, "evaluate", "--run", out, "-o", "json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["nll"]


print("| groups | steps | outer | every | lr | " + " | ".join(f"seed {s}" for s in args.seeds) + " |\n|" + "---|" * (5 + len(args.seeds)))
for groups, outer, every, rate in CASES:
    if groups in args.groups:
        row = [f"{nll(groups, outer, every, rate, seed):.3f}" for seed in args.seeds]
        print(f"| {groups} | {args.steps // groups} | {outer} | {every} | {rate} | " + " | ".join(row) + " |", flush=True)
