"""One persistent-CD step (Langevin, Adam) of a 2-H-H-1 SiLU MLP in TorchEBM. Prints one line of JSON."""
import argparse
import json
import statistics
import time
import warnings

import torch
import torchebm
from torch import nn
from torchebm.core import BaseModel
from torchebm.losses import ContrastiveDivergence
from torchebm.samplers import LangevinDynamics

warnings.filterwarnings("ignore")
parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--steps", type=int, default=10, help="chain steps a training step")
parser.add_argument("--repeat", type=int, default=100, help="timed training steps")
parser.add_argument("--threads", type=int, default=1)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)


class MLP(BaseModel):
    def __init__(self, hidden):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def forward(self, x):
        return self.net(x).squeeze(-1)


model = MLP(args.hidden)
sampler = LangevinDynamics(model=model, step_size=0.01, noise_scale=1.0)
loss_fn = ContrastiveDivergence(model=model, sampler=sampler, k_steps=args.steps, persistent=True,
                                buffer_size=max(args.batch, 4096), init_steps=0, energy_reg_weight=1e-3)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
pos = torch.randn(args.batch, 2)


def step():
    optimizer.zero_grad()
    loss, _ = loss_fn(pos)
    loss.backward()
    optimizer.step()
    return loss.item()


for _ in range(10):
    step()
times = []
for _ in range(args.repeat):
    start = time.perf_counter()
    step()
    times.append(1e3 * (time.perf_counter() - start))
print(json.dumps({"program": "torchebm", "version": getattr(torchebm, "__version__", "0.8.9"), "threads": args.threads,
                  "batch": args.batch, "hidden": args.hidden, "steps": args.steps, "median_ms": statistics.median(times)}))
