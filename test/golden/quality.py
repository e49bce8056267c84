# Features of two sets, their statistics, Fréchet distances, precision and recall by numpy alone, written by numpy.savez: python3 test/golden/quality.py
# Also what pytorch-fid's statistics files are (mu, sigma), once stored and once deflated and in Fortran's order.
import os

import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
rng = np.random.RandomState(7)


def root(s):
    values, vectors = np.linalg.eigh(s)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def frechet(mu1, s1, mu2, s2):
    r = root(s1)
    covariance = np.sqrt(np.maximum(np.linalg.eigvalsh(r @ s2 @ r), 0)).sum()
    return ((mu1 - mu2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * covariance


def distances(a, b):
    return np.sqrt(((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1))


def precision_recall(generated, real, k=3):
    reach = lambda x: np.sort(distances(x, x), axis=1)[:, k]  # the first is the point itself
    d = distances(generated, real)
    return (d <= reach(real)[None]).any(1).mean(), (d <= reach(generated)[:, None]).any(0).mean()


real = rng.randn(61, 10) @ rng.randn(10, 10)
generated = 0.8 * rng.randn(50, 10) @ rng.randn(10, 10) + 0.3
generated[:25] = real[:25] + 0.7 * rng.randn(25, 10)
real, generated = real.astype(np.float32), generated.astype(np.float32)
out = {"real": real, "generated": generated}
for name, x in (("real", real), ("generated", generated)):
    out["mu_" + name], out["sigma_" + name] = x.astype(np.float64).mean(0), np.cov(x.astype(np.float64), rowvar=False)
out["frechet"] = frechet(out["mu_real"], out["sigma_real"], out["mu_generated"], out["sigma_generated"])
out["precision"], out["recall"] = precision_recall(generated, real)
np.savez(os.path.join(here, "quality.npz"), **out)
np.savez_compressed(os.path.join(here, "quality-statistics.npz"), mu=out["mu_real"], sigma=np.asfortranarray(out["sigma_real"]), note=np.array(["an entry of another kind"]))
print({k: v for k, v in out.items() if np.ndim(v) == 0})
