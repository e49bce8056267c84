# The U-Net of DDPM in plain PyTorch, with the config fields and tensor names of diffusers' UNet2DModel.
import math
import re

import torch
import torch.nn.functional as F
from torch import nn


def timestep_embedding(t, dim, flip_sin_to_cos, freq_shift):
    half = dim // 2
    freqs = torch.exp(-math.log(10000) * torch.arange(half, device=t.device, dtype=torch.float32) / (half - freq_shift))
    angles = t[:, None].float() * freqs
    sin, cos = angles.sin(), angles.cos()
    return torch.cat([cos, sin] if flip_sin_to_cos else [sin, cos], dim=1)


class TimestepEmbedding(nn.Module):
    def __init__(self, in_dim, dim):
        super().__init__()
        self.linear_1 = nn.Linear(in_dim, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class ResnetBlock(nn.Module):
    def __init__(self, cin, cout, temb_dim, groups, eps, dropout, scale_shift=False):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin, eps=eps)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.scale_shift = scale_shift
        self.time_emb_proj = nn.Linear(temb_dim, 2 * cout if scale_shift else cout)
        self.norm2 = nn.GroupNorm(groups, cout, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None

    def forward(self, x, temb):
        h = self.conv1(F.silu(self.norm1(x)))
        e = self.time_emb_proj(F.silu(temb))[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + e)
        h = self.conv2(self.dropout(F.silu(h)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class Attention(nn.Module):
    def __init__(self, channels, head_dim, groups, eps):
        super().__init__()
        self.heads = 1 if head_dim is None else channels // head_dim
        self.group_norm = None if groups is None else nn.GroupNorm(groups, channels, eps=eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])  # a list for diffusers' name, to_out.0

    def forward(self, x):
        b, c, height, width = x.shape
        h = (self.group_norm(x) if self.group_norm is not None else x).flatten(2).transpose(1, 2)
        q, k, v = (f(h).view(b, -1, self.heads, c // self.heads).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        if hasattr(F, "scaled_dot_product_attention"):  # PyTorch 2
            h = F.scaled_dot_product_attention(q, k, v)
        else:
            h = (q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5).softmax(-1) @ v
        h = self.to_out[0](h.transpose(1, 2).reshape(b, -1, c))
        return x + h.transpose(1, 2).reshape(b, c, height, width)


class Downsample(nn.Module):
    def __init__(self, channels, padding):
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x):
        # Padding 0 is DDPM's: TensorFlow's SAME puts its one row and column of zeros below and to the right.
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.padding == 0 else x)


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Block(nn.Module):
    """The resnets of one resolution, each followed by attention if asked for, and the change of resolution after them."""

    def __init__(self, widths, attention, resample, args):
        super().__init__()
        temb_dim, groups, eps, dropout, head_dim, scale_shift = args
        self.resnets = nn.ModuleList([ResnetBlock(i, o, temb_dim, groups, eps, dropout, scale_shift) for i, o in widths])
        self.attentions = nn.ModuleList([Attention(o, head_dim, groups, eps) for _, o in widths] if attention else [])
        for name, module in resample.items():
            setattr(self, name, nn.ModuleList([module]))

    def layer(self, j, x, temb):
        x = self.resnets[j](x, temb)
        return self.attentions[j](x) if len(self.attentions) else x


class MidBlock(nn.Module):
    def __init__(self, channels, attention, attention_groups, args):
        super().__init__()
        temb_dim, groups, eps, dropout, head_dim, scale_shift = args
        self.attentions = nn.ModuleList([Attention(channels, head_dim, attention_groups, eps)] if attention else [])
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, temb_dim, groups, eps, dropout, scale_shift) for _ in range(2)])

    def forward(self, x, temb):
        x = self.resnets[0](x, temb)
        if len(self.attentions):
            x = self.attentions[0](x)
        return self.resnets[1](x, temb)


class UNet(nn.Module):
    """eps = UNet(config)(x, t, labels), x of shape (N, C, H, W), t (N,), labels (N,) where there are classes. Fields that a config lacks get diffusers' defaults."""

    def __init__(self, config):
        super().__init__()
        c = config
        known = {"act_fn": "silu", "center_input_sample": False, "mid_block_scale_factor": 1, "time_embedding_type": "positional"}
        for field, value in known.items():
            if c.get(field, value) != value:
                raise ValueError(f"{field} = {c[field]!r} is not supported, only {value!r}")
        widths, layers = c["block_out_channels"], c.get("layers_per_block", 2)
        temb_dim = c.get("time_embedding_dim") or 4 * widths[0]
        args = (temb_dim, c.get("norm_num_groups", 32), c.get("norm_eps", 1e-5), c.get("dropout", 0.0), c.get("attention_head_dim", 8), c.get("resnet_time_scale_shift", "default") == "scale_shift")
        self.embedding = (widths[0], c.get("flip_sin_to_cos", True), c.get("freq_shift", 0))
        self.conv_in = nn.Conv2d(c.get("in_channels", 3), widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], temb_dim)
        kind, classes = c.get("class_embed_type"), c.get("num_class_embeds")
        self.class_embedding = None
        if kind == "timestep":
            self.class_embedding = TimestepEmbedding(widths[0], temb_dim)
        elif classes is not None:
            self.class_embedding = nn.Embedding(classes, temb_dim)

        self.down_blocks, cin, skips, last = nn.ModuleList(), widths[0], [widths[0]], len(widths) - 1
        for i, (kind, cout) in enumerate(zip(c["down_block_types"], widths)):
            resample = {"downsamplers": Downsample(cout, c.get("downsample_padding", 1))} if i < last else {}
            pairs = [(cin if j == 0 else cout, cout) for j in range(layers)]
            self.down_blocks.append(Block(pairs, kind == "AttnDownBlock2D", resample, args))
            skips += [cout] * (layers + (i < last))
            cin = cout

        # diffusers gives the middle's attention no norm where the embedding scales and shifts, unless the config says how many groups.
        groups = c.get("attn_norm_num_groups") or (None if args[5] else args[1])
        self.mid_block = MidBlock(cin, c.get("add_attention", True), groups, args)

        self.up_blocks = nn.ModuleList()
        for i, (kind, cout) in enumerate(zip(c["up_block_types"], reversed(widths))):
            resample = {"upsamplers": Upsample(cout)} if i < last else {}
            pairs = [((cin if j == 0 else cout) + skips.pop(), cout) for j in range(layers + 1)]
            self.up_blocks.append(Block(pairs, kind == "AttnUpBlock2D", resample, args))
            cin = cout

        self.conv_norm_out = nn.GroupNorm(args[1], cin, eps=args[2])
        self.conv_out = nn.Conv2d(cin, c.get("out_channels", 3), 3, padding=1)

    def forward(self, x, t, labels=None):
        dim, flip, shift = self.embedding
        temb = self.time_embedding(timestep_embedding(t, dim, flip, shift).to(self.conv_in.weight.dtype))
        if isinstance(self.class_embedding, TimestepEmbedding):
            temb = temb + self.class_embedding(timestep_embedding(labels, dim, flip, shift).to(temb.dtype))
        elif self.class_embedding is not None:
            temb = temb + self.class_embedding(labels)
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            for j in range(len(block.resnets)):
                x = block.layer(j, x, temb)
                skips.append(x)
            if hasattr(block, "downsamplers"):
                x = block.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block(x, temb)
        for block in self.up_blocks:
            for j in range(len(block.resnets)):
                x = block.layer(j, torch.cat([x, skips.pop()], dim=1), temb)
            if hasattr(block, "upsamplers"):
                x = block.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def modern_name(name):
    """The names of today's diffusers for the attention tensors of its first year."""
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
    return name


def ddpm_init(model):
    """DDPM's initialisation: uniform with variance 1 / mean fan; about zero for the last layer of every residual branch."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            last = name.endswith(("conv2", "to_out.0", "conv_out"))
            nn.init.xavier_uniform_(module.weight, gain=1e-5 if last else 1.0)  # the gain is the root of the scale, 1e-10
            nn.init.zeros_(module.bias)
    return model


def count_macs(model, x, t):
    """Multiply-adds of one forward pass over x: convolutions, linear layers, and the two products of attention."""
    total = 0

    def hook(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, Attention):
            total += 2 * inputs[0].numel() * inputs[0].shape[2] * inputs[0].shape[3]

    handles = [m.register_forward_hook(hook) for m in model.modules()]
    with torch.no_grad():
        model(x, t)
    for h in handles:
        h.remove()
    return total
