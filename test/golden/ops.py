# Makes ops.safetensors: inputs, outputs and gradients of the ops in PyTorch, float64. Run by hand: python3 test/golden/ops.py
import math
import os

import torch
import torch.nn.functional as F

import safetensors

torch.manual_seed(2)
torch.set_default_dtype(torch.float64)
tensors = {}


def save(prefix, **values):
    for name, value in values.items():
        tensors[f"{prefix}.{name}"] = value.detach().clone()


def leaf(*shape, scale=1.0, shift=0.0):
    return (torch.randn(*shape) * scale + shift).requires_grad_()


def backward(prefix, y, **inputs):
    """Saves the inputs, y, a random dy, and the gradient of each input as d<name>."""
    dy = torch.randn_like(y)
    grads = torch.autograd.grad(y, list(inputs.values()), dy)
    save(prefix, y=y, dy=dy, **inputs, **{f"d{name}": g for name, g in zip(inputs, grads)})


# conv2d: name, kernel, stride, F.pad (left, right, top, bottom), input size
for name, k, stride, pad, (h, w) in [
    ("conv3x3", 3, 1, (1, 1, 1, 1), (5, 7)),
    ("conv1x1", 1, 1, (0, 0, 0, 0), (4, 5)),
    ("conv_down", 3, 2, (0, 1, 0, 1), (6, 8)),  # DDPM"s downsampling
    ("conv_down_odd", 3, 2, (0, 1, 0, 1), (5, 7)),
    ("conv_stride2", 3, 2, (1, 1, 1, 1), (6, 7)),
    ("conv_uneven", 3, 1, (2, 0, 1, 0), (4, 5)),
]:
    x, w_, bias = leaf(2, 3, h, w), leaf(5, 3, k, k), leaf(5)
    backward(name, F.conv2d(F.pad(x, pad), w_, bias, stride=stride), x=x, w=w_, bias=bias)

# the conv of a residual block: two inputs concatenated, the time embedding per image and channel, a residual
x, x2, w_, bias, per_image, residual = leaf(2, 3, 4, 5), leaf(2, 2, 4, 5), leaf(4, 5, 3, 3), leaf(4), leaf(2, 4), leaf(2, 4, 4, 5)
y = F.conv2d(torch.cat([x, x2], 1), w_, bias, padding=1) + per_image[:, :, None, None] + residual
backward("conv_skip", y, x=x, x2=x2, w=w_, bias=bias, perImage=per_image, residual=residual)

# group norm, far from mean zero, on one input and on two
for name, act in [("group_norm", lambda h: h), ("group_norm_silu", F.silu)]:
    x, gamma, beta = leaf(2, 6, 3, 5, scale=2, shift=3), leaf(6, shift=1), leaf(6)
    backward(name, act(F.group_norm(x, 3, gamma, beta, eps=1e-6)), x=x, gamma=gamma, beta=beta)
    x, x2, gamma, beta = leaf(2, 5, 3, 4), leaf(2, 3, 3, 4, shift=-1), leaf(8, shift=1), leaf(8)
    backward(name + "_skip", act(F.group_norm(torch.cat([x, x2], 1), 4, gamma, beta, eps=1e-5)), x=x, x2=x2, gamma=gamma, beta=beta)

x = leaf(50, scale=4)
backward("silu", F.silu(x), x=x)

x = leaf(7, 11, scale=5)
backward("softmax", torch.softmax(x, -1), x=x)

for heads in (1, 3):
    q, k, v = leaf(2, 7, 6, scale=2), leaf(2, 7, 6, scale=2), leaf(2, 7, 6)
    split = lambda t: t.reshape(2, 7, heads, -1).transpose(1, 2)
    p = torch.softmax(split(q) @ split(k).transpose(-1, -2) / math.sqrt(6 // heads), -1)
    backward(f"attention{heads}", (p @ split(v)).transpose(1, 2).reshape(2, 7, 6), q=q, k=k, v=v)

x = leaf(2, 3, 3, 5)
backward("upsample", F.interpolate(x, scale_factor=2.0, mode="nearest"), x=x)

x, w_, bias = leaf(4, 7), leaf(5, 7), leaf(5)
backward("linear", F.linear(x, w_, bias), x=x, w=w_, bias=bias)

a, b = leaf(3, 4, 5), leaf(3, 5, 6)
backward("bmm", 0.5 * torch.bmm(a, b), a=a, b=b)

x, target = leaf(2, 3, 4), torch.randn(2, 3, 4)
loss = F.mse_loss(x, target)
save("mse", x=x, target=target, loss=loss, dx=torch.autograd.grad(loss, x)[0])


# diffusers' get_timestep_embedding, in float64 (there it is float32)
def timestep_embedding(t, dim, flip_sin_to_cos, downscale_freq_shift, max_period=10000):
    half = dim // 2
    exponent = -math.log(max_period) * torch.arange(half) / (half - downscale_freq_shift)
    emb = t[:, None] * torch.exp(exponent)[None, :]
    emb = torch.cat([torch.sin(emb), torch.cos(emb)], dim=-1)
    if flip_sin_to_cos:
        emb = torch.cat([emb[:, half:], emb[:, :half]], dim=-1)
    return F.pad(emb, (0, 1, 0, 0)) if dim % 2 == 1 else emb


t = torch.tensor([0.0, 1.0, 37.0, 500.0, 999.0])
save("embedding", t=t, ddpm=timestep_embedding(t, 16, False, 1), flipped=timestep_embedding(t, 16, True, 0), odd=timestep_embedding(t, 9, False, 1))

# AdamW, three steps, two parameters under one global norm: only the first step is clipped
first, second = leaf(9), leaf(2, 4)
ema = [first.detach().clone(), second.detach().clone()]
save("adamw", param0=first, param1=second)
optimizer = torch.optim.AdamW([first, second], lr=3e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
for step in (1, 2, 3):
    first.grad, second.grad = torch.randn(9) * 2 / step**3, torch.randn(2, 4) * 2 / step**3
    save(f"adamw.{step}", grad0=first.grad, grad1=second.grad)
    norm = torch.nn.utils.clip_grad_norm_([first, second], 1.0)
    optimizer.step()
    ema = [0.75 * e + 0.25 * p.detach() for e, p in zip(ema, (first, second))]
    save(f"adamw.{step}", norm=norm, param0=first, param1=second, ema0=ema[0], ema1=ema[1])
    for i, p in enumerate((first, second)):
        save(f"adamw.{step}", **{f"m{i}": optimizer.state[p]["exp_avg"], f"v{i}": optimizer.state[p]["exp_avg_sq"]})

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ops.safetensors")
made_with = f"test/golden/ops.py, torch {torch.__version__}, float64, seed 2"
safetensors.save(path, {name: t.numpy() for name, t in tensors.items()}, {"made_with": made_with})
print(path, os.path.getsize(path), "bytes,", len(tensors), "tensors")
print("norms", [float(tensors[f"adamw.{s}.norm"]) for s in (1, 2, 3)])
