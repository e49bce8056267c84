# Times one whole training step, and one sampling step, of the presets' U-Nets in PyTorch, to stand beside bench/step.ts.
# usage: python3 bench/peers/pytorch.py --preset ddpm-cifar10 --batch-size 128 --mode fp32|tf32|amp [--compile] [--channels-last]
# Prints one line of JSON. A step is: choose a batch of bytes on the device, flip, q_sample, forward, loss, backward, clip, AdamW, EMA.
import argparse
import contextlib
import json
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "test", "golden"))
from unet import UNet, count_macs, ddpm_init

T = 1000
DDPM = {"norm_eps": 1e-6, "attention_head_dim": None, "freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0}


def preset(size, channels, widths, layers, attention, groups, batch, middle=True):
    """attention: the levels that have it, 0 the finest."""
    levels = range(len(widths))
    return {
        **DDPM, "sample_size": size, "in_channels": channels, "out_channels": channels, "block_out_channels": widths,
        "layers_per_block": layers, "norm_num_groups": groups, "add_attention": middle,
        "down_block_types": ["AttnDownBlock2D" if i in attention else "DownBlock2D" for i in levels],
        "up_block_types": ["AttnUpBlock2D" if i in attention else "UpBlock2D" for i in reversed(levels)],
    }, batch


PRESETS = {
    "tiny": preset(28, 1, [16, 16, 32], 1, [], 4, 4, middle=False),
    "small": preset(28, 1, [64, 128, 128], 2, [1], 16, 128),
    "ddpm-cifar10": preset(32, 3, [128, 256, 256, 256], 2, [1], 32, 128),
}


def options():
    p = argparse.ArgumentParser(description="PyTorch's time for one training step and one sampling step")
    p.add_argument("--preset", choices=PRESETS, default="tiny")
    p.add_argument("--batch-size", type=int)
    p.add_argument("--sample-batch-sizes", type=int, nargs="+", help="images of a sampling step; default: --batch-size")
    p.add_argument("--mode", choices=["fp32", "tf32", "amp"], default="fp32",
                   help="fp32: TF32 off; tf32: TF32 in convolutions and matmuls; amp: autocast to --amp-dtype, channels last")
    p.add_argument("--amp-dtype", choices=["bf16", "fp16"], default="bf16")
    p.add_argument("--compile", action="store_true", help="torch.compile the model (PyTorch 2)")
    p.add_argument("--channels-last", action="store_true")
    p.add_argument("--dropout", type=float, default=0.0)
    p.add_argument("--steps", type=int, default=30, help="timed steps, after --warmup")
    p.add_argument("--warmup", type=int, default=10)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--threads", type=int, help="CPU threads")
    return p.parse_args()


def times_ms(step, warmup, steps, device):
    """Milliseconds of each step. On a GPU by events, so that the host may run ahead as it does in training."""
    for _ in range(warmup):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
        marks[0].record()
        for mark in marks[1:]:
            step()
            mark.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in zip(marks, marks[1:])]
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def main():
    o = options()
    device = torch.device(o.device)
    cuda = device.type == "cuda"
    if torch.__version__ < "2" and (o.compile or o.mode == "amp" and not cuda):
        sys.exit(f"--compile, and --mode amp on a CPU, need PyTorch 2; this is {torch.__version__}")
    if o.threads:
        torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = o.mode != "fp32"
    torch.backends.cudnn.benchmark = True  # the shapes never change

    config, batch = PRESETS[o.preset]
    batch = o.batch_size or batch
    size, channels = config["sample_size"], config["in_channels"]
    net = ddpm_init(UNet({**config, "dropout": o.dropout}))
    macs = count_macs(net, torch.zeros(1, channels, size, size), torch.zeros(1, dtype=torch.long))
    count = sum(p.numel() for p in net.parameters())
    assert o.preset != "ddpm-cifar10" or count == 35_746_307, count
    layout = torch.channels_last if o.channels_last or o.mode == "amp" else torch.contiguous_format
    net = net.to(device, memory_format=layout)
    params = list(net.parameters())
    ema = [p.detach().clone() for p in params]
    opt = torch.optim.AdamW(params, lr=2e-4, **({"fused": True} if cuda else {}))
    model = torch.compile(net) if o.compile else net

    amp_dtype = torch.bfloat16 if o.amp_dtype == "bf16" else torch.float16
    amp = (lambda: torch.autocast(device.type, amp_dtype)) if o.mode == "amp" else contextlib.nullcontext
    scaler = torch.cuda.amp.GradScaler() if cuda and o.mode == "amp" and o.amp_dtype == "fp16" else None

    data = torch.randint(0, 256, (4096, channels, size, size), dtype=torch.uint8, device=device)
    betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    acp = torch.cumprod(1 - betas, 0)
    acp_prev = torch.cat([acp.new_ones(1), acp[:-1]])
    table = lambda x: x.float().to(device)[:, None, None, None]
    signal, sigma = table(acp.sqrt()), table((1 - acp).sqrt())
    coef_x0, coef_xt = table(betas * acp_prev.sqrt() / (1 - acp)), table((1 - acp_prev) * (1 - betas).sqrt() / (1 - acp))
    std = table((betas * (1 - acp_prev) / (1 - acp)).sqrt())

    def train_step():
        x0 = data[torch.randint(0, len(data), (batch,), device=device)].float() / 127.5 - 1
        x0 = torch.where(torch.rand(batch, 1, 1, 1, device=device) < 0.5, x0.flip(-1), x0)
        t = torch.randint(0, T, (batch,), device=device)
        noise = torch.randn_like(x0)
        xt = (signal[t] * x0 + sigma[t] * noise).contiguous(memory_format=layout)
        with amp():
            eps = model(xt, t)
        loss = F.mse_loss(eps.float(), noise)
        opt.zero_grad(set_to_none=True)
        if scaler:
            scaler.scale(loss).backward()
            scaler.unscale_(opt)
        else:
            loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        if scaler:
            scaler.step(opt)
            scaler.update()
        else:
            opt.step()
        with torch.no_grad():
            torch._foreach_mul_(ema, 0.9999)
            torch._foreach_add_(ema, params, alpha=1 - 0.9999)

    def start(n):
        nonlocal x, at
        x = torch.randn(n, channels, size, size, device=device).contiguous(memory_format=layout)
        at = torch.full((n,), T - 1, device=device)

    x = at = None

    @torch.no_grad()
    def sample_step():
        """One ancestral step: predicted x0, clipped; posterior mean; noise."""
        nonlocal x
        with amp():
            eps = model(x, at)
        x0 = ((x - sigma[at] * eps.float()) / signal[at]).clamp(-1, 1)
        x = coef_x0[at] * x0 + coef_xt[at] * x + std[at] * torch.randn_like(x)

    memory = None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    train_ms = times_ms(train_step, o.warmup, o.steps, device)
    print(f"a training step takes {statistics.median(train_ms):.3f} ms; now sampling", file=sys.stderr, flush=True)  # compiling for it can take minutes
    if cuda:
        memory = torch.cuda.max_memory_allocated()
    else:
        import resource
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    net.eval()
    sample_ms = {}
    for n in o.sample_batch_sizes or [batch]:
        start(n)
        sample_ms[n] = times_ms(sample_step, min(o.warmup, 5), o.steps, device)

    median = statistics.median(train_ms)
    print(json.dumps({
        "peer": "pytorch", "preset": o.preset, "batch_size": batch, "mode": o.mode, "amp_dtype": o.amp_dtype if o.mode == "amp" else None,
        "compile": o.compile, "channels_last": layout == torch.channels_last, "dropout": o.dropout, "steps": o.steps,
        "ms_per_step": round(median, 3), "ms_per_step_min": round(min(train_ms), 3), "images_per_s": round(batch / median * 1e3, 1),
        "tflops": round(6 * macs * batch / median / 1e9, 3),  # forward and twice that backward, two operations a multiply-add
        "sample_ms_per_step": {n: round(statistics.median(ms), 3) for n, ms in sample_ms.items()}, "sample_ms_per_step_min": {n: round(min(ms), 3) for n, ms in sample_ms.items()},
        "peak_memory_mib": round(memory / 2**20, 1), "parameters": count, "forward_mmac_per_image": round(macs / 1e6, 2),
        "device": torch.cuda.get_device_name(device) if cuda else f"cpu, {torch.get_num_threads()} threads", "torch": torch.__version__,
    }))


if __name__ == "__main__":
    main()
