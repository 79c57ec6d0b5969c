"""One training step (loss, gradient, Adam) of any loss in TorchEBM. Prints one line of JSON."""
import argparse
import contextlib
import json
import statistics
import time
import warnings

import torch
import torchebm
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchebm.core import BaseModel
from torchebm.losses import (ContrastiveDivergence, DenoisingScoreMatching, EnergyMatchingLoss, EquilibriumMatchingLoss,
                             FlowMatchingLoss, ScoreMatching, SlicedScoreMatching)
from torchebm.models import DiT, EqMEnergy
from torchebm.samplers import LangevinDynamics

warnings.filterwarnings("ignore")
parser = argparse.ArgumentParser()
parser.add_argument("loss", choices=["contrastive_divergence", "persistent_cd", "exact", "hutchinson", "sliced", "denoising",
                                     "equilibrium", "equilibrium_dot", "flow", "energy", "energy_cd"])
parser.add_argument("--model", default="mlp", choices=["mlp", "transformer"])
parser.add_argument("--coupling", default="independent")
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--hidden", type=int, default=128)
parser.add_argument("--repeat", type=int, default=60, help="timed training steps")
parser.add_argument("--threads", type=int, default=1)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)


def mlp(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, args.hidden), nn.SiLU(), nn.Linear(args.hidden, args.hidden), nn.SiLU(),
                         nn.Linear(args.hidden, outputs))


class Energy(BaseModel):
    def __init__(self):
        super().__init__()
        self.net = mlp(2, 1)

    def forward(self, x):
        return self.net(x).squeeze(-1)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(3, 2)

    def forward(self, x, t):
        return self.net(torch.cat([x, t[:, None]], 1))


class Rows(nn.Module):  # the score losses flatten their states
    def __init__(self, images):
        super().__init__()
        self.images = images

    def forward(self, x, t):
        return self.images(x.view(-1, 1, 8, 8), t).view_as(x)


if args.model == "mlp":
    shape, energy, field = (2,), Energy, Field
else:
    def field():
        return DiT(input_size=8, in_channels=1, patch_size=2, embed_dim=64, depth=2, num_heads=4)

    def energy():
        return EqMEnergy(Rows(field()), energy_type="dot")

    shape = (64,) if args.loss in ("exact", "hutchinson", "sliced", "denoising", "energy", "energy_cd") else (1, 8, 8)

if args.loss in ("equilibrium", "equilibrium_dot", "flow"):
    model = field()
else:
    model = energy()
sampler = LangevinDynamics(model=model, step_size=0.01, noise_scale=1.0) if args.loss.endswith("cd") or args.loss.startswith("contrastive") else None
loss_fn = {
    "contrastive_divergence": lambda: ContrastiveDivergence(model=model, sampler=sampler, k_steps=10),
    "persistent_cd": lambda: ContrastiveDivergence(model=model, sampler=sampler, k_steps=10, persistent=True, init_steps=0),
    "exact": lambda: ScoreMatching(model=model),
    "hutchinson": lambda: ScoreMatching(model=model, hessian_method="approx"),
    "sliced": lambda: SlicedScoreMatching(model=model, n_projections=5),
    "denoising": lambda: DenoisingScoreMatching(model=model, noise_scale=0.1),
    "equilibrium": lambda: EquilibriumMatchingLoss(model=model, coupling=args.coupling),
    "equilibrium_dot": lambda: EquilibriumMatchingLoss(model=model, coupling=args.coupling, energy_type="dot"),
    "flow": lambda: FlowMatchingLoss(model=model, coupling=args.coupling),
    "energy": lambda: EnergyMatchingLoss(model=model, coupling=args.coupling, lambda_cd=0.0),
    "energy_cd": lambda: EnergyMatchingLoss(model=model, coupling=args.coupling, n_langevin_steps=20),
}[args.loss]()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
x = torch.randn(args.batch, *shape)


def step():
    optimizer.zero_grad()
    loss = loss_fn(x)
    if isinstance(loss, tuple):  # of contrastive divergence: with its negatives
        loss = loss[0]
    loss.backward()
    optimizer.step()
    return loss.item()


# The fast attention of PyTorch has no second derivative on a CPU: without this the losses of an energy end with an error.
twice = args.model == "transformer" and args.loss not in ("equilibrium", "flow")
with sdpa_kernel(SDPBackend.MATH) if twice else contextlib.nullcontext():
    for _ in range(5):
        step()
    times = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
print(json.dumps({"program": "torchebm", "version": getattr(torchebm, "__version__", "0.8.9"), "threads": args.threads,
                  "loss": args.loss, "model": args.model, "batch": args.batch,
                  "parameters": sum(p.numel() for p in model.parameters()), "median_ms": statistics.median(times)}))
