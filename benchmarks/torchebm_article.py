"""The article's example, as printed, in TorchEBM: two moons, MLP 2-64-64-1, persistent CD, Langevin 0.1, 100 epochs.
Prints the exact test NLL (log Z by quadrature) a seed, one line of JSON each."""
import argparse
import json
import time
import warnings

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchebm.core import BaseModel
from torchebm.datasets import TwoMoonsDataset
from torchebm.losses import ContrastiveDivergence
from torchebm.samplers import LangevinDynamics

warnings.filterwarnings("ignore")
parser = argparse.ArgumentParser()
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--epochs", type=int, default=100)
args = parser.parse_args()
torch.set_num_threads(1)


class MLPEnergy(BaseModel):
    def __init__(self, input_dim=2, hidden_dim=64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim), nn.SiLU(),
                                 nn.Linear(hidden_dim, 1))

    def forward(self, x):
        return self.net(x).squeeze(-1)


def log_z(model, half, n):
    axis = np.linspace(-half, half, n)
    points = torch.tensor(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2), dtype=torch.float32)
    with torch.no_grad():
        e = torch.cat([model(c) for c in points.split(65536)]).double().numpy()
    low = e.min()
    return -low + np.log(np.exp(-(e - low)).sum()) + 2 * np.log(axis[1] - axis[0]), float(np.hypot(*points[e.argmin()].numpy()))


for seed in args.seeds:
    torch.manual_seed(seed)
    model = MLPEnergy()
    sampler = LangevinDynamics(model=model, step_size=0.1, noise_scale=1.0)
    loss_fn = ContrastiveDivergence(model=model, sampler=sampler, k_steps=10, persistent=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    start = time.perf_counter()
    loader = DataLoader(TwoMoonsDataset(n_samples=3000, noise=0.05, seed=seed), batch_size=128, shuffle=True)
    for _ in range(args.epochs):
        for batch in loader:
            optimizer.zero_grad()
            loss, _ = loss_fn(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    seconds = time.perf_counter() - start
    test = TwoMoonsDataset(n_samples=20000, noise=0.05, seed=10_000 + seed).get_data()
    with torch.no_grad():
        mean_energy = model(test).double().mean().item()
    # The energy need not be integrable on the plane: the box is that of a hundred times the data, and larger is worse.
    z, at = log_z(model, 10.0, 1001)
    print(json.dumps({"program": "torchebm", "seed": seed, "nll": mean_energy + z, "box": [-10, 10],
                      "radius_of_lowest_energy": at, "seconds": round(seconds, 1)}), flush=True)
