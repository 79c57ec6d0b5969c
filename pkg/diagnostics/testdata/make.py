"""Writes arviz.json: chains, log weights and draws with what ArviZ, SciPy and NumPy say of them.

    python -m venv venv && venv/bin/pip install arviz==0.23.4 scipy==1.17.1 numpy==2.4.6
    venv/bin/python pkg/diagnostics/testdata/make.py

The draws are rounded to a few digits first, so that the file is small and both sides see the same numbers."""
import json
import math
import pathlib
import warnings

import arviz
import numpy as np
import scipy
from scipy import stats
from scipy.stats import _ksstats

rng = np.random.default_rng(20261)


def ar1(m, n, phi):
    x = np.empty((m, n))
    x[:, 0] = rng.standard_normal(m)
    for t in range(1, n):
        x[:, t] = phi * x[:, t - 1] + math.sqrt(1 - phi * phi) * rng.standard_normal(m)
    return x


def number(v):
    """JSON has no infinity and no NaN: null says that the other side has no number."""
    return float(v) if np.isfinite(v) else None


def chains():
    normal = rng.standard_normal
    shift, scale = np.arange(4)[:, None], np.array([[1.0], [1.0], [1.0], [4.0]])
    stuck = normal((4, 40))
    stuck[2] = 0.5
    cases = {
        "iid": normal((4, 200)), "one chain": normal((1, 300)), "odd length": normal((3, 101)),
        "ar1 .9": ar1(4, 400, 0.9), "ar1 .99": ar1(2, 300, 0.99), "ar1 -.5": ar1(4, 200, -0.5), "ar1 -.95": ar1(2, 100, -0.95),
        "shifted means": normal((4, 100)) + shift, "different scales": normal((4, 100)) * scale,
        "drift": normal((2, 100)) + np.linspace(0, 3, 100), "cauchy": rng.standard_cauchy((4, 150)),
        "far from 0": 1e4 + ar1(3, 60, 0.7), "one constant chain": stuck,
        "integers": rng.integers(0, 4, (4, 80)).astype(float), "two values": rng.integers(0, 2, (4, 50)).astype(float),
        "many short chains": ar1(32, 12, 0.8),
        "last pair of lags negative, positive": np.array([[3.0, 4, 5, 2, 4, 1, 2, 5, 2, 0]]),
        "each chain at its place": np.repeat(np.array([[0.0], [1.0], [3.0]]), 20, axis=1),
    }
    for n in range(4, 17):
        cases[f"{n} draws"] = ar1(3, n, 0.5)
    out = []
    for name, x in cases.items():
        x = np.array([[float(f"{v:.8g}" if abs(v) > 5e3 else f"{v:.5g}") for v in row] for row in x])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out.append({"name": name, "chains": x.tolist(), "ess": number(arviz.ess(x, method="mean")),
                        "bulk": number(arviz.ess(x, method="bulk")),
                        "rhat": number(arviz.rhat(x, method="rank")) if len(x) > 1 else None})
    x = np.array([0.5, 2, -1, 0.25, 3, 3, -2, 0.1, 1, 0, 4])
    return out, {"x": x.tolist(), "rho": arviz.autocorr(x).tolist()}


def weights():
    cases = {}
    for k in (0.3, 0.7, 1.2):
        cases[f"pareto {k}"] = k * rng.standard_exponential(600)
    cases["exponential"] = np.log(rng.standard_exponential(300))
    cases["bounded"] = np.log(rng.random(300))
    cases["log normal"] = 2 * rng.standard_normal(200) - 1000
    cases["vast range"] = 400 * rng.standard_normal(100)
    cases["integers"] = rng.integers(0, 12, 400).astype(float)
    cases["25 weights"] = rng.standard_exponential(25)
    cases["21 weights"] = rng.standard_exponential(21)
    cases["20 weights"] = rng.standard_exponential(20)
    cases["6 weights"] = rng.standard_exponential(6)
    cases["equal weights"] = np.zeros(100)
    out = []
    for name, w in cases.items():
        w = np.array([float(f"{v:.6g}") for v in w])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out.append({"name": name, "log_weights": w.tolist(), "k": number(arviz.psislw(w.copy())[1])})
    return out


def survival(n, d):
    """P(D_n >= d). SciPy has five digits of it for some d above 140 draws; its Durbin matrix has all of them."""
    if 140 < n <= 1000 and n * d * d < 4:
        return 1 - float(_ksstats._kolmogn_DMTW(n, d))
    return float(stats.kstwo.sf(d, n))


def kolmogorov():
    out = [{"n": n, "d": d, "p": survival(n, d)}
           for n in (1, 2, 3, 5, 10, 40, 140, 141, 500, 1000)
           for z in (0.35, 0.6, 0.83, 1.1, 1.36, 1.48, 1.7, 1.95, 2.05, 2.6, 4.0) if (d := z / math.sqrt(n)) < 1 and n * d > 0.5]
    out += [{"n": n, "d": z / math.sqrt(n), "p": survival(n, z / math.sqrt(n))}
            for n in (1001, 3000, 10000, 100000) for z in (0.4, 0.6, 0.83, 1.1, 1.36, 1.49, 1.6, 1.9, 2.05, 3.0, 4.5)]
    x = np.round(rng.standard_normal(60), 3)
    d, p = stats.kstest(x, "norm", args=(0.3, 1.0))
    return out, {"x": x.tolist(), "d": float(d), "p": float(p)}


def pairs():
    a = np.round(rng.standard_normal(200), 3)
    b = np.round(0.6 * a + 0.8 * rng.standard_normal(200) + 0.5, 3)
    counts = np.histogram(a, bins=15, range=(-2, 2))[0]
    edges = np.histogram_bin_edges(np.concatenate([a, b]), bins=20)
    p, q = np.histogram(a, edges)[0] / 200, np.histogram(b, edges)[0] / 200
    return {"a": a.tolist(), "b": b.tolist(), "correlation": float(stats.pearsonr(a, b)[0]), "histogram": counts.tolist(),
            "overlap": float(np.minimum(p, q).sum())}


chain_cases, autocorrelation = chains()
p_values, draws = kolmogorov()
record = {
    "made_by": f"testdata/make.py, arviz {arviz.__version__}, scipy {scipy.__version__}, numpy {np.__version__}",
    "chains": chain_cases, "autocorrelation": autocorrelation, "pareto": weights(), "p_values": p_values, "draws": draws, "pairs": pairs(),
}
path = pathlib.Path(__file__).with_name("arviz.json")
path.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'), allow_nan=False)}" for k, v in record.items()) + "\n}\n")
print(path.stat().st_size, "bytes")
