# What diffusers itself saves and loads.
#   python3 test/golden/diffusers_pipeline.py save FOLDER          a small pipeline as save_pretrained leaves it (test/golden/diffusers-pipeline), with what it computes: given.safetensors
#   python3 test/golden/diffusers_pipeline.py load FOLDER IN OUT   loads FOLDER and computes the same of the x, t, labels and x_T in IN; test/diffusers.test.ts runs it where diffusers is installed
import json
import os
import sys

# This folder has a safetensors.py of its own, which is not the package.
sys.path.pop(0)

import torch
from safetensors.torch import load_file, save_file

import diffusers
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

STEPS = 10


def compute(unet, path, given, **more):
    """eps, and x after ten steps of DDIM from x_T, its scheduler told more, in double precision: what differs from it is the other side's rounding."""
    unet = unet.eval().double()
    scheduler = DDIMScheduler.from_pretrained(path, **more)
    labels, x = given.get("labels"), given["x_T"].double()
    scheduler.set_timesteps(STEPS)
    with torch.no_grad():
        eps = unet(given["x"].double(), given["t"], class_labels=labels).sample
        for t in scheduler.timesteps:
            # As derived from the clipped x_0 here; without clipping both are one.
            x = scheduler.step(unet(x, t, class_labels=labels).sample, t, x, use_clipped_model_output=True).prev_sample
    return {"eps": eps.contiguous(), "x_0": x.contiguous(), "timesteps": scheduler.timesteps.long()}


def save(folder):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=(8, 6), in_channels=3, out_channels=3, block_out_channels=(4, 8), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), layers_per_block=1, norm_num_groups=4, attention_head_dim=4, num_class_embeds=5, resnet_time_scale_shift="scale_shift")
    with torch.no_grad():
        for name, p in unet.named_parameters():
            # Away from the special values of a fresh model: norms of one and biases of zero hide what is forgotten.
            p.copy_(torch.randn_like(p) * (0.3 if p.dim() == 1 else p[0].numel() ** -0.5) + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    scheduler = DDPMScheduler(
        num_train_timesteps=200, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", variance_type="fixed_large", clip_sample_range=0.7,
        rescale_betas_zero_snr=True, timestep_spacing="trailing")
    DDPMPipeline(unet, scheduler).save_pretrained(folder, safe_serialization=True)
    given = {"x": torch.randn(2, 3, 8, 6), "t": torch.tensor([0, 137]), "labels": torch.tensor([4, 1]), "x_T": torch.randn(2, 3, 8, 6)}
    path = os.path.join(folder, "scheduler")
    thresholded = compute(unet, path, given, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=2.5)["x_0"]
    save_file({**given, **compute(unet, path, given), "x_0 thresholded": thresholded}, os.path.join(folder, "given.safetensors"), {"diffusers": diffusers.__version__, "torch": torch.__version__})


def load(folder, inputs, out):
    unet, loading = UNet2DModel.from_pretrained(folder, output_loading_info=True)
    wrong = {what: names for what, names in loading.items() if names}
    given = load_file(inputs)
    told = {"loading": json.dumps(wrong), "parameters": str(sum(p.numel() for p in unet.parameters())), "diffusers": diffusers.__version__, "torch": torch.__version__}
    told["scheduler"] = json.dumps(dict(DDPMScheduler.from_pretrained(folder).config), default=str)
    if os.path.exists(os.path.join(folder, "model_index.json")):
        pipeline = DDPMPipeline.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        told["pipeline"] = str(pipeline(batch_size=1, num_inference_steps=3, output_type="numpy").images.shape)
    save_file(compute(unet, folder, given), out, told)


{"save": save, "load": load}[sys.argv[1]](*sys.argv[2:])
