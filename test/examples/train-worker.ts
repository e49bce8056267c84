// Training in a Web Worker: the page stays free. It posts { steps } and gets { step, loss } for each, then { weights }, a safetensors file.
import { DeviceImages, Engine, engineRequirements, GaussianDiffusion, makeSchedule, Parameters, Training, UNet, writeSafetensors } from 'ddpm.wgsl';

/** 64 images of 8 x 8: discs of light at different places. */
function discs(): { count: number; height: number; width: number; channels: number; pixels: Uint8Array } {
  const pixels = Uint8Array.from({ length: 64 * 64 }, (_, i) => {
    const image = i >> 6, y = (i >> 3) & 7, x = i & 7;
    return Math.max(0, 255 - 40 * ((x - 2 - (image & 3)) ** 2 + (y - 2 - ((image >> 2) & 3)) ** 2));
  });
  return { count: 64, height: 8, width: 8, channels: 1, pixels };
}

addEventListener('message', async ({ data: { steps } }: MessageEvent<{ steps: number }>) => {
  const adapter = (await navigator.gpu.requestAdapter())!;
  const device = await adapter.requestDevice(engineRequirements(adapter));
  const engine = new Engine(device);
  const unet = new UNet({
    in_channels: 1, out_channels: 1, block_out_channels: [8], layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, attention_head_dim: null,
    down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'], freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0,
  });
  const parameters = Parameters.place(engine, unet);
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 1000 }));
  const training = new Training(unet, parameters, diffusion, new DeviceImages(engine, discs(), false), { batchSize: 8, steps, lr: 2e-3 });
  for await (const { step, loss } of training.loop({ every: 4 })) postMessage({ step, loss });

  const weights = writeSafetensors(await parameters.read('values'), { format: 'pt' });
  await engine.destroy();
  postMessage({ weights });
});
