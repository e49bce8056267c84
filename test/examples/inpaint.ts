// A model out of a run, a checkpoint or a folder in diffusers' layout (`path`), in Node: it paints anew the parts of given images that a mask leaves open.
import { GaussianDiffusion, inpaint, Parameters, UNet, withSampling } from 'ddpm.wgsl';
import { loadModelFolder, openEngine } from 'ddpm.wgsl/node';

/** images (n, H, W, C) in [-1, 1]; mask (n, H, W), 1 where to paint. Returns images of the same shape, about [-1, 1]. */
export async function repaint(path: string, images: Float32Array, mask: Float32Array, shape: readonly [number, number, number, number], { steps = 100, resamples = 5, seed = 0 } = {}): Promise<Float32Array> {
  await using opened = await openEngine();
  const { engine } = opened;
  const { config, tensors, file, scheduler } = await loadModelFolder(path);
  const unet = new UNet(config);
  Parameters.place(engine, unet, { training: false, initial: false }).write('values', tensors, file);
  const diffusion = new GaussianDiffusion(engine, scheduler.schedule, scheduler); // what the network predicts, and the variance, are the scheduler's
  return await inpaint((x, t) => unet.forward(x, t), diffusion, images, mask, shape, withSampling({ method: 'ddpm', steps, resamples, seed }, scheduler));
}
