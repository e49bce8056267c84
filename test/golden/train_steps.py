# Ten training steps of a very small U-Net in PyTorch, kept as train-ten-steps.safetensors for the engine to reproduce.
# usage: python3 test/golden/train_steps.py (PyTorch 1.13 or later, on the CPU; a few seconds)
#
# The file: initial `weights.*` (diffusers' names), batches `x0`, `t`, `noise`, the `losses` and `grad_norms` (before clipping) of
# each step, and `final.*` and `ema.*`, the weights and their average after the last one. Config and hyper-parameters are JSON
# in the metadata. The same run in float64 says how far float32 rounding alone goes: metadata `float64_deviation`.
import json
import os

import torch
import torch.nn.functional as F
from torch import nn

from safetensors import save
from unet import UNet

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS, BATCH, SIZE, CHANNELS, T = 10, 4, 8, 3, 1000
CONFIG = {
    "_class_name": "UNet2DModel", "sample_size": SIZE, "in_channels": CHANNELS, "out_channels": CHANNELS,
    "block_out_channels": [4, 12], "layers_per_block": 1, "norm_num_groups": 2, "norm_eps": 1e-6, "attention_head_dim": None,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0, "act_fn": "silu", "dropout": 0.0,
}
HYPER = {
    "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "grad_clip": 1.0, "ema": 0.99,
    "timesteps": T, "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
}


def initial_weights(model):
    """Normal and nowhere zero: DDPM's own initialisation would leave most gradients of the first steps at zero."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
                module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.GroupNorm):
                module.weight.normal_(1, 0.1)
                module.bias.normal_(0, 0.1)
        model.conv_out.weight.mul_(0.75)  # gradient norms on both sides of grad_clip


def train(weights, x0, t, noise, dtype):
    model = UNet(CONFIG).to(dtype)
    model.load_state_dict(weights)
    params = list(model.parameters())
    ema = [p.detach().clone() for p in params]
    opt = torch.optim.AdamW(params, lr=HYPER["lr"], betas=HYPER["betas"], eps=HYPER["eps"], weight_decay=HYPER["weight_decay"])
    acp = torch.cumprod(1 - torch.linspace(HYPER["beta_start"], HYPER["beta_end"], T, dtype=torch.float64), 0)
    a, b = acp.sqrt().to(dtype)[:, None, None, None], (1 - acp).sqrt().to(dtype)[:, None, None, None]
    losses, norms = [], []
    for i in range(STEPS):
        eps = noise[i].to(dtype)
        loss = F.mse_loss(model(a[t[i]] * x0[i].to(dtype) + b[t[i]] * eps, t[i]), eps)
        opt.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(params, HYPER["grad_clip"]).item())
        opt.step()
        for e, p in zip(ema, params):
            e.copy_(HYPER["ema"] * e + (1 - HYPER["ema"]) * p.detach())
        losses.append(loss.item())
    names = [n for n, _ in model.named_parameters()]
    return losses, norms, dict(zip(names, (p.detach() for p in params))), dict(zip(names, ema))


def main():
    torch.set_num_threads(1)
    torch.manual_seed(11)
    model = UNet(CONFIG)
    initial_weights(model)
    weights = {n: p.clone() for n, p in model.state_dict().items()}
    x0 = torch.rand(STEPS, BATCH, CHANNELS, SIZE, SIZE) * 2 - 1
    t = torch.randint(0, T, (STEPS, BATCH))
    t[0, 0], t[0, 1] = 0, T - 1
    noise = torch.randn_like(x0)

    single = train(weights, x0, t, noise, torch.float32)
    double = train(weights, x0, t, noise, torch.float64)
    rel = lambda p, q: ((p.double() - q.double()).norm() / q.double().norm()).item()
    pairs = {}
    for name, p, q in zip(("losses", "grad_norms"), single, double):
        pairs[name] = max(abs(u - v) / abs(v) for u, v in zip(p, q))
    for name, p, q in zip(("final", "ema"), single[2:], double[2:]):
        # A softmax ignores what adds to all its logits, so to_k.bias has a gradient of zero and AdamW scales up the rounding.
        pairs[name] = max(rel(p[n], q[n]) for n in p if "to_k.bias" not in n)
        pairs[name + " to_k.bias"] = max(rel(p[n], q[n]) for n in p if "to_k.bias" in n)
    for name, d in pairs.items():
        print(f"{name:18} float32 differs from float64 by {d:.1e} at most (relative)")
        assert d < 1e-5 or "to_k" in name, name

    f32 = lambda v: torch.tensor(v, dtype=torch.float32)
    tensors = {"x0": x0, "t": t, "noise": noise, "losses": f32(single[0]), "grad_norms": f32(single[1])}
    for prefix, group in (("weights", weights), ("final", single[2]), ("ema", single[3])):
        tensors.update({f"{prefix}.{n}": p for n, p in group.items()})
    path = os.path.join(HERE, "train-ten-steps.safetensors")
    made_with = f"torch {torch.__version__}, seed 11"
    metadata = {"config": CONFIG, "hyper": HYPER, "float64_deviation": {n: float(f"{d:.2g}") for n, d in pairs.items()}}
    save(path, {n: v.numpy() for n, v in tensors.items()}, {**{k: json.dumps(v) for k, v in metadata.items()}, "made_with": made_with})
    print("losses    ", " ".join(f"{v:.5f}" for v in single[0]))
    print("grad norms", " ".join(f"{v:.4f}" for v in single[1]))
    print(f"{path}: {os.path.getsize(path):,} bytes, {sum(p.numel() for p in weights.values()):,} parameters")


if __name__ == "__main__":
    main()
