"""Weights of a DiT go from TorchEBM to Kelvin and from Kelvin to TorchEBM, by name; both must give the same images.

Needs requirements.txt and Go. Prints the largest relative difference of each way; ends with 1 above 1e-5."""
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from torchebm.models import DiT

BATCH, CHANNELS, SIDE, CLASSES = 6, 2, 8, 10  # as in exchange/main.go


def new():
    return DiT(input_size=SIDE, in_channels=CHANNELS, patch_size=2, embed_dim=32, depth=2, num_heads=4, cond_dim=24,
               head_dim=16, head_depth=1, head_num_heads=2, num_classes=CLASSES).eval()


torch.manual_seed(0)
theirs = new()
with torch.no_grad():
    for p in theirs.parameters():  # a new DiT gives 0
        p.normal_(std=0.1)
inputs = {"x": torch.randn(BATCH, CHANNELS, SIDE, SIDE), "t": torch.rand(BATCH),
          "y": torch.randint(CLASSES + 1, (BATCH,), dtype=torch.int32)}  # the null label too

with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    folder = pathlib.Path(folder)
    save_file(theirs.state_dict(), folder / "torch.safetensors")
    save_file(inputs, folder / "inputs.safetensors")
    subprocess.run(["go", "run", "./benchmarks/exchange", folder], check=True, cwd=pathlib.Path(__file__).parent.parent)
    ours = new()
    ours.load_state_dict(load_file(folder / "kelvin.safetensors"), strict=True)
    outputs = load_file(folder / "outputs.safetensors")
    worst = 0.0
    for name, way, model in [("theirs", "TorchEBM to Kelvin", theirs), ("ours", "Kelvin to TorchEBM", ours)]:
        want = model(inputs["x"], inputs["t"], inputs["y"].long())
        difference = ((outputs[name] - want).abs().max() / want.abs().max()).item()
        worst = max(worst, difference)
        print(f"{way}: {len(model.state_dict())} tensors, outputs up to {want.abs().max():.3g}, "
              f"largest relative difference {difference:.2g}")
sys.exit(worst > 1e-5)
