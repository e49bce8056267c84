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

/** Follows the probability flow from images up to noise. Nothing is clipped, since that could not be undone. (N, H, W, C). */
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
  checkImages(images, shape);
  const { latents, back } = await bothWays(model, diffusion, [shape, options], [shape, options], async (up, down) => {
    const latents = await up(images);
    return { latents, back: await down(latents) };
  });
  const size = images.length / shape[0];
  const errors = Array.from({ length: shape[0] }, (_, n) => {
    let sum = 0;
    for (let i = n * size; i < (n + 1) * size; i++) sum += (back[i]! - images[i]!) ** 2;
    return Math.sqrt(sum / size);
  });
  return { latents, images: back, errors };
}

type Walk = (start: Float32Array) => Promise<Float32Array<ArrayBuffer>>;

/** Gives fn the way up and the way down, both captured before anything is awaited: they read the weights that are bound now. */
export async function bothWays<T>(model: DiffusionModel, diffusion: GaussianDiffusion, up: readonly [Shape, InvertOptions], down: readonly [Shape, InvertOptions], fn: (up: Walk, down: Walk) => Promise<T>): Promise<T> {
  const first = walker(model, diffusion, ...up, true);
  let second: ReturnType<typeof walker> | null = null;
  try {
    second = walker(model, diffusion, ...down, false);
    return await fn(first.walk, second.walk);
  } finally {
    await first.destroy();
    await second?.destroy();
  }
}

function walker(model: DiffusionModel, diffusion: GaussianDiffusion, shape: Shape, options: InvertOptions, inverse: boolean): { walk: Walk; destroy: () => Promise<void> } {
  const { onStep, onCompile, batchSize: _, onBatch: __, ...sampling } = options, batch = batchShape(shape, options);
  const sampler = new Sampler(model, diffusion, batch, { ...sampling, method: 'ddim', inverse, clipDenoised: false });
  return {
    // Nothing is drawn: the seed does not matter.
    walk: async (start) => {
      await sampler.compile(onCompile);
      return inBatches(shape[0], batch, options, ({ rows }: Batch) => sampler.sample({ seed: 0, noise: rows(start), ...(onStep && { onStep }) }));
    },
    destroy: () => sampler.destroy(),
  };
}

async function walk(model: DiffusionModel, diffusion: GaussianDiffusion, start: Float32Array, shape: Shape, options: InvertOptions, inverse: boolean): Promise<Float32Array<ArrayBuffer>> {
  const { walk: go, destroy } = walker(model, diffusion, shape, options, inverse);
  try {
    return await go(start);
  } finally {
    await destroy();
  }
}
