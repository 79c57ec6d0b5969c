# Writes python.safetensors, and checks that Python reads kelvin.safetensors as Kelvin wrote it.
# Needs: pip install safetensors==0.8.0 numpy. Run in this folder.
import math

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

save_file(
    {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 2,
        "labels": np.array([3, 1, 2, 0], dtype=np.int32),
        "scans": np.array([1, 2**63], dtype=np.uint64),
        "alive": np.array([True, False, True]),
        "scalar": np.array(math.pi),
        "none": np.zeros((0, 2), dtype=np.float32),
    },
    "python.safetensors",
    metadata={"made_by": "numpy"},
)

got = load_file("kelvin.safetensors")
want = {
    "f32": np.array([[1, -2.5, np.inf], [0, 3e-45, 7]], np.float32),
    "f64": np.array([[[math.pi], [-0.0]]]),
    "i64": np.array([-(2**63), 2**63 - 1]),
    "i32": np.array([-1, 0, 1], np.int32),
    "i16": np.array([-300], np.int16),
    "i8": np.array([-3], np.int8),
    "u64": np.array(2**64 - 1, np.uint64),
    "u32": np.array([1, 2**32 - 1], np.uint32),
    "u16": np.array([65535], np.uint16),
    "u8": np.array([0, 128, 255], np.uint8),
    "bool": np.array([True, False, True]),
    "empty": np.zeros((0, 4), np.float32),
    'a <name> with "signs" β': np.array([1.0]),
}
assert got.keys() == want.keys(), got.keys() ^ want.keys()
for name, w in want.items():
    g = got[name]
    assert g.dtype == w.dtype and g.shape == w.shape and g.tobytes() == w.tobytes(), (name, g, w)
with safe_open("kelvin.safetensors", "np") as f:
    assert f.metadata() == {"made_by": "kelvin"}
print("Python reads kelvin.safetensors:", len(want), "tensors agree")
