# Losses of diffusion and their gradients by PyTorch's autograd, kept as losses.safetensors for the engine to reproduce.
# usage: python3 test/golden/losses.py (PyTorch 1.13 or later, on the CPU; a second)
#
# One schedule (linear, T = 100, scaled), one batch of five images of 4 x 3 pixels and 2 channels (N, H, W, C), at t = 0, 1, 40, 99, 0: `x0` (levels of 256),
# `noise`, `t`. For every case of the metadata: `NAME.output`, what a network could have given for it, `NAME.each`, `NAME.loss` and `NAME.doutput`.
# Everything is computed in float64 from inputs that are float32 numbers.
import json
import math
import os

import torch
import torch.nn.functional as F

from safetensors import save

HERE = os.path.dirname(os.path.abspath(__file__))
T, N, H, W, C = 100, 5, 4, 3, 2
CASES = {
    "mse-eps": {"prediction": "eps", "variance": "fixed_small", "loss": "mse"},
    "l1-x0": {"prediction": "x0", "variance": "fixed_large", "loss": "l1"},
    "huber-v": {"prediction": "v", "variance": "fixed_small", "loss": "huber"},
    "snr-eps": {"prediction": "eps", "variance": "fixed_small", "loss": "mse", "gamma": 5},
    "snr-x0": {"prediction": "x0", "variance": "fixed_small", "loss": "mse", "gamma": 5},
    "snr-v": {"prediction": "v", "variance": "fixed_small", "loss": "mse", "gamma": 5},
    "vlb-eps-small": {"prediction": "eps", "variance": "fixed_small", "loss": "vlb"},
    "vlb-eps": {"prediction": "eps", "variance": "learned_range", "loss": "vlb"},
    "vlb-v-large": {"prediction": "v", "variance": "fixed_large", "loss": "vlb"},
    "vlb-mu": {"prediction": "mu", "variance": "learned", "loss": "vlb"},
    "hybrid-eps": {"prediction": "eps", "variance": "learned_range", "loss": "hybrid"},
    "hybrid-x0-snr": {"prediction": "x0", "variance": "learned_range", "loss": "hybrid", "gamma": 1},
}

betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64) * (1000 / T)
acp = torch.cumprod(1 - betas, 0)
prev = torch.cat([torch.ones(1, dtype=torch.float64), acp[:-1]])
posterior = betas * (1 - prev) / (1 - acp)
small = torch.log(torch.cat([posterior[1:2], posterior[1:]]))
large = torch.log(torch.cat([posterior[1:2], betas[1:]]))


def at(table, t):
    return table[t][:, None, None, None]


def q_mean(x0, xt, t):
    return at(betas * prev.sqrt() / (1 - acp), t) * x0 + at((1 - prev) * (1 - betas).sqrt() / (1 - acp), t) * xt


def start_from(out, xt, t, prediction):
    """x_0 by each definition, solved for it as the papers do."""
    a, s = at(acp, t).sqrt(), (1 - at(acp, t)).sqrt()
    if prediction == "eps":
        return (xt - s * out) / a
    if prediction == "v":
        return a * xt - s * out
    if prediction == "mu":
        return (out - q_mean(torch.zeros_like(xt), xt, t)) / at(betas * prev.sqrt() / (1 - acp), t)
    return out


def target(x0, xt, noise, t, prediction):
    if prediction == "v":
        return at(acp, t).sqrt() * noise - (1 - at(acp, t)).sqrt() * x0
    return {"eps": noise, "x0": x0, "mu": q_mean(x0, xt, t)}[prediction]


def kl(m1, l1, m2, l2):
    return 0.5 * (-1 + l2 - l1 + torch.exp(l1 - l2) + (m1 - m2) ** 2 * torch.exp(-l2))


def cdf(x):
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def decoder(x, mean, log_variance):
    rate = torch.exp(-0.5 * log_variance)
    upper, lower = cdf(rate * (x - mean + 1 / 255)), cdf(rate * (x - mean - 1 / 255))
    log = lambda p: torch.log(p.clamp(min=1e-12))
    return -torch.where(x < -0.999, log(upper), torch.where(x > 0.999, log(1 - lower), log(upper - lower)))


def bits(mean_out, v, x0, xt, t, case):
    """The term of the variational bound of each image."""
    learned = {"fixed_small": at(small, t), "fixed_large": at(large, t)}
    if case["variance"] == "learned_range":
        frac = (v + 1) / 2
        learned["learned_range"] = frac * at(torch.log(betas), t) + (1 - frac) * at(small, t)
    learned["learned"] = v
    log_variance = learned[case["variance"]].expand_as(x0)
    mean = q_mean(start_from(mean_out, xt, t, case["prediction"]), xt, t)
    values = torch.where(at(torch.arange(T), t) == 0, decoder(x0, mean, log_variance), kl(q_mean(x0, xt, t), at(small, t), mean, log_variance))
    return values.mean((1, 2, 3)) / math.log(2)


def losses(out, x0, xt, noise, t, case):
    learned = out.shape[-1] == 2 * C
    mean_out, v = (out[..., :C], out[..., C:]) if learned else (out, None)
    goal = target(x0, xt, noise, t, case["prediction"])
    if case["loss"] == "vlb":
        return T * bits(mean_out, v, x0, xt, t, case)
    function = {"l1": F.l1_loss, "huber": F.smooth_l1_loss}.get(case["loss"], F.mse_loss)
    each = function(mean_out, goal, reduction="none").mean((1, 2, 3))
    if "gamma" in case:
        # Hang et al. 2023, table 1.
        snr = (acp / (1 - acp))[t]
        clipped = snr.clamp(max=case["gamma"])
        each = each * {"eps": clipped / snr, "x0": clipped, "v": clipped / (snr + 1)}[case["prediction"]]
    return each + T / 1000 * bits(mean_out.detach(), v, x0, xt, t, case) if case["loss"] == "hybrid" else each


def main():
    torch.manual_seed(3)
    f32 = lambda x: x.float().double()
    x0 = f32(torch.randint(0, 256, (N, H, W, C)) / 127.5 - 1)
    x0[:, 0, 0], x0[:, 0, 1] = -1, 1
    noise, t = f32(torch.randn(N, H, W, C)), torch.tensor([0, 1, 40, 99, 0])
    xt = at(acp, t).sqrt() * x0 + (1 - at(acp, t)).sqrt() * noise
    tensors = {"x0": x0, "noise": noise, "t": t}
    for name, case in CASES.items():
        # Off by a tenth in x_0, by less at t = 0, whose decoder is narrow.
        wrong = x0 + torch.randn_like(x0) * torch.tensor([0.003, 0.1, 0.1, 0.1, 0.05], dtype=torch.float64)[:, None, None, None]
        out = target(wrong, xt, (xt - at(acp, t).sqrt() * wrong) / (1 - at(acp, t)).sqrt(), t, case["prediction"])
        if case["variance"].startswith("learned"):
            v = torch.randn_like(x0)
            out = torch.cat([out, v if case["variance"] == "learned_range" else at(large, t) + 0.3 * v], -1)
        out = f32(out).requires_grad_()
        each = losses(out, x0, xt, noise, t, case)
        each.mean().backward()
        tensors.update({f"{name}.output": out.detach(), f"{name}.each": each.detach(), f"{name}.loss": each.mean().detach()[None], f"{name}.doutput": out.grad})
        print(f"{name:16} {each.mean():.5f}  |gradient| {out.grad.norm():.5f}")
    path = os.path.join(HERE, "losses.safetensors")
    save(path, {n: v.numpy() for n, v in tensors.items()}, {"cases": json.dumps(CASES), "T": str(T), "made_with": f"float64, torch {torch.__version__}, seed 3"})
    print(f"{path}: {os.path.getsize(path):,} bytes")


if __name__ == "__main__":
    main()
