// DDIM inversion (Song et al. 2020, section 4.3): the noise that an image comes from, and the image that comes back from it.
import type { DiffusionModel, GaussianDiffusion } from '../gaussian.ts';
import { type Draw, Sampler, type SamplerOptions } from '../sampler.ts';
import { type Batch, type BatchOptions, batchShape, checkImages, inBatches, type Shape } from './encode.ts';

/** Timesteps of DDIM inversion, which has no noise. */
export interface InvertOptions extends Omit<SamplerOptions, 'method' | 'eta' | 'clipDenoised' | 'rederive' | 'meanOnly'>, BatchOptions {
  readonly onStep?: Draw['onStep'];
}

/** What DDIM inversion found. */
export interface Inverted {
  /** x at the noisiest timestep, about N(0, 1), (N, H, W, C). */
  readonly latents: Float32Array<ArrayBuffer>;
  /** What DDIM makes of them. */
  readonly images: Float32Array<ArrayBuffer>;
  /** Root mean square difference of each image from the one that was given, in units of [-1, 1]. */
  readonly errors: readonly number[];
}

/** Goes up the probability flow from the images; nothing is clipped, or the way could not be gone back. (N, H, W, C). */
export async function encodeDdim(model: DiffusionModel, diffusion: GaussianDiffusion, images: Float32Array, shape: Shape, options: InvertOptions): Promise<Float32Array<ArrayBuffer>> {
  checkImages(images, shape);
  return walk(model, diffusion, images, shape, options, true);
}

/** Goes down again from latents, at the same timesteps. */
export async function decodeDdim(model: DiffusionModel, diffusion: GaussianDiffusion, latents: Float32Array, shape: Shape, options: InvertOptions): Promise<Float32Array<ArrayBuffer>> {
  checkImages(latents, shape, 'latents');
  return walk(model, diffusion, latents, shape, options, false);
}

/** Up and down: how much of the images survives. The error falls as steps are added. */
export async function invert(model: DiffusionModel, diffusion: GaussianDiffusion, images: Float32Array, shape: Shape, options: InvertOptions): Promise<Inverted> {
  const latents = await encodeDdim(model, diffusion, images, shape, options);
  const back = await decodeDdim(model, diffusion, latents, shape, options);
  const size = images.length / shape[0];
  const errors = Array.from({ length: shape[0] }, (_, n) => {
    let sum = 0;
    for (let i = n * size; i < (n + 1) * size; i++) sum += (back[i]! - images[i]!) ** 2;
    return Math.sqrt(sum / size);
  });
  return { latents, images: back, errors };
}

async function walk(model: DiffusionModel, diffusion: GaussianDiffusion, start: Float32Array, shape: Shape, options: InvertOptions, inverse: boolean): Promise<Float32Array<ArrayBuffer>> {
  const { onStep, batchSize: _, onBatch: __, ...sampling } = options, batch = batchShape(shape, options);
  const sampler = new Sampler(model, diffusion, batch, { ...sampling, method: 'ddim', inverse, clipDenoised: false });
  try {
    // Nothing is drawn: the seed does not matter.
    return await inBatches(shape[0], batch, options, ({ rows }: Batch) => sampler.sample({ seed: 0, noise: rows(start), ...(onStep && { onStep }) }));
  } finally {
    await sampler.destroy();
  }
}
