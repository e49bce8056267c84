# Writes unet-cifar10.safetensors: what google/ddpm-cifar10-32's network, with weights from an integer hash, makes of one image: eps, loss, the norm of every gradient.
# The 143 MB of weights are made again where they are needed (test/pytorch.test.ts has the same hash). Run as: python3 test/golden/unet_cifar10.py
import json
import os

import numpy as np
import torch
import torch.nn.functional as F

from safetensors import save
from unet import UNet, modern_name

here = os.path.dirname(os.path.abspath(__file__))
# config.json as it lies on the hub.
CONFIG = {
    "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": None, "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False, "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"], "downsample_padding": 0,
    "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32,
    "out_channels": 3, "sample_size": 32, "time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}


def uniform(index, size):
    """Tensor number `index`: float64 numbers in (-1, 1), a hash of 32-bit words (Wellons' lowbias32) of the element's number."""
    x = np.arange(size, dtype=np.uint32) + np.uint32((index * 0x9E3779B9) & 0xFFFFFFFF)
    x ^= x >> 16
    x *= np.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= np.uint32(0x846CA68B)
    x ^= x >> 16
    return (x + 0.5) / 2.0**31 - 1


def weights(shapes):
    """Variance 1 / fan-in for matrices and kernels; about one for norms, about zero for biases. In the order of names."""
    made = {}
    for i, (name, shape) in enumerate(shapes):
        u = uniform(i, int(np.prod(shape)))
        scale = np.sqrt(3 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        made[name] = (u * scale + (1 if "norm" in name and name.endswith("weight") else 0)).astype(np.float32).reshape(shape)
    return made


keys = [line.split(" ", 1) for line in open(os.path.join(here, "ddpm-cifar10-32-keys.txt")).read().split("\n") if line]
made = weights([(name, json.loads(shape)) for name, shape in keys])
model = UNet(CONFIG).eval().double()
model.load_state_dict({modern_name(n): torch.from_numpy(w).double() for n, w in made.items()})
image = lambda index: torch.from_numpy(1.7 * uniform(index, 3 * 32 * 32).astype(np.float32)).view(1, 3, 32, 32)
x, target, t = image(1000), image(1001), torch.tensor([637])
eps = model(x.double(), t)
loss = F.mse_loss(eps, target.double())
loss.backward()
norms = np.array([[p.grad.norm().item()] for _, p in sorted(model.named_parameters())], dtype=np.float64)
names = [n for n, _ in sorted(model.named_parameters())]
first = model.conv_in.weight.grad.float().numpy()
tensors = {"x": x.numpy(), "target": target.numpy(), "t": t.numpy(), "eps": eps.detach().float().numpy(), "loss": np.array([loss.item()]), "grad_norms": norms.reshape(-1), "grads.conv_in.weight": first}
save(os.path.join(here, "unet-cifar10.safetensors"), tensors, {"config": json.dumps(CONFIG), "names": json.dumps(names)})

with torch.no_grad():
    single = model.float()(x, t)
print("loss", loss.item(), "eps std", eps.std().item(), "float32 against float64:", ((single - eps).norm() / eps.norm()).item())
print("gradient norms from", norms.min(), "to", norms.max())
