// Image to image (SDEdit, Meng et al. 2022): an image is covered with noise up to some timestep, and sampling goes on from there.
import type { DiffusionModel, GaussianDiffusion } from '../gaussian.ts';
import { type Draw, Sampler, type SamplerOptions } from '../sampler.ts';
import { visitedTimesteps } from '../samplers/table.ts';
import { type Batch, type BatchOptions, batchShape, checkImages, diffuse, drawNoise, fromStrength, inBatches, type Shape, type UseOptions } from './encode.ts';

/** How far edit() goes back up the chain, and with which sampler it comes down. */
export interface EditOptions extends SamplerOptions, UseOptions, BatchOptions {
  /** Share of the chain that is done again: 1 keeps nothing of the image (0.6). */
  readonly strength?: number;
  readonly onStep?: Draw['onStep'];
}

/** What edit() made. */
export interface Edited {
  /** (N, H, W, C), not clipped */
  readonly images: Float32Array<ArrayBuffer>;
  /** What sampling started from, and the timestep of its noise. */
  readonly noised: Float32Array;
  readonly t: number;
}

/**
 * Draws images like the given ones, (N, H, W, C) in [-1, 1]: the less strength, the closer.
 *
 * @throws DdpmError E-USAGE for a strength that leaves no step, E-SHAPE for images that do not fill the shape
 */
export async function edit(model: DiffusionModel, diffusion: GaussianDiffusion, images: Float32Array, shape: Shape, options: EditOptions): Promise<Edited> {
  const { seed, firstId = 0, strength = 0.6, onStep, onCompile, batchSize: _, onBatch: __, steps: ___, ...sampling } = options, batch = batchShape(shape, options);
  checkImages(images, shape);
  const timesteps = fromStrength(visitedTimesteps(diffusion.schedule, options), strength), t = timesteps[0]!;
  const sampler = new Sampler(model, diffusion, batch, { ...sampling, timesteps }); // before anything is awaited: it reads the weights that are bound now
  try {
    await sampler.compile(onCompile);
    const noised = diffuse(diffusion, images, t, await drawNoise(diffusion.engine, shape, { seed, firstId }));
    const draw = ({ first, rows }: Batch) => sampler.sample({ seed, firstId: firstId + first, noise: rows(noised), ...(onStep && { onStep }) });
    return { images: await inBatches(shape[0], batch, options, draw), noised, t };
  } finally {
    await sampler.destroy();
  }
}
