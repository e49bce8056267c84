# Writes unet-dev-classes.safetensors: a small U-Net with all that DDPM's own has not (classes, scale and shift, an embedding of its own width, several heads, learned variances), its gradients,
# and the reading of a pair of images. Run as: python3 test/golden/unet_classes.py
import json
import os

import torch
import torch.nn.functional as F

from safetensors import save
from unet import UNet

CONFIG = {
    "in_channels": 6, "out_channels": 6, "block_out_channels": [8, 16], "down_block_types": ["AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1, "norm_num_groups": 4, "norm_eps": 1e-5, "freq_shift": 0, "flip_sin_to_cos": True,
    "downsample_padding": 1, "attention_head_dim": 4, "resnet_time_scale_shift": "scale_shift", "num_class_embeds": 5, "time_embedding_dim": 20, "sample_size": [8, 6],
}

torch.manual_seed(0)
model = UNet(CONFIG).eval()
with torch.no_grad():
    for name, p in model.named_parameters():
        # Away from the special values of a fresh model: norms of one and biases of zero hide what is forgotten.
        p.copy_(torch.randn_like(p) * (0.3 if p.dim() == 1 else p[0].numel() ** -0.5) + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
N, H, W = 3, 8, 6
x, start, target = torch.randn(N, 3, H, W), torch.randn(N, 3, H, W), torch.randn(N, 6, H, W)
t, labels = torch.tensor([0, 999, 421]), torch.tensor([4, 1, 4])


def run(dtype):
    net = UNet(CONFIG).eval().to(dtype)
    net.load_state_dict(model.state_dict())
    eps = net(torch.cat([x, start], dim=1).to(dtype), t, labels)
    loss = F.mse_loss(eps, target.to(dtype))
    loss.backward()
    return eps.detach(), loss.item(), {n: p.grad for n, p in net.named_parameters()}


eps, loss, grads = run(torch.float64)
tensors = {"x": x, "start": start, "target": target, "t": t, "labels": labels, "eps": eps.float()}
tensors |= {f"weights.{n}": p.detach() for n, p in model.named_parameters()} | {f"grads.{n}": g.float() for n, g in grads.items()}
tensors = {n: v.numpy() for n, v in tensors.items()}
tensors["loss"] = torch.tensor([loss], dtype=torch.float32).numpy()
here = os.path.dirname(os.path.abspath(__file__))
save(os.path.join(here, "unet-dev-classes.safetensors"), tensors, {"config": json.dumps(CONFIG)})

single = run(torch.float32)
error = max(((single[2][n].double() - g).norm() / g.norm()).item() for n, g in grads.items() if not n.endswith("to_k.bias"))
print("loss", loss, "eps norm", eps.norm().item(), "float32 against float64: eps", ((single[0] - eps).norm() / eps.norm()).item(), "gradients", error)
