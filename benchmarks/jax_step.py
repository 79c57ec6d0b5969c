"""One persistent-CD step (Langevin, Adam) of a 2-H-H-1 SiLU MLP in JAX: jit, lax.scan. Prints one line of JSON."""
import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--steps", type=int, default=10, help="chain steps a training step")
parser.add_argument("--repeat", type=int, default=200, help="timed training steps")
args = parser.parse_args()
B, H, K = args.batch, args.hidden, args.steps
EPS, LR, B1, B2, ADAM_EPS, PENALTY = 0.01, 1e-3, 0.9, 0.999, 1e-8, 1e-3


def energy(p, x):
    h = jax.nn.silu(x @ p["w0"] + p["b0"])
    h = jax.nn.silu(h @ p["w1"] + p["b1"])
    return (h @ p["w2"] + p["b2"])[:, 0]


def loss_fn(p, pos, neg):
    ep, en = energy(p, pos), energy(p, neg)
    return ep.mean() - en.mean() + PENALTY * ((ep**2).mean() + (en**2).mean())


@jax.jit
def step(state, pos):
    p, m, v, x, key, t = state
    key, sub = jax.random.split(key)
    grad_x = jax.grad(lambda y: energy(p, y).sum())

    def langevin(y, k):
        return y - EPS * grad_x(y) + jnp.sqrt(2 * EPS) * jax.random.normal(k, y.shape), None

    x, _ = jax.lax.scan(langevin, x, jax.random.split(sub, K))
    loss, g = jax.value_and_grad(loss_fn)(p, pos, x)
    t = t + 1
    m = jax.tree.map(lambda a, b: B1 * a + (1 - B1) * b, m, g)
    v = jax.tree.map(lambda a, b: B2 * a + (1 - B2) * b * b, v, g)
    c1, c2 = 1 / (1 - B1**t), 1 / (1 - B2**t)
    p = jax.tree.map(lambda a, b, c: a - LR * (b * c1) / (jnp.sqrt(c * c2) + ADAM_EPS), p, m, v)
    return (p, m, v, x, key, t), loss


key = jax.random.PRNGKey(0)
ks = jax.random.split(key, 6)
shape = {"w0": (2, H), "b0": (H,), "w1": (H, H), "b1": (H,), "w2": (H, 1), "b2": (1,)}
fan = {"w0": 2, "b0": 2, "w1": H, "b1": H, "w2": H, "b2": H}
params = {n: jax.random.uniform(k, s, minval=-1, maxval=1) / jnp.sqrt(fan[n]) for (n, s), k in zip(shape.items(), ks)}
zeros = jax.tree.map(jnp.zeros_like, params)
pos = jax.random.normal(key, (B, 2))
state = (params, zeros, zeros, jax.random.normal(ks[0], (B, 2)), key, jnp.float32(0))
for _ in range(20):
    state, loss = step(state, pos)
    float(loss)
times = []
for _ in range(args.repeat):
    start = time.perf_counter()
    state, loss = step(state, pos)
    float(loss)  # the loss is read at every step, as Kelvin reads its energies
    times.append(1e3 * (time.perf_counter() - start))
print(json.dumps({"program": "jax", "version": jax.__version__, "batch": B, "hidden": H, "steps": K,
                  "median_ms": statistics.median(times)}))
