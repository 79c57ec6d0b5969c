"""Flow matching and equilibrium matching on two moons, in TorchEBM and in Kelvin, with one budget: network, steps, batch and
learning rate. Prints a line of JSON a run: MMD² of 2000 samples to 2000 fresh rows, by one estimator for both programs.

TorchEBM has its own losses and samplers at their defaults, and equilibrium matching also with the ct_multiplier of our
example; Kelvin has the settings of its two examples."""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time
import warnings

import numpy as np
import torch
from torch import nn
from torchebm.datasets import TwoMoonsDataset
from torchebm.losses import EquilibriumMatchingLoss, FlowMatchingLoss
from torchebm.models import EqMEnergy
from torchebm.samplers import FlowSampler, GradientDescentSampler, NesterovSampler

warnings.filterwarnings("ignore")
here = pathlib.Path(__file__).resolve().parent
parser = argparse.ArgumentParser()
parser.add_argument("--losses", nargs="+", default=["flow", "equilibrium"], choices=["flow", "equilibrium"])
parser.add_argument("--seeds", type=int, nargs="+", default=[7, 1, 2])
parser.add_argument("--without", nargs="*", default=[], choices=["kelvin", "torchebm"])
parser.add_argument("--steps", type=int, default=4000)
args = parser.parse_args()
torch.set_num_threads(1)
SAMPLES, BATCH, HIDDEN, LR = 2000, 256, 128, (2e-3, 1e-5)  # as in examples/flow-matching.yaml and equilibrium-matching.yaml


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
                                 nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2))

    def forward(self, x, t):
        return self.net(torch.cat([x, t[:, None]], 1))


def rows(n, seed):
    return TwoMoonsDataset(n_samples=n, noise=0.05, seed=seed).get_data()


def kernel(a, b, h):
    d2 = ((a[:, None] - b[None]) ** 2).sum(-1)
    return sum(np.exp(-d2 / (2 * (f * h) ** 2)) for f in (0.25, 0.5, 1, 2, 4)) / 5


def mmd2(x, y):
    """The unbiased estimate, with five Gaussians about the median distance of the data, as `coordinator evaluate` has it."""
    d = np.sqrt(((y[:1000, None] - y[None, :1000]) ** 2).sum(-1))
    h = np.median(d[np.triu_indices(1000, 1)])
    m, n = len(x), len(y)
    return ((kernel(x, x, h).sum() - m) / (m * (m - 1)) + (kernel(y, y, h).sum() - n) / (n * (n - 1)) - 2 * kernel(x, y, h).mean())


def report(program, loss, seed, sampler, x, seconds, fresh):
    x = np.asarray(x, dtype=np.float64).reshape(SAMPLES, 2)
    print(json.dumps({"program": program, "loss": loss, "seed": seed, "sampler": sampler, "mmd2": float(f"{mmd2(x, fresh):.3g}"),
                      "seconds": round(seconds, 1)}), flush=True)


def torchebm(loss, seed, fresh, multiplier=4.0):
    torch.manual_seed(seed)
    model = Field()
    loss_fn = FlowMatchingLoss(model=model) if loss == "flow" else EquilibriumMatchingLoss(model=model, ct_multiplier=multiplier)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR[0])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps, LR[1])
    data = rows(3000, seed)
    start = time.perf_counter()
    for _ in range(args.steps):
        optimizer.zero_grad()
        loss_fn(data[torch.randperm(len(data))[:BATCH]]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - start
    noise = torch.randn(SAMPLES, 2)
    if loss == "flow":
        x = FlowSampler(model=model, interpolant="linear").sample(x=noise, n_steps=100)
        report("torchebm", loss, seed, "flow, dopri5", x, seconds, fresh)
        return
    energy = EqMEnergy.from_loss(loss_fn)
    x = FlowSampler(model=model, interpolant="linear", negate_velocity=True).sample(x=noise, n_steps=100)
    report("torchebm", loss, seed, f"flow, dopri5, ct_multiplier {multiplier}", x, seconds, fresh)
    if multiplier != 4:
        return
    x = GradientDescentSampler(energy, step_size=0.01).sample(x=noise, n_steps=200)
    report("torchebm", loss, seed, "gradient descent, 200 × 0.01", x, seconds, fresh)
    x = NesterovSampler(energy, step_size=0.01, momentum=0.9).sample(x=noise, n_steps=200)
    report("torchebm", loss, seed, "nesterov, 200 × 0.01", x, seconds, fresh)


def kelvin(binary, loss, seed, fresh):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([binary, "train", here.parent / f"examples/{loss}-matching.yaml", "--set", f"seed={seed}", "--set",
                        f"train.steps={args.steps}", "--out", f"{folder}/run", "--quiet"], check=True, capture_output=True)
        evaluation = json.loads(pathlib.Path(folder, "run/evaluation.json").read_text())
        seconds = json.loads(pathlib.Path(folder, "run/run.json").read_text())["seconds"]
        report("kelvin", loss, seed, evaluation["explorer"], np.load(f"{folder}/run/samples.npz")["x"], seconds, fresh)


binary = pathlib.Path(tempfile.mkdtemp()) / "coordinator"
if "kelvin" not in args.without:
    subprocess.run(["go", "build", "-o", binary, "./cmd/coordinator"], check=True, cwd=here.parent)
for loss in args.losses:
    for seed in args.seeds:
        fresh = rows(SAMPLES, 10_000 + seed).double().numpy()
        if "torchebm" not in args.without:
            torchebm(loss, seed, fresh)
            if loss == "equilibrium":
                torchebm(loss, seed, fresh, multiplier=1.15)
        if "kelvin" not in args.without:
            kelvin(binary, loss, seed, fresh)
